"""Nuances: two moments, one measure, and an answer that is as often the first as the second."""

from collections import Counter

import numpy as np
import pytest

from latentomni.avworld import parse_answer, render_frames, render_sound, sample_world
from latentomni.avworld.answers import answers
from latentomni.avworld.nuances import NUANCES, contrasts, gauges, heldout_nuances, nuances
from latentomni.avworld.vocabulary import COUNTS, SOUNDS
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
            assert question.answer == ("first", "second")[scenes.index(best)] and question.answer in answers(question.family)
            assert question.difference == pytest.approx(abs(np.subtract(*map(kind.measure, scenes))) / kind.span)
            assert 0 < question.difference <= 1
            assert question.text.index(names[0]) < question.text.index(names[1])
            assert parse_answer(question.family, question.closing) == question.answer
            assert [step.asked for step in question.steps] == names


def agreement(a, b):
    """Share of pairs that two measures order alike."""
    first, second = np.triu_indices(len(a), 1)
    return np.mean((a[first] > a[second]) == (b[first] > b[second]))


def test_the_measures_are_what_is_seen_and_heard():
    measured = {name: [] for name in NUANCES}
    seen: dict[str, list[float]] = {"blue": [], "rms": [], "wait": []}
    sounds = []
    for seed in range(40):
        world = sample_world(seed, "train")
        wave = render_sound(world)
        for scene in world.scenes:
            for name, kind in NUANCES.items():
                measured[name].append(kind.measure(scene))
            frame = render_frames(world, np.array([scene.window.start_s + 1.0]), 64)[0].astype(float)
            edge = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]]).mean(0)
            seen["blue"].append(edge[2] - (edge[0] + edge[1]) / 2)
            here = wave[round(scene.window.start_s * 16_000) : round(scene.window.end_s * 16_000)]
            loud = np.abs(here) > 0.25 * np.abs(here).max()
            seen["rms"].append(np.sqrt(np.mean(here[loud] ** 2)))
            seen["wait"].append(-np.argmax(loud) / 16_000)
            sounds.append(scene.sound)
    told = {name: np.array(values) for name, values in (measured | seen).items()}
    assert agreement(told["shade"], told["blue"]) > 0.85
    assert agreement(told["onset"], told["wait"]) > 0.9
    for sound in SOUNDS:  # of one kind, as the questions mean it
        of = np.array(sounds) == sound
        assert agreement(told["loudness"][of], told["rms"][of]) > 0.8


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


def test_a_gauge_asks_for_what_a_caption_of_the_moment_says():
    world = sample_world(3, "train")
    asked = gauges(world)
    assert len(asked) == 2 * len(world.askable) and len({q.text for q in asked}) == len(asked)
    for question in asked:
        (step,) = question.steps
        scene = next(s for s in world.askable if s.window == step.window)
        assert step.asked in (scene.sound, scene.object) and question.text.endswith(f"with the {step.asked}?")
        assert step.seen == f"{scene.object}, {scene.sound}, {question.answer}." and question.closing == f"It is {question.answer}."
        for kind in NUANCES.values():
            assert kind.words[kind.measure(scene) > kind.middle] in question.answer.split(", ")


def test_a_contrast_says_what_the_four_comparisons_of_its_moments_say():
    world = sample_world(3, "train")
    asked, n = contrasts(world), len(world.askable)
    assert len(asked) == 2 * n * (n - 1) and len({q.text for q in asked}) == len(asked)
    compared = {(q.family, q.windows): q for q in nuances(world)}
    for question in asked:
        for kind, place, said in zip(NUANCES, question.answer.split(", "), question.closing.split(". "), strict=True):
            same, turned = compared.get((kind, question.windows)), compared.get((kind, question.windows[::-1]))
            assert (same or turned) and (place == same.answer if same else place != turned.answer)
            assert not same or said.rstrip(".") == same.closing.rstrip(".")


def test_the_held_out_nuances_are_balanced():
    drawn = heldout_nuances(200)
    assert drawn == heldout_nuances(200) and drawn[:80] == heldout_nuances(80)
    assert Counter(q.family for _, q in drawn) == dict.fromkeys(NUANCES, 50)
    first = [q.answer == "first" for _, q in drawn]
    assert np.mean(first) == 0.5
    for kind in NUANCES:
        assert np.mean([f for f, (_, q) in zip(first, drawn, strict=True) if q.family == kind]) == 0.5
    for world, question in drawn:
        assert world.split == "test" and {s.window for s in world.askable} >= set(question.windows)
    assert np.mean([q.difference < 0.25 for _, q in drawn]) > 0.2  # many are smaller than any word
