"""Checkpoints: saved equals loaded, and a folder that does not fit together is refused in a sentence."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentomni import checkpoints
from latentomni.config import VideoSpec
from latentomni.errors import CheckpointError


def weights(thinker):
    return {**thinker.model.state_dict(), **{f"head.{k}": v for k, v in thinker.head.state_dict().items()}}


@pytest.fixture
def folder(tiny, tmp_path):
    checkpoints.save(tiny, tmp_path / "saved", dtype=torch.float32)
    return tmp_path / "saved"


@torch.no_grad()
def test_saved_equals_loaded(tiny, tmp_path):
    saved = replace(
        tiny, spec=replace(tiny.spec, instants=5), video=VideoSpec(fps=4.0, max_pixels=112 * 112), name="mine"
    )
    checkpoints.save(saved, tmp_path, dtype=torch.float32)
    loaded = checkpoints.load(str(tmp_path), device="cpu")
    before, after = weights(saved), weights(loaded)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert (loaded.spec, loaded.video, loaded.name, loaded.weights) == (saved.spec, saved.video, "mine", "random")
    assert loaded.ids == saved.ids
    assert loaded.tokenizer.get_vocab() == saved.tokenizer.get_vocab()
    assert loaded.mel.feature_size == saved.mel.feature_size
    text = "What is seen [2.0-4.0 s] né \N{BELL}?<Unified_Latent>"
    assert loaded.encode_text(text) == saved.encode_text(text)
    assert not loaded.model.training


def test_bf16_rounds_every_weight_but_the_latent_head(tiny, tmp_path):
    checkpoints.save(tiny, tmp_path)
    before, after = weights(tiny), weights(checkpoints.load(str(tmp_path), device="cpu"))
    assert all(v.dtype == torch.float32 for v in after.values())
    for name, value in before.items():
        assert torch.equal(after[name], value if name.startswith("head.") else value.bfloat16().float()), name
    assert all(v.dtype == torch.float32 for v in tiny.model.state_dict().values())  # saving leaves the model as it was


@torch.no_grad()
def test_a_loaded_model_sees_and_hears_as_the_saved_one(tiny, folder, make_clip):
    loaded, clip = checkpoints.load(str(folder), device="cpu"), make_clip(0)
    assert torch.equal(loaded.encode_clip(clip).vectors, tiny.encode_clip(clip).vectors)


def test_same_seed_same_weights_and_the_callers_random_state_is_left_alone(tiny, tokenizer):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    again = checkpoints.build("tiny", tokenizer, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(weights(tiny).values(), weights(again).values(), strict=True))
    other = checkpoints.build("tiny", tokenizer, seed=1)
    assert not torch.equal(other.model.lm_head.weight, tiny.model.lm_head.weight)


def broken(folder, **changes):
    path = folder / "latentomni.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def drop_a_tensor(path):
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "latentomni.json").write_text("{"),
        lambda f: (f / "latentomni.json").write_text("[]"),
        lambda f: (f / "latentomni.json").write_bytes(b"\xff\xfe"),
        lambda f: broken(f, latent=None),
        lambda f: broken(f, latent={"depth": 3}),
        lambda f: broken(f, latent={"instants": "3"}),
        lambda f: broken(f, latent={"flow": "closed"}),
        lambda f: broken(f, latent="strict"),
        lambda f: broken(f, video={"fps": -1}),
        lambda f: broken(f, video={"rate": 2}),
        lambda f: broken(f, mel_bins=None),
        lambda f: broken(f, name=None),
        lambda f: (f / "config.json").unlink(),
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "tokenizer.json").unlink(),
        lambda f: (f / "tokenizer.json").write_text("{}"),
        lambda f: (f / "tokenizer.json").write_text('{"added_tokens": []}'),
        lambda f: (f / "model.safetensors").unlink(),
        lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 64),
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        lambda f: drop_a_tensor(f / "model.safetensors"),
        lambda f: (f / "latent_head.safetensors").unlink(),
        lambda f: (f / "latent_head.safetensors").write_bytes(b"\x10" * 64),
        lambda f: drop_a_tensor(f / "latent_head.safetensors"),
        lambda f: save_file({"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}, f / "latent_head.safetensors"),
    ],
)  # fmt: skip
def test_a_malformed_folder_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(
        CheckpointError, match=r"^The checkpoint '.*saved' cannot be loaded \(.+\); train or download it again.$"
    ):
        checkpoints.load(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["", "nowhere", "tests"])
def test_what_is_no_checkpoint_is_refused(name):
    with pytest.raises(CheckpointError, match=r"is no LatentOmni checkpoint: expected 'nano' or a folder"):
        checkpoints.load(name)
