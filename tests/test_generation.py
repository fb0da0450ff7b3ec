"""The decode loop: steps equal one forward, a batch equals its rows, and a stopped answer leaves nothing behind."""

import gc
import weakref
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import zip_longest

import numpy as np
import pytest
import torch

from latentomni.attention_flow import Kind
from latentomni.config import AttentionFlow, LatentSpec, Mode, PositionVariant, SamplingSpec
from latentomni.events import Finished, LatentClosed, LatentOpened, LatentStep, TextDelta
from latentomni.generation import Progress, generate
from latentomni.processing import add_question, new_sequence

GREEDY = SamplingSpec(max_new_tokens=10)
SAMPLED = SamplingSpec(temperature=1.0, top_p=0.9, max_new_tokens=10, seed=5)


@pytest.fixture
def asked(tiny64, make_clip):
    """asked(clip, question, mode, thinker): a row that waits for its answer."""

    def ask(clip=None, question="What is seen while the bell rings?", mode=Mode.LATENT, thinker=tiny64):
        row = new_sequence(thinker.encode_clip(clip or make_clip(0)), thinker.spec, thinker.ids, thinker.encode_text)
        add_question(row, question, mode, thinker.encode_text)
        return row

    return ask


@contextmanager
def recorded_logits(thinker):
    """Every row of logits that is computed meanwhile, in order."""
    seen = []
    handle = thinker.model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output[0].clone()))
    yield seen
    handle.remove()


def decode(thinker, rows, modes, sampling, cancelled=lambda: False):
    """Events of each row."""
    events = [[] for _ in rows]
    for b, event in generate(thinker, rows, modes, sampling, cancelled):
        events[b].append(event)
    return events


def predicted(row, start):
    """Indices from `start` on of what the model itself chose or made, one a step: all but echoes and closings."""
    return [i for i in range(start, len(row)) if row.kinds[i] != Kind.ECHO and row.token_ids[i] != row.ids.close]


@torch.no_grad()
def assert_equals_one_forward(thinker, rows, modes, sampling):
    """Decode, then hold every latent and every row of logits against one forward over the assembled rows."""
    starts, done = [len(row) for row in rows], [len(row.latents) for row in rows]
    with recorded_logits(thinker) as stepwise:
        decode(thinker, rows, modes, sampling)
    hidden = thinker.full(rows)
    expected = {}  # rows advance in step, so logits come ordered by step, then by row
    for b, row in enumerate(rows):
        latents = iter(row.latents[done[b] :])
        for step, i in enumerate(predicted(row, starts[b])):
            if row.kinds[i] == Kind.LATENT:
                torch.testing.assert_close(next(latents), thinker.latent(hidden[b, i - 1]), rtol=0, atol=1e-9)
            else:
                expected[step, b] = thinker.logits(hidden[b, i - 1])
        assert next(latents, None) is None
    assert len(stepwise) == len(expected)
    for ours, key in zip(stepwise, sorted(expected), strict=True):
        torch.testing.assert_close(ours, expected[key], rtol=0, atol=1e-9)


@pytest.mark.parametrize("fixes_steps", [False, True])
@pytest.mark.parametrize("flow", AttentionFlow)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_decoding_equals_one_forward(tiny64, asked, blocks, flow, fixes_steps):
    thinker = replace(tiny64, spec=replace(tiny64.spec, flow=flow), fixes_steps=fixes_steps)
    row = asked(thinker=thinker)
    assert_equals_one_forward(thinker, [row], [Mode.LATENT], replace(GREEDY, max_blocks=blocks))
    assert len(row.windows) == blocks


@pytest.mark.parametrize("positions", PositionVariant)
@pytest.mark.parametrize("writes_window, has_head", [(True, False), (False, True)])
def test_decoding_equals_one_forward_under_every_variant(tiny64, asked, positions, writes_window, has_head):
    spec = LatentSpec(instants=2, rows=1, columns=3, positions=positions, writes_window=writes_window)
    thinker = replace(tiny64, spec=spec, head=tiny64.head if has_head else None)
    row = asked(thinker=thinker)
    assert_equals_one_forward(thinker, [row], [Mode.LATENT], replace(SAMPLED, max_blocks=2))
    assert row.windows


