"""The self test: trials are like the held-out benchmark's but of clips of their own, and a verdict is right where all is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from latentomni.avworld import heldout_questions
from latentomni.avworld.questions import FAMILIES
from latentomni.avworld.selftest import draw_trial, judge
from latentomni.clock import Window
from latentomni.errors import RequestError
from latentomni.events import Match
from latentomni.runtime import Runtime
from latentomni.trace import Block, Latent

TRIALS = [draw_trial(seed) for seed in range(16)]


def test_trials_are_balanced_and_like_the_held_out_questions():
    assert Counter(trial.question.family for trial in TRIALS) == dict.fromkeys(FAMILIES, 2)
    assert {trial.question.answer for trial in TRIALS if trial.question.family == "sync"} == {"yes", "no"}
    assert {"after" in trial.question.text for trial in TRIALS if trial.question.family == "order"} == {True, False}
    for trial in TRIALS:
        assert trial.world.split == "test"
        assert any(scene.held_out and scene.window == trial.question.windows[0] for scene in trial.world.scenes)
        assert trial.clip.duration_s == trial.world.duration_s and trial.clip.frames.shape[1:] == (448, 448, 3)


def test_a_trial_is_drawn_by_its_seed_from_clips_that_nothing_else_uses():
    again = draw_trial(3)
    assert (again.world, again.question) == (TRIALS[3].world, TRIALS[3].question)
    assert np.array_equal(again.clip.frames, TRIALS[3].clip.frames) and again.clip.sha256 == TRIALS[3].clip.sha256
    seeds = {trial.world.seed for trial in TRIALS}
    assert len(seeds) == 16 and not seeds & {world.seed for world, _ in heldout_questions()}
    with pytest.raises(RequestError, match="from 0 on, got -1"):
        draw_trial(-1)


def block(window, **moments):
    """A block whose latents of a modality match one moment each: visual=[1.0, 3.0] in seconds."""
    latents = [
        Latent(modality, i, None, 0.0, np.zeros(2, np.float16), (Match(0, s - 0.25, s + 0.25, (0.0, 0.0, 1.0, 1.0), 0.9, 1),), None, None, None, 0.0)
        for modality, times in moments.items()
        for i, s in enumerate(times)
    ]
    return Block(window, "model", 0, 0.0, 0.0, tuple(latents))


@pytest.fixture(scope="module")
def empty(tiny):
    """A trace of some answer, to be given other blocks and another text."""
    return replace(Runtime(tiny).answer(TRIALS[0].clip, "What is seen?", "direct"), answer="", blocks=())


def test_the_truth_is_judged_right(empty):
    for trial in TRIALS:
        question = trial.question
        blocks = tuple(block(w, visual=[w.midpoint_s], audio=[w.start_s]) for w in question.windows)
        told = judge(replace(empty, answer=f"I look. {question.closing}", blocks=blocks), trial)
        assert (told.answer_right, told.window_iou, told.evidence_hit) == (True, 1.0, {"visual": 1.0, "audio": 1.0})
        assert (told.blocks, told.true_answer, told.true_windows) == (len(blocks), question.answer, question.windows)


def test_an_answer_is_judged_in_parts(empty):
    trial = next(trial for trial in TRIALS if trial.question.family == "pair")
    first, second = trial.question.windows
    late = Window(first.start_s + 1, first.end_s + 1)
    elsewhere = second.end_s % trial.clip.duration_s + 0.5
    blocks = (
        block(late, visual=[first.midpoint_s, first.midpoint_s, elsewhere], audio=[first.end_s]),
        block(second, visual=[elsewhere]),
    )
    told = judge(replace(empty, answer="First grey, then pink.", blocks=blocks), trial)
    assert (told.answer_right, told.evidence_hit) == (False, {"visual": 0.5, "audio": 0.0})
    assert told.window_iou == pytest.approx((1 / 3 + 1) / 2)
    alone = judge(replace(empty, answer=trial.question.closing, blocks=blocks[:1]), trial)
    assert (alone.answer_right, alone.window_iou, alone.blocks) == (True, pytest.approx(1 / 6), 1)


def test_an_answer_without_blocks_has_no_evidence(empty):
    told = judge(replace(empty, answer=TRIALS[0].question.closing), TRIALS[0])
    assert (told.answer_right, told.window_iou, told.evidence_hit, told.blocks) == (True, 0.0, {"visual": None, "audio": None}, 0)
