"""Recipes: the shipped ones say what they claim, each ablation changes one thing, and what is wrong is told."""

import json
import re
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from latentomni.adapters import LoraSpec
from latentomni.commands.train import nano_recipe
from latentomni.config import LatentSpec, VideoSpec
from latentomni.errors import RequestError
from latentomni.training.feedback import Phase
from latentomni.training.loop import FitSpec, Stage
from latentomni.training.losses import PRESETS, LossSpec
from latentomni.training.nano import NanoRecipe
from latentomni.training.recipes import SHIPPED_DIR, TrainRecipe, read_recipe, shipped_recipes
from latentomni.training.records import Style

README = (SHIPPED_DIR / "README.md").read_text(encoding="utf-8")
CHANGES = {  # over latentomni
    "anchors-only": {"phases.anchors.steps": 750, "phases.jacobi": None, "phases.rollout": None},
    "direct": {"style": "direct"},
    "explicit-text-cot": {"style": "explicit-text-cot"},
    "latentomni": {},
    "latentomni-qlora": {"method": "qlora", **{f"phases.{kind}.lr": 1e-4 for kind in ("anchors", "jacobi", "rollout")}},
    "no-alignment": {"losses.alignment": 0.0},
    "no-audio-latents": {"latent.audio": False},
    "no-ospe": {"latent.positions": "sequential"},
    "no-sync": {"losses.sync": 0.0},
    "no-visual-latents": {"latent.visual": False},
    "open-flow": {"latent.flow": "open"},
    "paper-flow": {"latent.flow": "paper"},
    "relative-ospe": {"latent.positions": "relative"},
    "upstream-ospe": {"latent.positions": "upstream"},
    "vanilla-sft": {"style": "vanilla-sft"},
}


