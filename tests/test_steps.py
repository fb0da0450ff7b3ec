"""Steps over keys at fixed places, which a GPU replays as a graph: the same answers as without, to rounding. Here uncaptured."""

import operator
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from latentomni import steps
from latentomni.attention_flow import Kind
from latentomni.config import Mode, SamplingSpec
from latentomni.events import LatentStep, TextDelta
from latentomni.generation import generate
from latentomni.processing import add_question, new_sequence
from latentomni.runtime import Runtime
from latentomni.steps import FixedStep

QUESTION = "What is seen while the bell rings?"


def asked(thinker, clip, mode=Mode.LATENT):
    row = new_sequence(thinker.encode_clip(clip), thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, QUESTION, mode, thinker.encode_text)
    return row


def told(events):
    """What of a run does not depend on how fast it was."""
    words = [(b, event.text, event.token_ids) for b, event in events if isinstance(event, TextDelta)]
    return words, [(b, event.block, event.index, event.time_s) for b, event in events if isinstance(event, LatentStep)]


def latents(events):
    return np.array([event.vector for _, event in events if isinstance(event, LatentStep)])


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("clips", [1, 3])
def test_a_run_is_the_same(tiny64, make_clip, mode, temperature, clips):
    sampling = SamplingSpec(temperature=temperature, max_new_tokens=12, max_blocks=2, seed=3)
    runs = []
    for thinker in (tiny64, replace(tiny64, fixes_steps=True)):
        rows = [asked(thinker, make_clip(k, 2.0 + k), mode) for k in range(clips)]
        runs.append((list(generate(thinker, rows, [mode] * clips, sampling)), rows))
    (plain, plain_rows), (fixed, fixed_rows) = runs
    assert told(plain) == told(fixed)
    assert [row.token_ids for row in plain_rows] == [row.token_ids for row in fixed_rows]
    np.testing.assert_allclose(latents(plain), latents(fixed), atol=1e-9)
    assert len(latents(plain)) or mode is not Mode.LATENT


def test_a_follow_up_from_a_kept_prefix_is_the_same(tiny64, make_clip):
    clip, sampling = make_clip(0), SamplingSpec(max_new_tokens=8)
    plain, fixed = Runtime(tiny64), Runtime(replace(tiny64, fixes_steps=True))
    for question in (QUESTION, "And then?"):
        ours, expected = (runtime.answer(clip, question, "latent", sampling) for runtime in (fixed, plain))
        assert ours.text == expected.text
        ours, expected = ([latent.vector for block in trace.blocks for latent in block.latents] for trace in (ours, expected))
        assert ours
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_room_is_made_anew_while_it_goes_on(tiny, make_clip, monkeypatch):
    monkeypatch.setattr(steps, "_AHEAD", 3)
    endless = replace(tiny, fixes_steps=True)
    for thinker in (tiny, endless):
        thinker.ids = replace(thinker.ids, end_of_turn=-1)
    try:
        rows = [asked(thinker, make_clip(0), Mode.DIRECT) for thinker in (tiny, endless)]
        for thinker, row in zip((tiny, endless), rows, strict=True):
            list(generate(thinker, [row], [Mode.DIRECT], SamplingSpec(max_new_tokens=150)))
    finally:
        tiny.ids = replace(tiny.ids, end_of_turn=tiny.tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert rows[0].token_ids == rows[1].token_ids


def test_what_is_not_written_yet_is_not_seen(tiny64, make_clip):
    """Room behind the last key holds zeros; filled with anything else, the step is the same."""
    from latentomni.generation import read_prefix

    row = asked(tiny64, make_clip(0))
    prefix = read_prefix(tiny64, [row], [len(row)])
    embeds, positions = torch.randn(1, 1, tiny64.hidden_size, dtype=torch.float64), torch.full((3, 1, 1), 900)
    found = []
    for filling in (0.0, 1e3):
        cache, _ = prefix.fork()
        for layer in cache.layers:
            layer.reserve(len(row) + 1, 64)
            for room in layer._room:
                room[..., len(row) :, :] = filling
        with torch.no_grad():
            found.append(FixedStep(tiny64, cache).run(embeds, positions, None))
            plain, _ = prefix.fork()
            expected = tiny64.forward(embeds, positions, None, plain)
        assert cache.get_seq_length() == len(row) + 1
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("is_stopped", [operator.lt, operator.eq])  # from then on, or that once
@pytest.mark.parametrize("after", [0, *range(12, 28, 3)])  # the first block is decoded between asks 16 and 24
def test_a_block_can_be_stopped_in_its_middle(tiny64, make_clip, after, is_stopped):
    thinker = replace(tiny64, fixes_steps=True)
    row, asks = asked(thinker, make_clip(0)), count()
    events = list(generate(thinker, [row], [Mode.LATENT], SamplingSpec(max_new_tokens=8), lambda: is_stopped(after, next(asks))))
    assert events[-1][1].reason == "cancelled"
    assert row.kinds.count(Kind.LATENT) == len(row.latents) and row.kinds.count(Kind.LATENT) % thinker.spec.n_latents == 0


@pytest.mark.parametrize("fixes_steps", [False, True])
def test_a_block_that_is_left_while_it_is_told_is_taken_back(tiny64, make_clip, fixes_steps):
    thinker = replace(tiny64, fixes_steps=fixes_steps)
    row = asked(thinker, make_clip(0))
    events = generate(thinker, [row], [Mode.LATENT], SamplingSpec(max_new_tokens=8))
    next(event for _, event in events if isinstance(event, LatentStep))
    assert row.latents
    events.close()
    assert not row.latents and Kind.LATENT not in row.kinds and not row.windows


@pytest.mark.parametrize("places, is_one_gpu", [("cuda:0", True), ("cuda:0 cuda:1", False), ("cuda:0 cpu", False), ("cpu", False)])
def test_steps_are_fixed_where_one_gpu_holds_all_of_the_model(tiny64, monkeypatch, places, is_one_gpu):
    monkeypatch.setattr(tiny64.model, "hf_device_map", dict(enumerate(places.split())), raising=False)
    assert replace(tiny64, fixes_steps=None).fixes_steps is is_one_gpu