def mixed_rows(asked, make_clip):
    """Other lengths, other modalities, other modes, other questions."""
    modes = [Mode.LATENT, Mode.DIRECT, Mode.LATENT, Mode.LATENT]
    clips = [
        make_clip(0, 6.0),
        make_clip(1, 3.0, sound=False),
        make_clip(2, 2.0, picture=False),
        make_clip(3, 4.0, sound=False),
    ]
    questions = ["What is seen?", "Is a red circle seen while the bell rings?", "What sounds?", "And?"]
    return [asked(*parts) for parts in zip(clips, questions, modes, strict=True)], modes


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_a_batch_of_unlike_rows_equals_one_forward(tiny64, asked, make_clip, sampling):
    rows, modes = mixed_rows(asked, make_clip)
    assert_equals_one_forward(tiny64, rows, modes, replace(sampling, max_blocks=2))
    assert [bool(row.windows) for row in rows] == [True, False, True, True]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_a_batch_equals_its_rows_alone(tiny64, asked, make_clip, sampling):
    together, modes = mixed_rows(asked, make_clip)
    alone, _ = mixed_rows(asked, make_clip)
    batched = decode(tiny64, together, modes, sampling)
    for b, row in enumerate(alone):
        single = decode(tiny64, [row], modes[b : b + 1], sampling)[0]
        assert together[b].token_ids == row.token_ids
        assert together[b].positions == row.positions
        assert told(batched[b]) == told(single)
        torch.testing.assert_close(vectors(batched[b]), vectors(single), rtol=0, atol=1e-6)


def told(events):
    """Events as plain values without times and vectors."""
    skipped = {"elapsed_s", "ttft_s", "memory_bytes", "vector"}
    return [(type(e).__name__, *(getattr(e, f.name) for f in fields(e) if f.name not in skipped)) for e in events]


def blocks_told(events):
    return told(e for e in events if not isinstance(e, TextDelta | Finished))


def vectors(events):
    return torch.tensor(np.array([e.vector for e in events if isinstance(e, LatentStep)]))


def test_a_follow_up_after_two_blocks_equals_one_forward(tiny64, asked):
    row = asked()
    assert_equals_one_forward(tiny64, [row], [Mode.LATENT], replace(GREEDY, max_blocks=2))
    for question, mode, blocks in (
        ("And what sounds?", Mode.LATENT, 3),
        ("Sure?", Mode.DIRECT, 3),
        ("Why?", Mode.LATENT, 5),
    ):
        add_question(row, question, mode, tiny64.encode_text)
        assert_equals_one_forward(tiny64, [row], [mode], replace(GREEDY, max_blocks=blocks - len(row.windows)))
        assert len(row.windows) == blocks


def test_every_answer_numbers_its_own_blocks(tiny64, asked):
    row = asked()
    for question in (None, "And what sounds?"):
        if question:
            add_question(row, question, Mode.LATENT, tiny64.encode_text)
        events = decode(tiny64, [row], [Mode.LATENT], replace(GREEDY, max_blocks=2))[0]
        assert [e.block for e in events if isinstance(e, LatentOpened)] == [0, 1]
        assert [e.block for e in events if isinstance(e, LatentStep)] == [0] * 9 + [1] * 9


