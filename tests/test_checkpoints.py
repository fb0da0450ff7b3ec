"""Checkpoints: what can be loaded by name, saved equals loaded, and what does not fit together is refused in a sentence."""

import json
import shutil
import socket
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, pre_tokenizers
from transformers import Qwen2Tokenizer

from latentomni import checkpoints
from latentomni.clock import Window
from latentomni.config import LatentSpec, SamplingSpec, VideoSpec
from latentomni.errors import CheckpointError, RequestError
from latentomni.runtime import DONORS_FILE, Runtime


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


@pytest.mark.parametrize("name", ["", "nowhere", "tests", "a/b/c", "../a/b"])
def test_what_is_no_checkpoint_is_refused(name):
    with pytest.raises(CheckpointError, match=r"^'.*' is no LatentOmni checkpoint: expected 'nano', a folder that holds"):
        checkpoints.load(name)


# Quantised


@pytest.fixture(scope="module")
def small_folder(tokenizer, tmp_path_factory):
    """nano's layout, random: bitsandbytes stores layers narrower than tiny's wrongly."""
    thinker, folder = checkpoints.build("nano", tokenizer, seed=0), tmp_path_factory.mktemp("small")
    checkpoints.save(thinker, folder, dtype=torch.float32)
    return folder


@pytest.mark.parametrize("quantization, kind, error", [("int8", "Linear8bitLt", 0.02), ("nf4", "Linear4bit", 0.12)])
def test_only_the_language_model_is_quantised(small_folder, quantization, kind, error):
    plain = checkpoints.load(str(small_folder), device="cpu")
    thinker = checkpoints.load(str(small_folder), device="cpu", quantization=quantization)
    before, after = (dict(t.model.named_modules()) for t in (plain, thinker))
    language_model = set(plain.text_model.modules())
    inside = {name for name, m in before.items() if isinstance(m, torch.nn.Linear) and m in language_model}
    assert len(inside) == 4 * 7
    for name, module in after.items():
        assert type(module).__name__ == (kind if name in inside else type(before[name]).__name__), name
    kept = {k: v for k, v in weights(plain).items() if k.removesuffix(".weight") not in inside}
    assert len(kept) == len(weights(plain)) - len(inside)
    assert all(torch.equal(weights(thinker)[k], v) for k, v in kept.items())
    assert (thinker.dtype, thinker.device.type) == (torch.float32, "cpu")
    assert (str(thinker.quantization), str(plain.quantization)) == (quantization, "none")
    assert not thinker.model.training

    for name in inside:
        x = torch.randn(5, before[name].in_features, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, actual = before[name](x), after[name](x)
        assert 0 < (actual - expected).norm() / expected.norm() < error, name


def test_a_model_that_lies_in_parts_answers_as_a_whole_one_and_says_so(make_clip):
    """Layers on disk are fetched at every step by accelerate, as those in main memory are beside a GPU."""
    whole, question = Runtime.load("nano"), "Which colour is shown while the bell plays?"
    inside, names = whole.thinker.text_model, {module: name for name, module in whole.thinker.model.named_modules()}
    near = [*whole.thinker.towers.children(), *inside.children(), whole.thinker.model.lm_head]
    places = {names[module]: "cpu" for module in near if module not in (inside, inside.layers)}
    places |= {names[layer]: "disk" if k else "cpu" for k, layer in enumerate(inside.layers)}
    parted = Runtime(checkpoints.load("nano", device_map=places))
    assert {p.device.type for p in parted.thinker.text_model.layers[2].parameters()} == {"meta"}
    assert (parted.thinker.is_offloaded, whole.thinker.is_offloaded, parted.thinker.device.type) == (True, False, "cpu")
    clip = make_clip(0)
    ours, same = (runtime.answer(clip, question, sampling=SamplingSpec(max_new_tokens=24)) for runtime in (parted, whole))
    assert ours.text == same.text and ours.blocks
    assert all((z.vector == y.vector).all() for a, b in zip(ours.blocks, same.blocks, strict=True) for z, y in zip(a.latents, b.latents, strict=True))
    assert any("are fetched at every step" in notice for notice in ours.notices) and not any("fetched" in notice for notice in same.notices)


def test_a_quantised_model_keeps_its_gradients_after_it_has_answered(small_folder):
    """The fast path that bitsandbytes takes on some CPUs has none."""
    thinker = checkpoints.load(str(small_folder), device="cpu", quantization="nf4")
    embeds, positions = torch.randn(1, 3, thinker.hidden_size), torch.arange(3).expand(3, 1, 3)
    with torch.no_grad():
        expected = thinker.forward(embeds, positions, None)
    hidden = thinker.forward(embeds.requires_grad_(), positions, None)
    assert torch.equal(hidden, expected)
    hidden[:, -1, 0].sum().backward()
    assert embeds.grad.abs().min() > 0


def test_what_cannot_be_quantised_or_saved_whole_is_refused(folder, small_folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"nf4 needs layers whose width is a multiple of 64, it has 32"):
        checkpoints.load(str(folder), quantization="nf4")
    with pytest.raises(RequestError, match="choose one of none, int8, nf4"):
        checkpoints.load(str(folder), quantization="int4")
    with pytest.raises(CheckpointError, match="save its adapter"):
        checkpoints.save(checkpoints.load(str(small_folder), quantization="int8"), tmp_path)


# Random weights of the true layouts


def test_random_weights_of_a_true_layout_answer(make_clip, forced):
    name = "random:qwen2.5-omni-0.1b"
    thinker = checkpoints.load(name, device="cpu")
    assert (thinker.name, thinker.weights, thinker.model.config.text_config.vocab_size) == (name, "random", 32_000)
    with forced(thinker, [thinker.ids.trigger, *thinker.encode_text(" A bell."), thinker.ids.end_of_turn]):
        trace = Runtime(thinker).answer(make_clip(0), "What is heard?")
    assert trace.answer == "A bell."
    assert [(b.window_source, len(b.latents)) for b in trace.blocks] == [("nominal", 40)]


def test_other_random_layouts_are_refused():
    with pytest.raises(CheckpointError, match=r"'random:7b' is no layout: expected 'random:' and one of qwen2.5-omni-7b, "):
        checkpoints.load("random:7b")


# Published models


def write_published(folder, thinker):
    """A folder as Qwen publishes the full model: weights under `thinker.` with their first names beside those of the talker and of
    token2wav, in three shards, a config of parts in the words of its day, and a tokenizer without latent tokens."""
    thinker.model.save_pretrained(folder)
    tensors = {f"thinker.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    assert {"thinker.lm_head.weight", "thinker.model.layers.0.self_attn.q_proj.weight", "thinker.visual.merger.ln_q.weight",
            "thinker.audio_tower.proj.weight", "thinker.model.embed_tokens.weight"} <= set(tensors)  # fmt: skip
    names = sorted(tensors)
    tensors |= {name: torch.ones(2, 2) for name in OF_OTHER_PARTS}
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": [*names[1::2], *OF_OTHER_PARTS[:4]], "model-3.safetensors": OF_OTHER_PARTS[4:]}
    for file, keys in shards.items():
        save_file({k: tensors[k] for k in keys}, folder / file, {"format": "pt"})
    where = {key: file for file, keys in shards.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "model.safetensors").unlink()

    stock = json.loads((folder / "config.json").read_text())
    text = stock["text_config"]
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"mrope_section": rope["mrope_section"], "rope_type": "default",
                                                                "type": "default"}}  # fmt: skip
    del text["tie_word_embeddings"]
    full = {"architectures": ["Qwen2_5OmniModel"], "model_type": "qwen2_5_omni", "enable_talker": True, "thinker_config": stock,
            "talker_config": {"model_type": "qwen2_5_omni_talker"}, "token2wav_config": {"model_type": "qwen2_5_omni_token2wav"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(full))

    vocab = {t: i for i, t in enumerate([*PUBLISHED_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], extra_special_tokens={"audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>"})
    tokenizer.add_tokens([AddedToken(t, special=True) for t in PUBLISHED_TOKENS], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


OF_OTHER_PARTS = ["talker.thinker_to_talker_proj.weight", "talker.codec_head.weight", "talker.model.embed_tokens.weight",
                  "talker.model.layers.0.self_attn.q_proj.weight", "token2wav.code2wav_dit_model.transformer_blocks.0.attn.to_q.weight",
                  "token2wav.code2wav_dit_model.input_embed.proj.weight", "token2wav.code2wav_bigvgan_model.conv_pre.weight"]  # fmt: skip
PUBLISHED_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>",
                    "<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>")  # fmt: skip


@pytest.fixture(scope="module")
def published(tokenizer, tmp_path_factory):
    """The folder, the model it was made of, and the size of its tokenizer."""
    thinker, folder = checkpoints.build("tiny", tokenizer, seed=5), tmp_path_factory.mktemp("hub") / "Omni"
    folder.mkdir()
    return folder, thinker, write_published(folder, thinker)


def test_a_published_model_is_read_as_it_is(published, make_clip):
    folder, origin, n = published
    loaded = checkpoints.load(str(folder), device="cpu")
    before, after = origin.model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not torch.equal(loaded.model.lm_head.weight, loaded.text_model.embed_tokens.weight)
    ids = torch.tensor([[4, 9, 2]])
    positions = torch.tensor([[[0, 3, 7]], [[0, 1, 2]], [[0, 2, 1]]])
    with torch.no_grad():  # the rotary shares of time, height and width came along
        assert torch.equal(*(t.forward(t.embed(ids), positions, None) for t in (origin, loaded)))
        clip, same_pictures = make_clip(0), replace(origin, video=VideoSpec())
        assert torch.equal(loaded.encode_clip(clip).vectors, same_pictures.encode_clip(clip).vectors)
    assert (loaded.name, loaded.weights, loaded.head) == ("Omni", "pretrained", None)
    assert (loaded.spec, loaded.video, loaded.mel.feature_size) == (LatentSpec(is_trained=False), VideoSpec(), 16)
    assert (loaded.ids.latent_pad, loaded.ids.trigger, loaded.ids.close) == (n, n + 1, n + 2)
    assert (loaded.ids.audio, loaded.ids.video, loaded.ids.end_of_turn) == (3, 9, 2)


def test_a_published_model_answers_directly_unless_asked_for_latents_which_are_then_untrained(published, make_clip, forced):
    thinker = checkpoints.load(str(published[0]), device="cpu")
    said = [*thinker.encode_text("Yes."), thinker.ids.end_of_turn]
    with forced(thinker, said):
        trace = Runtime(thinker).answer(make_clip(0, 6.0), "Is a bell heard?")
    assert (trace.mode, trace.answer, trace.blocks, trace.notices) == ("direct", "Yes.", (), ())
    with forced(thinker, said):
        trace = Runtime(thinker).answer(make_clip(0, 6.0), "Is a bell heard?", "latent")
    assert "never learned latents" in trace.notices[0]
    (block,) = trace.blocks
    assert (trace.answer, block.window_source, block.window) == ("Yes.", "nominal", Window(0.0, 6.0))
    assert len(block.latents) == 40


def test_a_published_model_can_be_saved_as_ours(published, tmp_path):
    thinker = checkpoints.load(str(published[0]), device="cpu")
    checkpoints.save(thinker, tmp_path, dtype=torch.float32)
    again = checkpoints.load(str(tmp_path), device="cpu")
    before, after = thinker.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert (again.ids, again.spec, again.head, again.weights) == (thinker.ids, thinker.spec, None, "pretrained")
    text = "In 1999 né <Unified_Latent> \N{BELL}"
    assert again.encode_text(text) == thinker.encode_text(text)


def test_other_models_are_refused(published, tmp_path):
    shutil.copytree(published[0], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"of model type llama, not of a Qwen2.5-Omni thinker"):
        checkpoints.load(str(tmp_path))
    config["thinker_config"]["text_config"]["vocab_size"] = published[2] + 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has no room for the \d+ tokens"):
        checkpoints.load(str(tmp_path))


# Hub ids


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """A cache that holds the published model as org/whole, and only the tokenizer of org/part."""
    for name, files in (("whole", "*"), ("part", "tokenizer*")):
        root = tmp_path / f"models--org--{name}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("0" * 40)
        (root / "snapshots" / ("0" * 40)).mkdir(parents=True)
        for file in published[0].glob(files):
            shutil.copy(file, root / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    return monkeypatch


def test_a_hub_model_on_this_machine_needs_no_network(hub):
    thinker = checkpoints.load("org/whole", device="cpu")
    assert (thinker.name, thinker.weights) == ("org/whole", "pretrained")


def test_of_a_hub_model_a_plan_needs_the_sizes_alone(hub, tmp_path):
    for file in tmp_path.glob("models--org--whole/snapshots/*/*.safetensors"):
        file.unlink()
    sizes = checkpoints.load("org/whole", device="meta")
    assert (sizes.name, sizes.weights, sizes.device.type) == ("org/whole", "pretrained", "meta")
    with pytest.raises(CheckpointError, match=r"^'org/whole' is not on this machine and cannot be fetched"):
        checkpoints.load("org/whole")


def test_a_hub_model_brings_its_donors(hub):
    shutil.copy(checkpoints.NANO_DIR / DONORS_FILE, checkpoints.find("org/whole"))
    assert Runtime.load("org/whole").donors.latents.shape[1] == 256
    assert Runtime.load("random:qwen2.5-omni-0.1b").donors is None


@pytest.mark.parametrize("name", ["org/part", "org/none"])
def test_a_hub_model_that_cannot_be_had_is_refused_in_a_sentence(hub, name):
    with pytest.raises(CheckpointError, match=rf"^'{name}' is not on this machine and cannot be fetched \(.+\); connect to"):
        checkpoints.load(name)
    hub.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=rf"^'{name}' is not on this machine and HF_HUB_OFFLINE forbids to fetch it"):
        checkpoints.load(name)


def test_a_silent_hub_is_not_waited_for(hub):
    with socket.create_server(("127.0.0.1", 0)) as server:
        hub.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        hub.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
        with pytest.raises(CheckpointError, match=r"^'org/none' is not on this machine and cannot be fetched \(.*timed out"):
            checkpoints.load("org/none")


def test_a_model_that_the_hub_does_not_know_is_refused_in_a_sentence(hub):
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hub.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(CheckpointError, match=r"^'org/none' is neither a folder here nor a model that the hub shows you"):
            checkpoints.load("org/none")
        server.shutdown()
