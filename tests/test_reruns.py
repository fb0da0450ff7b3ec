"""Reruns: a replay is the run itself, an arm changes what it names and nothing else, and the numbers are those of full forwards."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from latentomni.arms import Arm, Change, ClipArm
from latentomni.attention_flow import Kind
from latentomni.clock import Window
from latentomni.config import AttentionFlow, SamplingSpec
from latentomni.errors import RequestError
from latentomni.evidence import DonorBank
from latentomni.replays import replay
from latentomni.reruns import rerun
from latentomni.runtime import Runtime
from latentomni.trace import Trace
from latentomni.variants import change_clip, change_latents

QUESTION = "What is seen while the bell rings?"
GREEDY = SamplingSpec(max_new_tokens=8, max_blocks=2)
SAMPLED = replace(GREEDY, temperature=1.0, top_p=0.9, seed=5, max_new_tokens=16)
LATENT_ARMS = [arm for arm in Arm if arm is not Arm.INTACT]
TIMES = {"elapsed_s": 0.0, "ttft_s": 0.0, "memory_bytes": 0}


@pytest.fixture(scope="module")
def runtime(tiny64):
    spec = tiny64.spec
    drawn = np.random.default_rng(0).normal(size=(spec.n_latents, 199, tiny64.hidden_size))
    return Runtime(tiny64, DonorBank(drawn, spec.n_visual))


@pytest.fixture(scope="module")
def clip(make_clip):
    """Eight seconds; from 5 s on there is no sound."""
    clip = make_clip(0, 8.0)
    waveform = clip.waveform.copy()
    waveform[5 * 16_000 :] = 0
    return replace(clip, waveform=waveform)


@pytest.fixture(scope="module")
def trace(runtime, clip):
    return runtime.answer(clip, QUESTION, sampling=GREEDY)


@pytest.fixture(scope="module")
def given(runtime, clip, trace):
    return replay(runtime, clip, trace)


@pytest.fixture(scope="module")
def change(runtime, clip, trace, given):
    """change(arm, block=..., ...): the outcome."""
    return cache(lambda arm, **target: rerun(runtime, clip, trace, Change(arm, **target), replayed=given))


def timeless(trace):
    """What a trace says, without when."""
    blocks = tuple(
        replace(b, opened_s=0.0, closed_s=0.0, latents=tuple(replace(z, elapsed_s=0.0) for z in b.latents)) for b in trace.blocks
    )
    return replace(trace, **TIMES, blocks=blocks, deltas=tuple(replace(d, elapsed_s=0.0) for d in trace.deltas))


def vectors(trace):
    """(S, K, D)."""
    return np.stack([[z.vector for z in block.latents] for block in trace.blocks])


def moved_slots(outcome):
    """(block, slot) of every latent that is another one after the change."""
    return set(zip(*np.nonzero((vectors(outcome.before) != vectors(outcome.after)).any(-1)), strict=True))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
@pytest.mark.parametrize("mode", ["latent", "text-cot", "direct"])
def test_a_replay_is_the_run_itself(runtime, clip, sampling, mode, tmp_path):
    trace = runtime.answer(clip, QUESTION, mode, sampling)
    trace.save(tmp_path / "t.zip")
    again = replay(runtime, clip, Trace.load(tmp_path / "t.zip"))
    assert timeless(again.trace) == timeless(trace)
    assert again.notices == () and again.prompt == trace.prompt_tokens
    assert len(again.row.windows) == len(trace.blocks) == (2 if mode == "latent" else 0)


def test_a_replay_is_of_the_same_clip_and_model(runtime, clip, trace, make_clip, tiny64):
    other = make_clip(1, 8.0)
    with pytest.raises(RequestError, match=rf"is about clip 0.mp4 \(sha256 {clip.sha256[:12]}\W+ got clip 1.mp4 \(sha256 {other.sha256[:12]}"):
        replay(runtime, other, trace)
    with pytest.raises(RequestError, match="is of the model 'tiny', but 'other' is loaded; load 'tiny'"):
        replay(Runtime(replace(tiny64, name="other")), clip, trace)
    with pytest.raises(RequestError) as refusal:  # what a trace says of itself may be anything
        replay(runtime, clip, replace(trace, model="<pad>\n" * 1000))
    assert len(str(refusal.value)) < 300 and "\n" not in str(refusal.value)
    with pytest.raises(RequestError, match="settings \\['beams'\\], which are not known here"):
        replay(runtime, clip, replace(trace, sampling=trace.sampling | {"beams": 4}))


def test_a_replay_says_what_is_not_as_it_was(runtime, clip, trace):
    told = replay(runtime, clip, replace(trace, deltas=trace.deltas[:-1], answer="A red circle.")).notices
    assert len(told) == 1 and 'The trace says "A red circle.", but asked again the model says ' in told[0]
    row = runtime.conversation(clip)
    runtime_answers = [Trace.from_events(runtime.stream(clip, QUESTION, sampling=GREEDY, conversation=row)) for _ in range(2)]
    assert replay(runtime, clip, runtime_answers[0]).notices == ()
    assert "asked in a conversation" in replay(runtime, clip, runtime_answers[1]).notices[0]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_the_intact_arm_changes_nothing(runtime, clip, sampling, tmp_path):
    trace = runtime.answer(clip, QUESTION, sampling=sampling)
    outcome = rerun(runtime, clip, trace, Change("intact"))
    assert timeless(replace(outcome.after, notices=trace.notices)) == timeless(trace)
    assert outcome.after.notices == ("All latents were left as they were.",)
    assert (outcome.flipped, outcome.margin_change, outcome.moved, outcome.control, outcome.notices) == (False, 0.0, (), None, ())
    ((before, after),) = outcome.probabilities.values()
    assert 0 < before == after < 1
    outcome.after.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == outcome.after


@pytest.mark.parametrize("arm", LATENT_ARMS)
def test_every_arm_is_written_again_behind_the_same_words(change, arm):
    outcome = change(arm)
    before, after, gone = outcome.before, outcome.after, arm.removes
    assert [b.window for b in after.blocks] == ([] if gone else [b.window for b in before.blocks])
    assert after.text.startswith(before.text[: before.blocks[-1].text_offset])
    assert after.tokens <= before.tokens == 8 and after.reason == before.reason == "length"
    assert all(b.closed_s is not None and all(z.p_corrected is not None for z in b.latents) for b in after.blocks)
    assert (outcome.control is None) == gone and len(outcome.notices) >= gone
    if outcome.flipped:
        assert len(outcome.probabilities) == 2
        assert [sum(p) for p in zip(*outcome.probabilities.values(), strict=True)] == pytest.approx([1, 1])
    assert np.isfinite(outcome.margin_change)


@pytest.mark.parametrize(
    "target",
    [{}, {"block": 1}, {"modality": "audio"}, {"block": 0, "modality": "visual"}, {"block": 1, "latent": 2}, {"block": 0, "latent": 8}],
    ids=str,
)
@pytest.mark.parametrize("arm", [Arm.ZERO, Arm.NOISE, Arm.OTHER_CLIP, Arm.OTHER_TIME, Arm.PAUSE_TOKENS])
def test_an_arm_changes_the_chosen_latents_only(change, given, arm, target):
    n, k = given.row.spec.n_visual, given.row.spec.n_latents
    assert (n, k) == (6, 9)
    kind = {"visual": range(n), "audio": range(n, k)}.get(target.get("modality"), range(k))
    slots = {(b, s) for b in ([target["block"]] if "block" in target else [0, 1]) for s in kind if s == target.get("latent", s)}
    outcome = change(arm, **target)
    assert moved_slots(outcome) == slots
    for old, new in zip(outcome.before.blocks, outcome.after.blocks, strict=True):
        unchanged = [z for s, z in enumerate(new.latents) if (outcome.after.blocks.index(new), s) not in slots]
        kept = [z for s, z in enumerate(old.latents) if (outcome.before.blocks.index(old), s) not in slots]
        assert [z.matches for z in unchanged] == [z.matches for z in kept]


def test_a_removed_block_leaves_the_other(change):
    for arm in (Arm.REMOVED_MARKERS_KEPT, Arm.MARKERS_REMOVED):
        for gone in (0, 1):
            outcome = change(arm, block=gone)
            (stays,) = outcome.after.blocks
            kept = outcome.before.blocks[1 - gone]
            assert (stays.window, [z.matches for z in stays.latents]) == (kept.window, [z.matches for z in kept.latents])
            assert all(np.array_equal(a.vector, b.vector) for a, b in zip(stays.latents, kept.latents, strict=True))


@pytest.mark.parametrize("target", [{}, {"block": 1, "modality": "visual"}], ids=str)
@pytest.mark.parametrize("arm", [Arm.MEAN, Arm.SHUFFLED, Arm.ORACLE])
def test_the_control_moves_the_same_latents_as_far(runtime, clip, given, arm, target):
    variant = change_latents(runtime, clip, given, Change(arm, **target), 3)
    own, changed, control = (torch.stack(row.latents) for row in (given.row, variant.row, variant.control))
    torch.testing.assert_close((control - own).norm(dim=-1), (changed - own).norm(dim=-1))
    assert (control != changed).any() and variant.control.token_ids == variant.row.token_ids
    again = change_latents(runtime, clip, given, Change(arm, **target), 3).control
    assert torch.equal(torch.stack(again.latents), control)


def log_p(thinker, row, text):
    """Of token ids behind a row, by one full forward."""
    row, start = row.up_to(len(row)), len(row)
    row.add_text(text)
    with torch.no_grad():
        p = thinker.logits(thinker.full([row])[0]).log_softmax(-1)
    return sum(float(p[start - 1 + i, token]) for i, token in enumerate(text))


def test_the_numbers_are_those_of_full_forwards(runtime, clip, given, change):
    thinker, row = runtime.thinker, given.row
    start = len(row) - row.kinds[::-1].index(Kind.LATENT) + 1
    intact, first = row.up_to(start), row.token_ids[start:]
    outcomes = [(arm, change(arm)) for arm in LATENT_ARMS]
    assert any(outcome.flipped for _, outcome in outcomes) and any(outcome.control for _, outcome in outcomes)
    for arm, outcome in outcomes:
        variant = change_latents(runtime, clip, given, Change(arm), 0)
        margins = []
        second = [t for d in outcome.after.deltas for t in d.token_ids][-(8 - 2) :]
        for changed in filter(None, (intact, variant.row, variant.control)):
            other = log_p(thinker, changed, second) if outcome.flipped else 0.0
            margins.append(log_p(thinker, changed, first) - other)
        assert outcome.margin_change == pytest.approx(margins[1] - margins[0], abs=1e-4)
        if outcome.flipped:
            told = [1 / (1 + math.exp(-m)) for m in margins[:2]]
            assert next(iter(outcome.probabilities.values())) == pytest.approx(told, abs=1e-4)
        if outcome.control:
            assert outcome.control.margin_change == pytest.approx(margins[2] - margins[0], abs=1e-4)
            assert outcome.control.what == variant.control_what


def test_a_window_that_has_no_sound_to_mute_changes_nothing(change, trace):
    outcome = change("mute", window=Window(6.0, 8.0))
    assert timeless(outcome.after).deltas == timeless(trace).deltas
    assert [b.window for b in outcome.after.blocks] == [b.window for b in trace.blocks]
    assert outcome.moved == pytest.approx([1.0] * 18) and not outcome.flipped
    assert outcome.margin_change == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("arm", ClipArm)
def test_a_changed_clip_is_what_the_new_trace_holds(runtime, change, clip, trace, arm, tmp_path):
    outcome = change(arm, window=Window(2.0, 4.0), shift_s=-0.5)
    after = outcome.after
    assert after.clip.sha256 != trace.clip.sha256 and after.clip.name == "clip 0.mp4 (changed)"
    assert after.blocks[0].window == trace.blocks[0].window and after.text.startswith(trace.text[: trace.blocks[0].text_offset])
    assert 0 < max(abs(m) for m in outcome.moved) <= 1 + 1e-9 and min(outcome.moved) < 1 - 1e-6
    inside = slice(2 * 16_000, 4 * 16_000)
    if arm is ClipArm.SHIFT_SOUND:
        assert np.array_equal(after.clip.sound[inside][:-8000], trace.clip.sound[inside][8000:])
    else:
        assert not after.clip.sound[inside].any()
    dark = [i for i, (a, b) in enumerate(zip(after.clip.thumbnails, trace.clip.thumbnails, strict=True)) if a != b]
    assert dark == ([4, 5, 6, 7] if arm is ClipArm.BLACK_OUT else [])
    assert outcome.control is None or "was done elsewhere" in outcome.control.what
    after.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == after
    with pytest.raises(RequestError, match="give the clip it is about"):
        replay(runtime, clip, after)


def test_the_clip_arms_take_the_stated_windows_and_control_elsewhere(runtime, clip, given):
    stated = [block.window for block in given.trace.blocks]
    for change, windows in ((Change("mute"), stated), (Change("mute", block=1), stated[1:])):
        variant = change_clip(runtime, clip, given, change, 0)
        assert variant.sentence == change.sentence(tuple(dict.fromkeys(windows)))
        assert (variant.control is None) == bool(variant.notices)
    narrow = Change("black_out", window=Window(7.0, 8.0))
    rooms = {change_clip(runtime, clip, given, narrow, seed).control_what for seed in range(8)}
    free = {f"[{s:.1f}-{s + 1:.1f} s]" for s in np.arange(0, 7, 0.5) if all(Window(s, s + 1).iou(w) == 0 for w in stated)}
    assert all(any(room in what for room in free) for what in rooms if what) and (rooms == {""}) == (not free)
    whole = change_clip(runtime, clip, given, Change("shift_sound"), 0)
    assert whole.control is None and "the whole sound was moved" in whole.notices[0]


def test_an_answer_without_blocks_is_given_anew_about_a_changed_clip(runtime, clip):
    trace = runtime.answer(clip, QUESTION, "direct", GREEDY)
    outcome = rerun(runtime, clip, trace, Change("black_out", window=Window(0.0, 4.0)))
    assert outcome.after.blocks == () and outcome.moved == () and outcome.after.tokens == 8
    assert outcome.control.what == "The same was done elsewhere: Picture and sound of [4.0-8.0 s] were taken out of the clip."
    same = rerun(runtime, clip, trace, Change("mute", window=Window(6.0, 8.0)))
    assert timeless(same.after).deltas == timeless(trace).deltas
    with pytest.raises(RequestError, match="states no window for mute; say which"):
        rerun(runtime, clip, trace, Change("mute"))
    with pytest.raises(RequestError, match="has no latent block to change; ask in latent mode"):
        rerun(runtime, clip, trace, Change("zero"))


def test_what_is_undefined_here_is_said_in_a_sentence(tiny64, runtime, clip, trace, given, make_clip):
    bare = Runtime(tiny64)
    for arm in ("mean", "noise", "other_clip", "visual_only", "audio_only"):
        with pytest.raises(RequestError, match=f"The arm {arm} takes latents about other clips, and there is no bank of them that fits"):
            rerun(bare, clip, trace, Change(arm), replayed=given)
    short = make_clip(0, 1.0, sound=False)
    told = runtime.answer(short, QUESTION, sampling=GREEDY)
    replayed = replay(runtime, short, told)
    for change, said in (
        (Change("other_time"), r"There is no room in this clip \(1.0 s\) for another window as long as"),
        (Change("mute"), "has no sound, so mute changes nothing"),
        (Change("black_out", window=Window(2.0, 3.0)), "lies behind the end of the clip"),
    ):
        with pytest.raises(RequestError, match=said):
            rerun(runtime, short, told, change, replayed=replayed)
    for change, said in (
        (Change("zero", block=2), "There is no block 2; the answer has 2, counted from 0"),
        (Change("mute", block=2), "There is no block 2"),
        (Change("zero", block=0, latent=9), "There is no latent 9; a block has 9"),
        (Change("zero", block=0, latent=8, modality="visual"), "There is no visual latent 8 of block 0"),
    ):
        with pytest.raises(RequestError, match=said):
            rerun(runtime, clip, trace, change, replayed=given)


@pytest.mark.parametrize("calls", [0, 3, 30])
@pytest.mark.parametrize("change", [Change("zero"), Change("mute", window=Window(0.0, 2.0))], ids=lambda c: str(c.arm))
def test_a_rerun_is_stopped_between_two_steps(runtime, clip, trace, change, calls):
    asked = iter(range(1000))
    with pytest.raises(RequestError, match="Stopped before there was a new answer"):
        rerun(runtime, clip, trace, change, cancelled=lambda: next(asked) >= calls)
    assert timeless(rerun(runtime, clip, trace, Change("intact")).after).deltas == timeless(trace).deltas  # and nothing stays of it


def test_a_replay_serves_any_number_of_changes(runtime, clip, trace, given, change):
    kept = (list(given.row.token_ids), [z.clone() for z in given.row.latents])
    for arm in (Arm.OTHER_CLIP, Arm.MARKERS_REMOVED, ClipArm.BLACK_OUT):
        first, alone = change(arm), rerun(runtime, clip, trace, Change(arm))
        assert (alone.probabilities, alone.control, alone.moved) == (first.probabilities, first.control, first.moved)
        assert timeless(alone.after) == timeless(first.after)
    assert given.row.token_ids == kept[0] and all(map(torch.equal, given.row.latents, kept[1]))


@pytest.mark.parametrize("flow", AttentionFlow)
def test_arms_work_under_every_flow(tiny64, clip, flow):
    runtime = Runtime(replace(tiny64, spec=replace(tiny64.spec, flow=flow)))
    trace = runtime.answer(clip, QUESTION, sampling=GREEDY)
    given = replay(runtime, clip, trace)
    assert not rerun(runtime, clip, trace, Change("intact"), replayed=given).flipped
    for arm in ("markers_removed", "black_out"):
        assert rerun(runtime, clip, trace, Change(arm, block=0), replayed=given).after.tokens == 8


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"arm": "upside_down"}, "There is no arm 'upside_down'; choose one of intact, zero"),
        ({"arm": "zero", "modality": "smell"}, "A modality is visual or audio, got 'smell'"),
        ({"arm": "zero", "latent": 3}, "say which block"),
        ({"arm": "zero", "block": -1}, "A block is counted from 0, got -1"),
        ({"arm": "zero", "window": Window(0.0, 1.0)}, "zero changes latents and not the clip"),
        ({"arm": "mute", "modality": "audio"}, "mute changes the clip and not single latents"),
        ({"arm": "markers_removed", "block": 0, "latent": 1}, "markers_removed removes whole blocks"),
        ({"arm": "shift_sound", "shift_s": 0.0}, "A shift is some seconds, not 0.0"),
        ({"arm": "shift_sound", "shift_s": math.nan}, "A shift is some seconds, not nan"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(settings, said):
    with pytest.raises(RequestError, match=said):
        Change(**settings)


def test_a_change_says_what_was_done():
    window = (Window(2.0, 4.0),)
    assert Change("zero").sentence() == "All latents were replaced with zeros."
    assert Change("shuffled", block=1, modality="audio").sentence() == "The audio latents of block 1 were put in another order."
    assert Change("mean", block=0, latent=3).sentence() == "Latent 3 of block 0 was replaced with its mean over other clips."
    assert Change("mute").sentence(window) == "The sound of [2.0-4.0 s] was taken out of the clip."
    assert Change("shift_sound", shift_s=-0.25).sentence() == "The whole sound was moved 0.25 s earlier."
    assert Change("shift_sound").sentence(window) == "The sound of [2.0-4.0 s] was moved 0.5 s later."