def difference(a, b, path=""):
    """Paths of what differs, with the second's values; None where it has none."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: v for key in a.keys() | b.keys() for k, v in difference(a.get(key), b.get(key), f"{path}.{key}".strip(".")).items()}
    return {} if a == b else {path: b}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_changes_what_it_says_and_nothing_else(name):
    base, recipe = read_recipe("latentomni"), read_recipe(name)
    assert difference(base.to_dict(), recipe.to_dict()) == CHANGES[name]
    assert (recipe.steps, recipe.fit.seed, recipe.model) == (750, 7, "Qwen/Qwen2.5-Omni-7B")


def test_the_base_recipe_has_the_papers_numbers():
    recipe = read_recipe("latentomni")
    assert {stage.lr for stage in recipe.stages} == {1e-5}
    assert (recipe.steps, recipe.samples, recipe.fit.warmup, recipe.fit.restarts) == (750, 96, 0.05, False)
    assert recipe.losses == PRESETS["paper"]
    spec = LatentSpec(**recipe.latent)
    assert (spec.n_visual, spec.n_audio, spec.flow, spec.positions) == (32, 8, "strict", "absolute")
    assert recipe.video["max_frames"] == 256
    assert [(s.name, s.phase.kind, s.phase.passes) for s in recipe.stages] == [
        ("anchors", "anchors", 2), ("jacobi", "jacobi", 2), ("rollout", "rollout", 2)]  # fmt: skip


def test_every_shipped_recipe_is_listed_and_so_is_every_key():
    assert set(CHANGES) == set(shipped_recipes())
    listed = {name for row in re.findall(r"^\| (`[^|]*) \|", README, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    keys = {f.name for f in fields(TrainRecipe)} - {"stages"} | {"lr", "phases"}
    assert listed == set(CHANGES) | keys
    (example,) = re.findall(r"```json\n(.*?)```", README, re.S)
    recipe = json.loads(example)
    assert read_recipe(recipe.pop("extends"), recipe).stages[1].phase.passes == 4
    for key, cls in (("lora", LoraSpec), ("latent", LatentSpec), ("video", VideoSpec), ("fit", FitSpec), ("losses", LossSpec)):
        (row,) = re.findall(rf"^\| `{key}` \|.*\|(.*)\|$", README, re.M)
        told = set(re.findall(r"`(\w+)`", row)) - {"preset", "paper", "upstream", "tensorboard", "trackio"}
        assert told <= {f.name for f in fields(cls)}, key


@pytest.mark.parametrize("file", sorted((SHIPPED_DIR / "accelerate").glob("*.yaml")), ids=lambda f: f.stem)
def test_launch_configurations_are_read_by_accelerate(file):
    config = load_config_from_file(str(file))
    assert config.mixed_precision == "bf16"
    expected = {"single": "NO", "multi": "MULTI_GPU", "fsdp2": "FSDP", "fsdp2-nodes": "FSDP", "zero2": "DEEPSPEED"}
    assert str(config.distributed_type).rpartition(".")[2] == expected[file.stem]
    if file.stem.startswith("fsdp2"):
        assert (config.fsdp_config["fsdp_version"], config.fsdp_config["fsdp_reshard_after_forward"]) == (2, False)
    if file.stem == "zero2":
        assert (config.deepspeed_config["zero_stage"], config.deepspeed_config["gradient_accumulation_steps"]) == (2, 1)


def test_a_recipe_written_down_is_the_recipe(tmp_path):
    recipe = read_recipe("latentomni-qlora", {"features": "kept", "phases": {"jacobi": {"share": 0.5, "lr": 3}}, "losses": {"preset": "upstream"}})
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    assert read_recipe(tmp_path / "recipe.json") == recipe
    assert recipe.losses == PRESETS["upstream"]
    assert recipe.stages[1] == Stage("jacobi", 200, 3, Phase("jacobi", 2, 0.5))
    assert (recipe.style, recipe.lora) == (Style.LATENTOMNI, LoraSpec(16, 32))


def test_files_extend_files_and_changes_lie_on_top(tmp_path):
    (tmp_path / "a.json").write_text('{"extends": "no-sync", "samples": 8, "losses": {"groups": {"answer": 2.0}}}')
    (tmp_path / "b.json").write_text('{"extends": "a.json", "phases": {"rollout": {"steps": 0}}, "lr": 2e-4}')
    recipe = read_recipe(tmp_path / "b.json", {"samples": 4, "losses": {"groups": {"text": 3}}})
    assert (recipe.samples, recipe.losses.sync, recipe.losses.groups) == (4, 0.0, {"answer": 2.0, "text": 3})
    assert [(s.name, s.steps, s.lr) for s in recipe.stages] == [("anchors", 450, 2e-4), ("jacobi", 200, 2e-4)]


WRONG = [
    ({"sample": 3}, "unknown key 'sample'; the nearest known one is 'samples'"),
    ({"fit": {"sed": 1}}, "unknown key 'fit.sed'; the nearest known one is 'seed'"),
    ({"phases": {"jacoby": {}}}, "unknown key 'phases.jacoby'; the nearest known one is 'jacobi'"),
    ({"phases": {"jacobi": {"pases": 3}}}, "unknown key 'phases.jacobi.pases'; the nearest known one is 'passes'"),
    ({"stages": []}, "unknown key 'stages'"),
    ({"lr": "1e-5"}, "lr must be a number, got '1e-5'"),
    ({"packing": 1}, "packing must be true or false, got 1"),
    ({"samples": True}, "samples must be a whole number, got True"),
    ({"features": 3}, "features must be text or null, got 3"),
    ({"latent": {"flow": "loud"}}, "latent: unknown AttentionFlow 'loud'; choose one of open, paper, strict"),
    ({"latent": {"visual": False, "audio": False}}, "latent: a latent block needs visual latents, audio latents or both"),
    ({"video": {"max_frames": 0}}, "max_frames must be at least 1, got 0"),
    ({"style": "loud"}, "unknown style 'loud'"),
    ({"method": "half"}, "method must be one of full, lora, qlora, got 'half'"),
    ({"losses": {"preset": "ours"}}, "losses.preset must be one of paper, upstream, got 'ours'"),
    ({"lora": {"rank": 0}}, "lora: LoraSpec.rank must be at least 1"),
    ({"phases": {"anchors": {"steps": -1}}}, "phases.anchors.steps must be a whole number from 0 on, got -1"),
    ({"phases": {"anchors": {"noise": -1}}}, "phases.anchors: a phase needs"),
    ({"phases": {kind: {"steps": 0} for kind in ("anchors", "jacobi", "rollout")}}, "a recipe needs a phase with steps"),
    ({"method": "lora", "train_towers": True}, "towers are trained with method full only"),
    ({"train_towers": True, "features": "kept"}, "features change while towers are trained"),
    ({"fit": {"log_with": "paper"}}, "log_with must be tensorboard or trackio"),
]


@pytest.mark.parametrize("changes, said", WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_wrong_is_told_with_its_place(changes, said):
    with pytest.raises(RequestError) as error:
        read_recipe("latentomni", changes)
    assert str(error.value).startswith("recipe latentomni: ") and said in str(error.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("[]", "must hold one JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"extends": "me.json"}', "extends itself"),
        ('{"extends": "mine.json"}', "there is no recipe 'mine.json'"),
        ('{"extends": 3}', "'extends' must name a recipe"),
        ('{"data": "a.jsonl"}', "model is missing"),
    ],
)
def test_files_that_are_no_recipes_are_refused(tmp_path, text, said):
    (tmp_path / "me.json").write_text(text)
    with pytest.raises(RequestError, match=re.escape(said)):
        read_recipe(tmp_path / "me.json")
    with pytest.raises(RequestError, match="there is no recipe 'nano'; give a JSON file or one of anchors-only, "):
        read_recipe("nano")


def test_readme_commands_name_files_that_are_there():
    for path in re.findall(r"examples/training/[\w/.-]+", README):
        assert (Path(__file__).parents[2] / path).exists()


@pytest.mark.parametrize(("name", "modality", "tower"), [("picture-only", "visual", "vision"), ("sound-only", "audio", "audio")])
def test_a_control_is_nano_with_one_modality_up_to_its_own_latents(name, modality, tower):
    control = nano_recipe(Namespace(config=SHIPPED_DIR / "nano" / f"{name}.json", seed=None))
    own = NanoRecipe()
    assert control.modality == modality
    assert control.towers == tuple(stage for stage in own.towers if stage.name == tower)
    assert control.stages == tuple(replace(stage, draw=stage.draw | {"clips": 4}) for stage in own.stages[:4])
    assert control.stages[-1].phase.kind == "jacobi"
