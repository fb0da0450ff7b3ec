"""Adapters: little is trained and nothing else moves, also on a 4-bit base; saved equals loaded; the runtime answers."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel

from latentomni import checkpoints
from latentomni.adapters import LORA_FILE, LoraSpec, add_lora, checkpoint_gradients, save_adapter
from latentomni.avworld.answers import parse_answer
from latentomni.avworld.questions import draw_questions
from latentomni.avworld.writing import world_clip
from latentomni.config import Mode, SamplingSpec
from latentomni.errors import CheckpointError, RequestError
from latentomni.processing import add_question, new_sequence
from latentomni.runtime import Runtime

LINEAR_LAYERS = 4 * 7  # of nano's layout, which is the smallest that bitsandbytes can store


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    """A folder with random weights of nano's layout."""
    thinker, folder = checkpoints.build("nano", tokenizer, seed=0), tmp_path_factory.mktemp("base")
    checkpoints.save(thinker, folder, dtype=torch.float32)
    return str(folder)


def load(base, quantization="none", dtype=None, **changes):
    thinker = checkpoints.load(base, device="cpu", quantization=quantization, dtype=dtype)
    return add_lora(thinker, LoraSpec(**{"rank": 2, **changes}))


def parameters(thinker):
    named = [*thinker.model.named_parameters(), *((f"head.{k}", p) for k, p in thinker.head.named_parameters())]
    return {name: p for name, p in named if p.requires_grad}


def state(thinker):
    values = {**thinker.model.state_dict(), **{f"head.{k}": v for k, v in thinker.head.state_dict().items()}}
    return {name: value.clone() for name, value in values.items()}


def row(thinker, clip):
    """A question and an answer with one latent block, of random latents."""
    sequence = new_sequence(thinker.encode_clip(clip), thinker.spec, thinker.ids, thinker.encode_text)
    add_question(sequence, "What is seen?", Mode.LATENT, thinker.encode_text)
    sequence.open_block()
    sequence.add_window_tokens(thinker.encode_text("[1.0-2.0 s]"))
    window, _ = thinker.grammar.resolve("[1.0-2.0 s]", 4.0)
    sequence.add_latents(window)
    generator = torch.Generator().manual_seed(0)
    sequence.latents += list(torch.randn(thinker.spec.n_latents, thinker.hidden_size, generator=generator))
    sequence.close_block()
    sequence.add_text(thinker.encode_text("Red."))
    return sequence


def outputs(thinker, sequence):
    """(T, vocabulary) logits and (T, D) latents."""
    hidden = thinker.full([sequence])[0]
    return thinker.logits(hidden), thinker.latent(hidden)


def step(thinker, sequence, rate=1e-2):
    """One step of the same size for every weight, against the gradient of a loss that reaches every part."""
    trained = parameters(thinker)
    logits, latents = outputs(thinker, sequence)
    loss = F.cross_entropy(logits[:-1], torch.tensor(sequence.token_ids[1:])) + latents.square().mean()
    gradients = torch.autograd.grad(loss, trained.values())
    with torch.no_grad():
        for parameter, gradient in zip(trained.values(), gradients, strict=True):
            parameter -= rate * gradient.sign()
    return dict(zip(trained, gradients, strict=True))


