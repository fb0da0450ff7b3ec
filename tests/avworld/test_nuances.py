"""Nuances: two moments, one measure, and an answer that is as often the first as the second."""

from collections import Counter

import numpy as np
import pytest

from latentomni.avworld import parse_answer, sample_world
from latentomni.avworld.answers import answers
from latentomni.avworld.nuances import NUANCES, heldout_nuances, nuances
from latentomni.avworld.vocabulary import COUNTS
from latentomni.avworld.world import SPLITS


@pytest.mark.parametrize("split", SPLITS)
def test_the_answer_is_the_moment_where_the_measure_is_greater(split):
    for seed in range(20):
        world = sample_world(seed, split)
        asked = nuances(world)
        pairs = len(world.askable) * (len(world.askable) - 1) // 2
        assert asked == nuances(world) and len(asked) == pairs * len(NUANCES)
        for question in asked:
            kind = NUANCES[question.family]
            scenes = [next(s for s in world.askable if s.window == step.window) for step in question.steps]
            names = [s.sound if kind.by_sound else s.object for s in scenes]
            best = max(scenes, key=kind.measure)
            assert question.answer == names[scenes.index(best)] and question.answer in answers(question.family)
            assert question.difference == pytest.approx(abs(np.subtract(*map(kind.measure, scenes))) / kind.span)
            assert 0 < question.difference <= 1
            assert question.text.index(names[0]) < question.text.index(names[1])
            assert parse_answer(question.family, question.closing) == question.answer
            assert [step.asked for step in question.steps] == names


def test_the_measures_are_what_a_viewer_would_name():
    scenes = [scene for seed in range(40) for scene in sample_world(seed, "train").scenes]
    blue = max(scenes, key=NUANCES["shade"].measure)
    assert abs(blue.hue - 2 / 3) < 0.05
    assert max(scenes, key=NUANCES["onset"].measure).onset_s % 2 < 0.15
    assert max(scenes, key=NUANCES["loudness"].measure).loudness > 0.97
    assert max(scenes, key=NUANCES["pitch"].measure).pitch > 1.2


def test_words_split_each_measure_in_two_halves_of_like_size():
    scenes = [scene for seed in range(200) for scene in sample_world(seed, "train").scenes]
    for kind in NUANCES.values():
        assert 0.35 < np.mean([kind.measure(s) > kind.middle for s in scenes]) < 0.65
    world = sample_world(0, "train")
    for question in nuances(world):
        for step in question.steps:
            scene = next(s for s in world.scenes if s.window == step.window)
            words = [kind.words[kind.measure(scene) > kind.middle] for kind in NUANCES.values()]
            assert step.seen == f"{scene.object}, {scene.sound}, {', '.join(words)}." and not any(c in step.seen for c in COUNTS)


def test_the_held_out_nuances_are_balanced():
    drawn = heldout_nuances(200)
    assert drawn == heldout_nuances(200) and drawn[:80] == heldout_nuances(80)
    assert Counter(q.family for _, q in drawn) == dict.fromkeys(NUANCES, 50)
    first = [q.answer == q.steps[0].asked for _, q in drawn]
    assert np.mean(first) == 0.5
    for kind in NUANCES:
        assert np.mean([f for f, (_, q) in zip(first, drawn, strict=True) if q.family == kind]) == 0.5
    for world, question in drawn:
        assert world.split == "test" and {s.window for s in world.askable} >= set(question.windows)
    assert np.mean([q.difference < 0.25 for _, q in drawn]) > 0.2  # many are smaller than any word