def test_sampling_is_decided_by_its_seed(tiny64, asked):
    def tokens(**settings):
        row = asked()
        decode(tiny64, [row], [Mode.LATENT], replace(SAMPLED, **settings))
        return row.token_ids

    assert tokens() == tokens()
    assert tokens(seed=6) != tokens()
    assert tokens(top_p=1e-6) == tokens(top_p=1e-6, seed=6) == tokens(temperature=0.0)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    tokens()
    assert torch.equal(torch.rand(2), expected)  # nobody else's random numbers were used


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
@pytest.mark.parametrize("place", ["behind", "inside"])
def test_an_answer_goes_on_from_a_block_as_if_there_had_been_no_break(tiny64, asked, sampling, place):
    """Its words, limits, numbers of blocks and random numbers: behind its last block, or in the latents of its first."""
    sampling, row = replace(sampling, max_blocks=2, max_new_tokens=16), asked()
    prompt, events = len(row), decode(tiny64, [row], [Mode.LATENT], sampling)[0]
    opened = [i for i, e in enumerate(events) if isinstance(e, LatentOpened)]
    assert len(opened) == 2
    block = 1 if place == "behind" else 0
    words = [e for e in events[: opened[block]] if isinstance(e, TextDelta)]
    progress = Progress("".join(e.text for e in words), sum(len(e.token_ids) for e in words) + block + 1, block + 1)
    latents = [i for i, n in enumerate(row.blocks) if n == block and row.kinds[i] == Kind.LATENT]
    again = row.up_to(latents[-1] + 2 if place == "behind" else latents[0])
    assert prompt < len(again) < len(row)
    rest = [e for _, e in generate(tiny64, [again], [Mode.LATENT], sampling, progress=[progress])]
    first = opened[block] if place == "inside" else opened[block] + 2 + row.spec.n_latents
    assert [type(e) for e in rest] == [type(e) for e in events[first:]]
    assert [e.text for e in rest if isinstance(e, TextDelta)] == [e.text for e in events[first:] if isinstance(e, TextDelta)]
    assert [e.block for e in rest if isinstance(e, LatentOpened)] == ([] if place == "behind" else [0, 1])
    assert (rest[-1].answer, rest[-1].tokens, rest[-1].reason) == (events[-1].answer, events[-1].tokens, events[-1].reason)
    assert again.token_ids == row.token_ids and again.positions == row.positions and again.windows == row.windows


def test_a_block_is_trigger_echo_window_latents_and_close(tiny64, asked):
    row = asked()
    start = len(row)
    events = decode(tiny64, [row], [Mode.LATENT], replace(GREEDY, max_blocks=1))[0]
    first = row.kinds.index(Kind.TRIGGER)
    opened = next(e for e in events if isinstance(e, LatentOpened))
    n_window = row.kinds.count(Kind.WINDOW)
    kinds = [
        Kind.TRIGGER,
        *[Kind.ECHO] * len(row.question_ids),
        *[Kind.WINDOW] * n_window,
        *[Kind.LATENT] * 9,
        Kind.TEXT,
    ]
    assert row.kinds[first : first + len(kinds)] == kinds
    assert row.blocks[first : first + len(kinds)] == [0] * (len(kinds) - 1) + [-1]
    assert [row.token_ids[i] for i, kind in enumerate(row.kinds) if kind == Kind.ECHO] == row.question_ids
    assert row.token_ids[first + len(kinds) - 1] == row.ids.close
    written = tiny64.tokenizer.decode([row.token_ids[i] for i, kind in enumerate(row.kinds) if kind == Kind.WINDOW])
    assert tiny64.grammar.resolve(written, row.clip.duration_s) == (opened.window, opened.window_source)
    kinds_of_events = [type(e) for e in events]
    at = kinds_of_events.index(LatentOpened)
    assert kinds_of_events[at : at + 11] == [LatentOpened, *[LatentStep] * 9, LatentClosed]
    assert kinds_of_events[-1] is Finished and kinds_of_events.count(Finished) == 1
    text = [
        t
        for i, t in enumerate(row.token_ids)
        if i >= start and row.kinds[i] == Kind.TEXT and t not in (row.ids.close, row.ids.end_of_turn)
    ]
    assert [t for e in events if isinstance(e, TextDelta) for t in e.token_ids] == text
    assert "".join(e.text for e in events if isinstance(e, TextDelta)).strip() == events[-1].answer