@torch.no_grad()
def test_an_untrained_adapter_changes_nothing(base, make_clip):
    plain, adapted = checkpoints.load(base, device="cpu"), load(base)
    sequence = row(plain, make_clip(0))
    (logits, latents), (new_logits, new_latents) = outputs(plain, sequence), outputs(adapted, sequence)
    assert torch.equal(new_latents, latents)
    torch.testing.assert_close(new_logits, logits, rtol=0, atol=1e-5)  # three of them by a product of their own
    assert torch.equal(adapted.embed(torch.arange(100)), plain.embed(torch.arange(100)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_a_step_changes_what_is_trained_and_nothing_else(base, make_clip, quantization, dtype):
    thinker = load(base, quantization, dtype)
    before, trained = state(thinker), parameters(thinker)
    language_model = {id(p) for p in thinker.text_model.layers.parameters()}
    lora = {name for name, p in trained.items() if ".lora_" in name and id(p) in language_model}
    assert len(lora) == 2 * LINEAR_LAYERS
    others = {name: p for name, p in trained.items() if name not in lora}
    rows = [layer.latent_rows for layer in (thinker.text_model.embed_tokens, thinker.model.lm_head)]
    assert set(map(id, others.values())) == set(map(id, [*rows, *thinker.head.parameters()]))
    assert {p.dtype for p in trained.values()} == {torch.float32}

    for _ in range(2):  # LoRA's first factors move only once the second ones are no longer zero
        gradients = step(thinker, row(thinker, make_clip(0)))
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    after = state(thinker)
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(trained)


def test_rows_of_other_tokens_stay_as_they_were(base, make_clip):
    plain, thinker = checkpoints.load(base, device="cpu"), load(base)
    step(thinker, row(thinker, make_clip(0)))
    new = {thinker.ids.trigger, thinker.ids.close}
    ids = torch.arange(plain.model.config.text_config.vocab_size)
    same = (thinker.embed(ids) == plain.embed(ids)).all(-1)
    assert {i for i in ids.tolist() if not same[i]} == new
    hidden = torch.randn(2, plain.hidden_size)
    same = (thinker.logits(hidden) == plain.logits(hidden)).all(0)
    assert {i for i in ids.tolist() if not same[i]} == new


def test_what_the_spec_leaves_out_is_not_trained(base):
    thinker = load(base, targets=("q_proj", "v_proj"), train_tokens=False, train_head=False)
    names = set(parameters(thinker))
    assert len(names) == 2 * 2 * 4 and all(".q_proj.lora_" in name or ".v_proj.lora_" in name for name in names)


def test_same_seed_same_adapter_and_the_callers_random_state_is_left_alone(base):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, second = (state(load(base)) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@torch.no_grad()
def test_saved_equals_loaded(base, make_clip, tmp_path, quantization):
    thinker, clip = load(base, quantization, train_tokens=quantization == "nf4"), make_clip(0)
    thinker.spec, thinker.video, thinker.name = replace(thinker.spec, max_window_tokens=9), replace(thinker.video, fps=1.0), "mine"
    with torch.enable_grad():
        step(thinker, row(thinker, clip), rate=0.1)
    save_adapter(thinker, tmp_path, base)
    loaded = checkpoints.load(str(tmp_path), device="cpu")
    before, after = state(thinker), state(loaded)
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert (loaded.spec, loaded.video, loaded.name, loaded.weights) == (thinker.spec, thinker.video, "mine", "random")
    assert torch.equal(outputs(loaded, row(loaded, clip))[0], outputs(thinker, row(thinker, clip))[0])

    plain = checkpoints.load(base, device="cpu")
    assert not torch.equal(outputs(loaded, row(loaded, clip))[0], outputs(plain, row(plain, clip))[0])
    sampling = SamplingSpec(max_new_tokens=12, temperature=1.0)
    first, second = (Runtime(t).answer(clip, "What is seen?", Mode.LATENT, sampling) for t in (thinker, loaded))
    assert first.answer == second.answer
    assert [b.window for b in first.blocks] == [b.window for b in second.blocks]


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_nano_quantised_answers_and_comes_back_with_its_adapter(quantization, tmp_path):
    world, question = draw_questions("test", 1, seed=3)[0]
    clip = world_clip(world, 112)
    plain = Runtime.load("nano", quantization=quantization)
    answer = plain.answer(clip, question.text)
    assert answer.blocks and parse_answer(question.family, answer.text) == question.answer
    save_adapter(add_lora(plain.thinker, LoraSpec(rank=2)), tmp_path, "nano")  # as it begins, an adapter changes nothing
    again = Runtime.load(str(tmp_path)).answer(clip, question.text)
    assert (again.answer, [b.window for b in again.blocks]) == (answer.answer, [b.window for b in answer.blocks])


def test_an_adapter_trained_on_4_bits_is_loaded_on_4_bits_unless_told_otherwise(base, tmp_path):
    save_adapter(load(base, "nf4"), tmp_path, base)
    settings = json.loads((tmp_path / "latentomni.json").read_text())
    assert settings["adapter"] == {"base": base, "quantization": "nf4"}
    for given, kind in ((None, "Linear4bit"), ("none", "Linear"), ("int8", "Linear8bitLt")):
        thinker = checkpoints.load(str(tmp_path), device="cpu", quantization=given)
        assert type(thinker.text_model.layers[0].mlp.up_proj.get_base_layer()).__name__ == kind


@torch.no_grad()
def test_peft_itself_reads_an_adapter(base, make_clip, tmp_path):
    thinker = load(base, train_tokens=False)
    if thinker.text_model is thinker.model.model:
        pytest.skip("the modules of older transformers have other names")
    with torch.enable_grad():
        step(thinker, row(thinker, make_clip(0)), rate=0.1)
    save_adapter(thinker, tmp_path, base)
    other = checkpoints.load(base, device="cpu")
    PeftModel.from_pretrained(other.model, tmp_path)
    assert torch.equal(other.full([row(other, make_clip(0))]), thinker.full([row(thinker, make_clip(0))]))


@torch.no_grad()
def test_layers_are_seen_as_before(base):
    thinker = load(base)
    with thinker.layer_states() as states:
        hidden = thinker.forward(torch.randn(1, 3, thinker.hidden_size), torch.arange(3).expand(3, 1, 3), None)
    assert [s.shape for s in states] == [hidden.shape] * 4


def test_checkpointed_gradients_are_the_same_gradients(base, make_clip):
    runs, lengths = [], []
    for enabled in (False, True):
        thinker = load(base)
        thinker.text_model.layers[2].self_attn.register_forward_hook(lambda _module, _inputs, out: lengths.append(out[0].shape[1]))
        checkpoint_gradients(thinker, enabled)
        thinker.text_model.train()
        asked = row(thinker, make_clip(0))
        runs.append(step(thinker, asked))
    whole = len(asked)
    for name in runs[0]:
        torch.testing.assert_close(runs[0][name], runs[1][name], rtol=1e-4, atol=1e-6, msg=name)
    parts = lengths[:-2]
    assert len(parts) == 2 and sum(parts) == whole  # media ahead, the rest behind them
    assert lengths[-2:] == [whole, whole]  # computed again in the backward pass
    checkpoint_gradients(thinker, False)
    step(thinker, row(thinker, make_clip(0)))
    assert lengths[len(parts) + 2 :] == parts


def test_qlora_on_the_true_layout_scaled_down(make_clip, forced, tmp_path):
    name = "random:qwen2.5-omni-0.1b"
    thinker = add_lora(checkpoints.load(name, device="cpu", quantization="nf4"), LoraSpec(rank=4))
    thinker.spec = replace(thinker.spec, instants=1)
    ids = torch.tensor([thinker.encode_text("A bell.")])

    def logits(t):
        positions = torch.arange(ids.shape[1]).expand(3, *ids.shape)
        return t.logits(t.forward(t.embed(ids), positions, None))[0]

    checkpoint_gradients(thinker)
    thinker.text_model.train()
    optimizer = torch.optim.AdamW([p for p in thinker.model.parameters() if p.requires_grad], lr=1e-2)
    before = F.cross_entropy(logits(thinker)[:-1], ids[0, 1:])
    before.backward()
    optimizer.step()
    thinker.text_model.eval()
    save_adapter(thinker, tmp_path, name)
    loaded = checkpoints.load(str(tmp_path), device="cpu")
    with torch.no_grad():
        assert torch.equal(logits(loaded), logits(thinker))
        assert F.cross_entropy(logits(loaded)[:-1], ids[0, 1:]) < before
    with forced(loaded, [loaded.ids.trigger, *ids[0].tolist(), loaded.ids.end_of_turn]):
        trace = Runtime(loaded).answer(make_clip(0), "What is heard?")
    assert (trace.answer, len(trace.blocks[0].latents)) == ("A bell.", 5)


def test_what_does_not_fit_is_refused(base, tokenizer, tmp_path):
    thinker = load(base)
    with pytest.raises(RequestError, match="has an adapter already"):
        add_lora(thinker, LoraSpec())
    with pytest.raises(CheckpointError, match="save its adapter"):
        checkpoints.save(thinker, tmp_path)
    for wrong in ({"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": ()}, {"targets": ("lm_head",)}):
        with pytest.raises(RequestError, match=f"^LoraSpec.{next(iter(wrong))} must be"):
            LoraSpec(**wrong)


def test_an_adapter_that_does_not_belong_to_its_base_is_refused(base, tokenizer, tmp_path):
    good, twice, broken, other = (tmp_path / name for name in ("good", "twice", "broken", "other"))
    save_adapter(load(base), good, base)
    save_adapter(load(base), twice, str(good))
    with pytest.raises(CheckpointError, match=r"its base .*good is an adapter itself"):
        checkpoints.load(str(twice))
    shutil.copytree(good, broken)
    (broken / LORA_FILE).write_bytes(b"\x10" * 64)
    with pytest.raises(CheckpointError, match=r"broken' cannot be loaded \(.+\); train or download it again"):
        checkpoints.load(str(broken))
    checkpoints.save(checkpoints.build("tiny", tokenizer, seed=0), tmp_path / "tiny", dtype=torch.float32)
    save_adapter(load(base), other, str(tmp_path / "tiny"))
    with pytest.raises(CheckpointError, match=r"other' cannot be loaded \(.+\); train or download it again"):
        checkpoints.load(str(other))
    save_adapter(load(base), other, str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"^'.*gone' is no LatentOmni checkpoint"):
        checkpoints.load(str(other))


def test_what_is_imported_for_adapters_says_nothing():
    done = subprocess.run([sys.executable, "-c", "import latentomni.adapters"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_an_adapter_is_sized_without_weights(base, tmp_path, recwarn):
    save_adapter(load(base), tmp_path, base)
    loaded, sizes = checkpoints.load(str(tmp_path)), checkpoints.load(str(tmp_path), device="meta")
    shapes = [{name: p.shape for name, p in thinker.model.named_parameters()} for thinker in (loaded, sizes)]
    assert shapes[0] == shapes[1] and all(p.is_meta for p in sizes.model.parameters())
    assert not [w for w in recwarn if "meta parameter" in str(w.message)]
