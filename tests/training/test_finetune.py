"""From a training file to a checkpoint or an adapter that answers, by the command line as by code; refusals come before any work."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentomni import checkpoints
from latentomni.cli import main
from latentomni.config import Mode, SamplingSpec
from latentomni.errors import DataError, RequestError
from latentomni.runtime import Runtime
from latentomni.training.__main__ import main as launched
from latentomni.training.finetune import adapted, finetune
from latentomni.training.losses import Objective
from latentomni.training.plan import make_plan
from latentomni.training.recipes import read_recipe
from latentomni.training.records import read_records, validate
from latentomni.training.run_folder import claimed
from latentomni.training.source import Source
from tests.training.conftest import CLIPS

ROOT = Path(__file__).parents[2]
ONCE = {kind: {"steps": 1} for kind in ("anchors", "jacobi", "rollout")}


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    checkpoints.save(tiny, folder, dtype=torch.float32)
    return str(folder)


@pytest.fixture(scope="module")
def changes(base, train_file):
    """What makes a shipped recipe one of three short steps of the tiny model."""
    few = {"latent": {"instants": 3, "rows": 2, "columns": 1}, "video": {"max_pixels": 56 * 56}}
    fit = {"log_every": 1, "save_every": 1}
    return {"model": base, "data": str(train_file), "phases": ONCE, "samples": 2, "tokens": 500, "lr": 1e-3, "fit": fit, **few}


def parameters(folder):
    thinker = checkpoints.load(str(folder), device="cpu")
    return thinker, {**thinker.model.state_dict(), **{f"head.{k}": v for k, v in thinker.head.state_dict().items()}}


def test_a_valid_file_trains_a_checkpoint_that_answers(base, train_file, changes, tmp_path, forced):
    assert validate(train_file) == (7, [])
    recipe = read_recipe("no-audio-latents", changes)
    done = finetune(recipe, tmp_path / "run")
    assert (done["steps"], done["checkpoint"], done["weights"]) == (3, str(tmp_path / "run" / "checkpoint"), "random")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("anchors", 1), ("jacobi", 1), ("rollout", 1)]
    assert {"ce_text", "ce_answer", "grad_norm"} <= set(lines[0])
    assert read_recipe(tmp_path / "run" / "recipe.json") == recipe
    (_, before), (thinker, after) = parameters(base), parameters(done["checkpoint"])
    assert (thinker.spec.n_latents, thinker.spec.audio, thinker.spec.writes_window, thinker.video.max_frames) == (6, False, True, 256)
    for name, value in before.items():
        is_frozen = ".visual." in name or ".audio_tower." in name
        assert torch.equal(after[name], value.bfloat16().float()) is is_frozen or "bias" in name or "norm" in name, name
    runtime = Runtime.load(done["checkpoint"])
    said = [thinker.ids.trigger, *thinker.encode_text("[1.0-2.0 s]"), *thinker.encode_text("Yes"), thinker.ids.end_of_turn]
    with forced(runtime.thinker, said):
        trace = runtime.answer(runtime.read(CLIPS[0]), "What is seen?", sampling=SamplingSpec(max_new_tokens=32))
    assert trace.answer == "Yes" and [z.modality for z in trace.blocks[0].latents] == ["visual"] * 6


def test_a_run_goes_on_with_its_own_recipe_only(changes, tmp_path):
    recipe = read_recipe("explicit-text-cot", {**changes, "phases": {**ONCE, "jacobi": {"steps": 0}, "rollout": {"steps": 0}}})
    first = finetune(recipe, tmp_path / "run")
    with claimed(tmp_path / "run"), pytest.raises(RequestError, match=r"another training writes to .*run; wait until it ends"):
        finetune(recipe, tmp_path / "run", resume=True)
    with pytest.raises(RequestError, match="holds a run already; add --resume"):
        finetune(recipe, tmp_path / "run")
    other = read_recipe("vanilla-sft", {**changes, "phases": {**ONCE, "rollout": {"steps": 0}}})
    with pytest.raises(RequestError, match=r"another recipe \(phases, style\)"):
        finetune(other, tmp_path / "run", resume=True)
    weights = parameters(first["checkpoint"])[1]
    again = parameters(finetune(recipe, tmp_path / "run", resume=True)["checkpoint"])[1]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    runtime = Runtime.load(first["checkpoint"])
    trace = runtime.answer(runtime.read(CLIPS[0]), "What is seen?", Mode.TEXT_COT, SamplingSpec(max_new_tokens=4))
    assert trace.tokens > 0 and trace.blocks == ()


_KILLED = """
import os, signal, sys
def hook(event, args, seen=[0]):
    if event in ("os.rename", "shutil.rmtree", "os.mkdir") and "state" in str(args[0]) and str(args[0]).startswith(sys.argv[1]):
        seen[0] += 1
        if seen[0] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from latentomni.training.__main__ import main
