"""What was read once: a clip's keys and values serve every further question, and the answers are those of a fresh reading."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from latentomni import generation, runtime
from latentomni.arms import Arm, Change, ClipArm
from latentomni.config import Mode, SamplingSpec
from latentomni.generation import generate, read_on, read_prefix
from latentomni.prefix import _GrowingLayer, growing_cache
from latentomni.processing import add_question
from latentomni.reruns import rerun
from latentomni.runtime import Runtime

FIRST, SECOND = "What is seen while the bell rings?", "Is a red circle seen?"
GREEDY = SamplingSpec(max_new_tokens=8)
CASES = [(Mode.DIRECT, 0), (Mode.TEXT_COT, 0), (Mode.LATENT, 1), (Mode.LATENT, 2)]


@pytest.fixture
def fed(tiny64, monkeypatch):
    """How many tokens went through the model, forward by forward."""
    counts, run = [], type(tiny64)._run

    def count(self, embeds, *args):
        counts.append(embeds.shape[1])
        return run(self, embeds, *args)

    monkeypatch.setattr(type(tiny64), "_run", count)
    return counts


def assert_same_answer(ours, expected):
    assert (ours.text, ours.reason, ours.tokens) == (expected.text, expected.reason, expected.tokens)
    assert [b.window for b in ours.blocks] == [b.window for b in expected.blocks]
    vectors = [torch.tensor([s.vector.tolist() for b in trace.blocks for s in b.latents]) for trace in (ours, expected)]
    torch.testing.assert_close(*vectors, rtol=0, atol=1e-6)  # a trace holds float32


@pytest.mark.parametrize(("mode", "blocks"), CASES)
def test_a_further_question_is_answered_as_if_it_were_the_first_and_pays_for_its_own_tokens(tiny64, make_clip, fed, mode, blocks):
    clip, sampling, used = make_clip(0, 8.0), replace(GREEDY, max_blocks=max(blocks, 1)), Runtime(tiny64)
    used.answer(clip, FIRST, sampling=sampling)
    fed.clear()
    ours = used.answer(clip, SECOND, mode, sampling)
    paid = sum(fed)
    fed.clear()
    expected = Runtime(tiny64).answer(clip, SECOND, mode, sampling)
    assert len(ours.blocks) == blocks
    assert_same_answer(ours, expected)
    assert paid == sum(fed) - len(used.conversation(clip))


@pytest.mark.parametrize("arm", [Arm.ZERO, Arm.SHUFFLED, Arm.REMOVED_MARKERS_KEPT, ClipArm.BLACK_OUT])
def test_a_changed_answer_is_the_same_without_a_kept_clip(tiny64, make_clip, fed, monkeypatch, arm):
    used, clip = Runtime(tiny64), make_clip(0, 8.0)
    trace = used.answer(clip, FIRST, sampling=GREEDY)
    fed.clear()
    ours, paid = rerun(used, clip, trace, Change(arm), seed=3), sum(fed)
    monkeypatch.setattr(Runtime, "opening", lambda self, rows, cancelled=None: None)
    fed.clear()
    expected = rerun(Runtime(tiny64), clip, trace, Change(arm), seed=3)
    assert_same_answer(ours.after, expected.after)
    assert ours.margin_change == pytest.approx(expected.margin_change, abs=1e-9)
    assert ours.control == expected.control or ours.control.margin_change == pytest.approx(expected.control.margin_change, abs=1e-9)
    assert paid < sum(fed)


@pytest.mark.parametrize("chunk", [5, 16, 33])
@pytest.mark.parametrize(("mode", "blocks"), CASES)
def test_a_prompt_that_is_read_in_chunks_is_answered_the_same(tiny64, make_clip, fed, monkeypatch, mode, blocks, chunk):
    clip, sampling = make_clip(0, 8.0), replace(GREEDY, max_blocks=max(blocks, 1))
    whole = Runtime(tiny64).answer(clip, FIRST, mode, sampling)
    assert max(fed) > chunk
    fed.clear()
    monkeypatch.setattr(generation, "PREFILL_CHUNK", chunk)
    assert_same_answer(Runtime(tiny64).answer(clip, FIRST, mode, sampling), whole)
    assert max(fed) == chunk


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_stop_is_honoured_while_a_long_prompt_is_read(tiny64, make_clip, fed, monkeypatch, parts, is_kept):
    """No part more goes through the model, nothing half read is kept, and the next answer is a fresh one's."""
    clip, used = make_clip(0, 8.0), Runtime(tiny64)
    whole = Runtime(tiny64).answer(clip, FIRST, sampling=GREEDY)
    monkeypatch.setattr(generation, "PREFILL_CHUNK", 16)
    if not is_kept:
        monkeypatch.setattr(Runtime, "opening", lambda self, rows, cancelled=None: None)
    fed.clear()
    *_, finished = used.stream(clip, FIRST, sampling=GREEDY, cancelled=lambda: len(fed) >= parts)
    assert (finished.reason, finished.answer, finished.tokens) == ("cancelled", "", 0)
    assert fed == [16] * parts
    assert [known.opening for known in used._known.values()] == [None]
    assert_same_answer(used.answer(clip, FIRST, sampling=GREEDY), whole)