def test_latents_in_events_are_what_is_fed_back(tiny64, asked):
    row = asked()
    steps = [
        e for e in decode(tiny64, [row], [Mode.LATENT], replace(GREEDY, max_blocks=2))[0] if isinstance(e, LatentStep)
    ]
    assert torch.equal(vectors(steps), torch.stack(row.latents).float())
    embeds = tiny64.embed_rows([row], torch.tensor([row.token_ids]))[0]
    assert torch.equal(embeds[[i for i, kind in enumerate(row.kinds) if kind == Kind.LATENT]], torch.stack(row.latents))
    assert [(e.index, e.modality, e.instant, e.cell) for e in steps[9:]] == [
        *((2 * i + r, "visual", i, (r, 0)) for i in range(3) for r in range(2)),
        *((6 + i, "audio", i, None) for i in range(3)),
    ]


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_an_answer_keeps_its_limits(tiny64, asked, limit, sampling):
    for blocks in (0, 1, 4):
        row = asked()
        events = decode(tiny64, [row], [Mode.LATENT], replace(sampling, max_new_tokens=limit, max_blocks=blocks))[0]
        assert len(row.windows) <= min(blocks, limit - 1)
        assert events[-1].tokens == limit and events[-1].reason == "length"


def test_a_direct_answer_has_no_block_and_layout_tokens_are_never_chosen(tiny64, asked):
    """Rows of the output layer are made loud one by one; only what may be said is ever said."""
    ids = tiny64.ids
    layout = [
        ids.close,
        ids.latent_pad,
        ids.video,
        ids.audio,
        ids.vision_bos,
        ids.vision_eos,
        ids.audio_bos,
        ids.audio_eos,
        ids.padding,
    ]
    weight = tiny64.model.lm_head.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[layout] *= 100
        for mode in Mode:
            row = asked(mode=mode)
            start = len(row)
            decode(tiny64, [row], [mode], SAMPLED)
            said = [row.token_ids[i] for i in predicted(row, start) if row.kinds[i] != Kind.LATENT]
            assert not set(said) & set(layout)
            assert (ids.trigger in said) == (mode is Mode.LATENT)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@pytest.mark.parametrize(
    "before, after, answer",
    [("It is", "red.", "It is red."), ("It is ", "red.", "It is red."), ("It is", " red.", "It is red."),
     ("Well", ", no.", "Well, no."), ("", "No.", "No."), ("n\u00e9", "\u4f55", "n\u00e9 \u4f55")],
)  # fmt: skip
def test_words_around_a_block_are_set_apart_by_one_space(tiny64, asked, forced, before, after, answer):
    row, text = asked(), tiny64.encode_text
    said = [*text(before), row.ids.trigger, *text("[1.0-2.0 s]"), *text(after), row.ids.end_of_turn]
    with forced(tiny64, said):
        events = decode(tiny64, [row], [Mode.LATENT], replace(GREEDY, max_new_tokens=64))[0]
    assert (events[-1].reason, events[-1].answer) == ("stop", answer)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == answer
    assert [t for e in events if isinstance(e, TextDelta) for t in e.token_ids] == [*text(before), *text(after)]


def test_a_window_that_does_not_end_in_time_is_nominal(tiny64, asked):
    thinker = replace(tiny64, spec=replace(tiny64.spec, max_window_tokens=3))
    row = asked(thinker=thinker)
    opened = next(e for e in decode(thinker, [row], [Mode.LATENT], GREEDY)[0] if isinstance(e, LatentOpened))
    assert (opened.window_source, opened.window.start_s, opened.window.end_s) == ("nominal", 0.0, 4.0)
    assert row.blocks.count(0) == 1 + len(row.question_ids) + 3 + 9