main(sys.argv[3:])
"""


def test_killed_within_its_saves_a_run_goes_on_as_if_it_had_not_been(changes, tmp_path):
    """SIGKILL right before a folder of a save is made, moved or removed; each time it is started again until the next one."""
    file, out = tmp_path / "recipe.json", tmp_path / "run"
    file.write_text(json.dumps({"extends": "latentomni", **changes, "phases": {kind: {"steps": 2} for kind in ONCE}}))
    expected = finetune(read_recipe(file), tmp_path / "through")
    command = [sys.executable, "-c", _KILLED, str(out)]
    for at in (2, 5):  # into the first save; between the two moves of another
        resumed = ["--resume"] if (out / "recipe.json").exists() else []
        done = subprocess.run([*command, str(at), str(file), "--out", str(out), *resumed], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (out / "checkpoint").exists()
    again = finetune(read_recipe(file), out, resume=True)
    assert again["losses"] == expected["losses"]
    before, after = (parameters(run["checkpoint"])[1] for run in (expected, again))
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert (tmp_path / "through" / "log.jsonl").read_text().count("\n") == (out / "log.jsonl").read_text().count("\n")
    assert not [path for path in out.iterdir() if path.suffix in (".partial", ".old")]


def test_gradient_checkpointing_changes_no_step(changes, tmp_path):
    runs = [
        finetune(read_recipe("latentomni", {**changes, "gradient_checkpointing": on, "packing": on}), tmp_path / str(on))
        for on in (True, False)
    ]
    states = [parameters(run["checkpoint"])[1] for run in runs]
    assert runs[0]["losses"] == pytest.approx(runs[1]["losses"], rel=1e-3)
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-2, atol=1e-4, msg=name)


def test_an_adapter_is_trained_beside_a_frozen_base(base, changes, tmp_path):
    done = finetune(read_recipe("latentomni", {**changes, "method": "lora", "lora": {"rank": 2}}), tmp_path / "run")
    before, after = checkpoints.load(base), checkpoints.load(done["checkpoint"])
    plain = {name.replace(".base_layer", ""): p for name, p in after.model.named_parameters()}
    assert all(torch.equal(p, plain[name]) for name, p in before.model.named_parameters())
    assert all(bool(p.abs().max() > 0) for name, p in plain.items() if "lora_B" in name)
    with pytest.raises(RequestError, match="is an adapter; name its base"):
        finetune(read_recipe("latentomni", {**changes, "model": done["checkpoint"]}), tmp_path / "again")


@pytest.mark.slow
def test_every_phase_computes_in_bfloat16(changes, tmp_path):
    """In a process of its own, whose precision is set as `accelerate launch` sets it."""
    (tmp_path / "recipe.json").write_text(json.dumps({"extends": "latentomni", **changes}))
    command = [sys.executable, "-m", "latentomni.training", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"ACCELERATE_MIXED_PRECISION": "bf16"}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["steps"] == 3 and all(abs(value) < 1e3 for value in report["losses"].values())


def test_qlora_on_the_true_layout_saves_an_adapter_that_answers(train_file, tmp_path):
    """The shipped recipe names the 7B model; only the model, the data and the length of the run are changed."""
    recipe = read_recipe("latentomni-qlora")
    assert (recipe.model, recipe.method) == ("Qwen/Qwen2.5-Omni-7B", "qlora")
    sounds = train_file.with_name("sounds.jsonl")
    sounds.write_text("\n".join(line for line in train_file.read_text().splitlines() if "a.wav" in line))
    short = {"anchors": {"steps": 1}, "jacobi": {"steps": 1}, "rollout": {"steps": 0}}
    changes = {"model": "random:qwen2.5-omni-0.1b", "data": str(sounds), "phases": short, "samples": 1, "tokens": 400}
    done = finetune(read_recipe("latentomni-qlora", {**changes, "fit": {"seed": 3}}), tmp_path / "run")
    folder = Path(done["checkpoint"])
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20 * 2**20
    runtime = Runtime.load(str(folder))
    trace = runtime.answer(runtime.read(train_file.parent / "a.wav"), "What is heard?", sampling=SamplingSpec(max_new_tokens=4))
    assert trace.tokens > 0 and (trace.model, trace.weights) == ("random:qwen2.5-omni-0.1b", "random")
    thinker = runtime.thinker
    assert thinker.model.is_loaded_in_4bit and thinker.spec.n_latents == 40
    moved = [p for name, p in thinker.model.named_parameters() if "lora_B" in name]
    assert moved and all(bool(p.abs().max() > 0) for p in moved)


def test_the_plan_counts_what_the_run_will_hold(base, train_file, changes, tmp_path, capsys):
    recipe = read_recipe("latentomni", changes)
    plan = make_plan(recipe)
    source = Source(adapted(checkpoints.load(base), recipe), read_records(train_file), recipe)
    sizes = [source.size(i) for i in range(7)]
    assert plan["tokens"]["per_sample"] == sum(s.tokens for s in sizes) / 7
    assert plan["tokens"]["per_step"] == sum(source.size(i).tokens for i in source.rows(0, 0))
    assert plan["tokens"]["micro_batches_per_step"] == len(source.draw(0, 0))
    thinker = checkpoints.load(base)
    objective = Objective(thinker, recipe.losses)
    towers = sum(p.numel() for tower in (thinker.towers.visual, thinker.towers.audio_tower) for p in tower.parameters())
    everything = sum(p.numel() for p in objective.parameters()) - 1  # the temperature
    assert plan["parameters"]["total"] == {"all": everything, "trained": everything - towers}
    memory = plan["memory_bytes"]
    assert (memory["weights"], memory["optimizer"]) == (4 * everything, 8 * (everything - towers))
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")
    assert [(p["name"], p["steps"]) for p in plan["phases"]] == [(kind, 1) for kind in ONCE]
    costs = [p["flops_per_step"] for p in plan["phases"]]
    assert costs[0] < costs[2] <= costs[1] and plan["seconds_total"] > 0
    (tmp_path / "changes.json").write_text(json.dumps(changes))
    options = ["--config", str(tmp_path / "changes.json"), "--out", str(tmp_path / "run"), "--seed", "5", "--dry-run", "--json"]
    assert main(["train", "latentomni", *options]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["steps"], printed["seed"], printed["parameters"], printed["dry_run"]) == (3, 5, plan["parameters"], True)
    assert not (tmp_path / "run").exists()


def test_a_plan_of_the_published_model_fetches_nothing(train_file):
    plan = make_plan(read_recipe("latentomni-qlora", {"data": str(train_file)}), processes=8)
    parts = plan["parameters"]
    assert (parts["output"]["all"], parts["vision"]["all"], parts["audio"]["all"]) == (544_997_376, 676_550_144, 639_647_232)
    assert parts["total"]["trained"] == parts["adapter"]["trained"]
    assert 0 < parts["total"]["trained"] - 16 * 28 * 90_112 <= 6 * 3584  # rows of the latent tokens
    assert 3e9 < parts["layers"]["all"] * 0.516 < plan["memory_bytes"]["weights"] < 13.5e9
    assert plan["tokens"]["micro_batches_per_step"] % 8 == 0


REFUSED = [
    ("latentomni", {"data": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
    ("latentomni", {"latent": {"has_head": False}}, "latent.has_head cannot be changed"),
    ("latentomni", {"latent": {"writes_window": False}}, "latent.writes_window must be true"),
]


@pytest.mark.parametrize("name, wrong, said", REFUSED, ids=[said for *_, said in REFUSED])
def test_what_cannot_be_trained_is_refused_in_a_sentence(changes, tmp_path, name, wrong, said, capsys):
    (tmp_path / "recipe.json").write_text(json.dumps({"extends": name, **changes, **wrong}))
    with pytest.raises((RequestError, DataError), match=said):
        finetune(read_recipe(tmp_path / "recipe.json"), tmp_path / "a")
    assert launched([str(tmp_path / "recipe.json"), "--out", str(tmp_path / "b")]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == ""


@pytest.mark.slow
def test_two_launched_processes_train_what_one_does(changes, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({"extends": "latentomni", **changes, "features": str(tmp_path / "kept")}))
    reports = []
    for processes in ("1", "2"):
        out = tmp_path / processes
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, "--module", "latentomni.training"]
        command, env = [*launch, str(tmp_path / "recipe.json"), "--out", str(out)], os.environ | {"ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout.splitlines()[-1]))
    assert [report["processes"] for report in reports] == [1, 2]
    shared = [{k: v for k, v in report["losses"].items() if "latent" not in k} for report in reports]
    assert shared[0] == pytest.approx(shared[1], rel=1e-3)