def test_rows_that_go_on_from_one_prefix_do_not_meet(tiny64, make_clip):
    """Nor does what they write find its way into the prefix."""
    used = Runtime(tiny64)
    row = used.conversation(make_clip(0))
    add_question(row, FIRST, Mode.LATENT, tiny64.encode_text)
    n = len(used.conversation(make_clip(0)))
    prefix = read_prefix(tiny64, [row.up_to(n)], [n])
    before = [(layer.keys.clone(), layer.values.clone()) for layer in prefix.cache.layers]
    told = []
    for prefixed in (None, prefix, prefix):
        other = row.up_to(len(row))
        list(generate(tiny64, [other], [Mode.LATENT], GREEDY, prefix=prefixed))
        told.append((other.token_ids, torch.stack(other.latents)))
    for ids, latents in told[1:]:
        assert ids == told[0][0]
        torch.testing.assert_close(latents, told[0][1], rtol=0, atol=1e-12)
    for layer, (keys, values) in zip(prefix.cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert prefix.nbytes == sum(k.nbytes + v.nbytes for k, v in before)


def test_the_growing_cache_holds_what_the_stock_one_holds(tiny):
    config, random = tiny.model.config.text_config, torch.Generator().manual_seed(0)
    ours, stock, places = growing_cache(config), DynamicCache(config=config), set()
    for n in (3, *[1] * 150, 200, *[1] * 20):
        for layer in range(len(ours.layers)):
            keys, values = (torch.randn(2, 1, n, 8, generator=random) for _ in range(2))
            for a, b in zip(ours.update(keys, values, layer), stock.update(keys, values, layer), strict=True):
                assert torch.equal(a, b)
        places.add(ours.layers[0].keys.data_ptr())
    assert ours.get_seq_length() == stock.get_seq_length() == 373
    assert len(places) < 6  # written in place but for a few moves


def test_a_long_prompt_is_given_room_once(tiny64, make_clip, monkeypatch):
    """Before any of it is read, in every layer, with the keys of a fork behind it: what is read in parts is not copied for every part."""
    rooms, widen = [], _GrowingLayer._widen
    monkeypatch.setattr(_GrowingLayer, "_widen", lambda self, like, start, size: (rooms.append(start), widen(self, like, start, size))[1])
    monkeypatch.setattr(generation, "PREFILL_CHUNK", 16)
    row, layers = Runtime(tiny64).conversation(make_clip(0, 8.0)), len(tiny64.text_model.layers)
    prefix = read_prefix(tiny64, [row], [len(row)])
    assert len(row) > 3 * 16
    assert rooms == [0] * layers
    add_question(row, FIRST * 4, Mode.DIRECT, tiny64.encode_text)
    assert len(row) > prefix.fed[0] + 3 * 16
    read_on(tiny64, [row], prefix)
    assert rooms == [0] * layers + prefix.fed * layers


def test_only_as_many_clips_stay_read_as_fit(tiny64, make_clip, monkeypatch):
    used = Runtime(tiny64)
    for seed in range(3):
        used.answer(make_clip(seed), FIRST, Mode.DIRECT, GREEDY)
    held = [k.opening.nbytes for k in used._known.values()]
    assert len(held) == 3
    monkeypatch.setattr(runtime, "_KEPT_BYTES", held[0] + held[1] - 1)
    used.answer(make_clip(3), FIRST, Mode.DIRECT, GREEDY)
    assert [k.opening is not None for k in used._known.values()] == [False, False, True, True]
    assert used.answer(make_clip(0), FIRST, Mode.DIRECT, GREEDY).text == Runtime(tiny64).answer(make_clip(0), FIRST, Mode.DIRECT, GREEDY).text