def test_a_checkpoint_without_windows_gets_nominal_ones(tiny64, asked):
    thinker = replace(tiny64, spec=replace(tiny64.spec, writes_window=False))
    row = asked(thinker=thinker)
    opened = [e for e in decode(thinker, [row], [Mode.LATENT], GREEDY)[0] if isinstance(e, LatentOpened)]
    assert opened and {(e.window_source, e.window.end_s) for e in opened} == {("nominal", 4.0)}
    assert Kind.WINDOW not in row.kinds


def test_a_clip_without_any_token_is_answered(tiny64, asked, make_clip):
    row = asked(replace(make_clip(0, 0.05, picture=False)))
    events = decode(tiny64, [row], [Mode.LATENT], replace(GREEDY, max_blocks=1))[0]
    assert len(row.windows) == 1 and events[-1].reason == "length"


def short(thinker):
    """Three latents a block, short windows and few words, so that a test can stop everywhere."""
    return replace(thinker, spec=replace(thinker.spec, instants=1, max_window_tokens=2)), replace(
        GREEDY, max_new_tokens=5, max_blocks=2
    )


def test_a_stop_is_honoured_between_any_two_steps_and_leaves_a_sound_row(tiny64, asked):
    """Whenever an answer is stopped, what was told is a beginning of the whole, a block begun is taken back, and the
    next question decodes as one forward says."""
    thinker, sampling = short(tiny64)
    whole_row = asked(thinker=thinker)
    whole = blocks_told(decode(thinker, [whole_row], [Mode.LATENT], sampling)[0])
    n_steps = len(predicted(whole_row, len(asked(thinker=thinker))))
    for stop_after in range(n_steps):
        row, checks = asked(thinker=thinker), iter(range(stop_after))
        events = decode(
            thinker, [row], [Mode.LATENT], sampling, cancelled=lambda steps=checks: next(steps, None) is None
        )[0]
        assert events[-1].reason == "cancelled"
        assert blocks_told(events) == whole[: len(blocks_told(events))]
        assert len(row.latents) == len(row.windows) * thinker.spec.n_latents == row.kinds.count(Kind.LATENT)
        assert row.kinds.count(Kind.TRIGGER) == len(row.windows)
        assert row.token_ids == whole_row.token_ids[: len(row)]
        assert list(row.positions) == [axis[: len(row)] for axis in whole_row.positions]
        assert row.builder.next_id == whole_row.positions[0][len(row)]
        if stop_after % 4 == 0:
            add_question(row, "And what sounds?", Mode.LATENT, thinker.encode_text)
            turn = row.token_ids[row.turns.index(2) :]
            assert turn[0] == row.ids.end_of_turn
            assert_equals_one_forward(thinker, [row], [Mode.LATENT], sampling)


@pytest.mark.parametrize("event_type", [TextDelta, LatentOpened, LatentStep, LatentClosed])
def test_a_closed_stream_takes_an_unfinished_block_back_and_keeps_nothing(tiny64, asked, event_type):
    row, before = asked(), len(asked())
    stream = generate(tiny64, [row], [Mode.LATENT], GREEDY)
    assert any(isinstance(event, event_type) for _, event in stream)
    assert torch.is_grad_enabled()  # also between two steps
    kept = weakref.ref(row)
    stream.close()
    assert len(row.latents) == len(row.windows) * 9 == row.kinds.count(Kind.LATENT)
    assert len(row) >= before
    del stream, row
    gc.collect()
    assert kept() is None


def test_answers_that_are_decoded_in_turns_do_not_mix(tiny64, asked, make_clip):
    rows, modes = mixed_rows(asked, make_clip)
    streams = [generate(tiny64, [row], [mode], SAMPLED) for row, mode in zip(rows, modes, strict=True)]
    events = [[] for _ in rows]
    for step in zip_longest(*streams):
        for b, (_, event) in ((b, told_now) for b, told_now in enumerate(step) if told_now):
            events[b].append(event)
    alone, _ = mixed_rows(asked, make_clip)
    for b, row in enumerate(alone):
        assert told(events[b]) == told(decode(tiny64, [row], modes[b : b + 1], SAMPLED)[0])
