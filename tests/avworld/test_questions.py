"""Questions: answerable, balanced, and with the chance that a perfect guesser with one modality really has."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from latentomni.avworld import heldout_questions, parse_answer, questions, sample_world
from latentomni.avworld.chance import picture_posterior, sound_posterior
from latentomni.avworld.questions import FAMILIES, answers, draw_questions
from latentomni.avworld.truth import events, narration, question_row, truth_sha256
from latentomni.avworld.vocabulary import COLOURS, SHAPES, SOUNDS, held_out
from latentomni.avworld.world import SPLITS, Scene, World
from latentomni.clock import Window

HELDOUT = heldout_questions()


def test_the_held_out_benchmark_is_fixed() -> None:
    assert truth_sha256(HELDOUT) == "504c98053c7bb6ac667301836e1bf6abfcb646de8380344b1dcb7fce4b9c5126"


def test_the_benchmark_is_balanced_and_its_chance_is_low() -> None:
    assert Counter(q.family for _, q in HELDOUT) == dict.fromkeys(FAMILIES, 200)
    assert Counter(q.answer for _, q in HELDOUT if q.family == "sync") == {"yes": 100, "no": 100}
    clips = {}
    for world, question in HELDOUT:
        clips.setdefault(world.seed, []).append(question.family)
    assert all(len(set(families)) == len(families) for families in clips.values()) and len(clips) == 334
    for _, question in HELDOUT:
        assert question.chance == pytest.approx(0.5) if question.family == "sync" else question.chance <= 0.5
    assert np.mean([q.chance for _, q in HELDOUT]) < 0.36


@pytest.mark.parametrize("split", SPLITS)
def test_every_question_carries_its_truth(split: str) -> None:
    for seed in range(60):
        world = sample_world(seed, split)
        by_window = {str(s.window): s for s in world.askable}
        asked = questions(world)
        assert asked == questions(world)
        assert len(asked) == 6 * len(world.askable)
        for question in asked:
            scene = by_window[str(question.window)]
            assert question.answer in answers(question.family)
            assert parse_answer(question.family, question.closing) == question.answer
            assert question.lead in (f"I listen for the {scene.sound}.", f"I look for the {scene.object}.")
            if question.family == "sync":
                assert (scene.object in question.text) == (question.answer == "yes")
            else:
                assert getattr(scene, question.family) == question.answer
                assert (scene.sound in question.text) != (scene.object in question.text)


def test_yes_and_no_name_combinations_equally_familiar_to_training() -> None:
    for split in SPLITS:
        for seed in range(100):
            world = sample_world(seed, split)
            for scene in world.askable:
                assert {s.held_out_with(scene.sound) for s in (scene, *world.others(scene))} == {split == "test"}
                assert world.others(scene) and scene not in world.others(scene)


@pytest.mark.parametrize(
    ("family", "text", "answer"),
    [
        ("colour", "Orange, I think; not red.", "orange"),
        ("shape", "it is two triangles", "triangle"),
        ("place", "at the bottom-right of the screen", "bottom right"),
        ("sound", "It is a series of clicks.", "clicks"),
        ("sync", "Nothing says so: no.", "no"),
        ("sync", "not that I know", None),
        ("colour", "It is bored.", None),
        ("sound", "", None),
    ],
)
def test_answers_are_found_in_free_text(family: str, text: str, answer: str | None) -> None:
    assert parse_answer(family, text) == answer


def test_narration_and_events_tell_the_scenes_in_order() -> None:
    world = sample_world(1, "train")
    lines = narration(world).splitlines()
    assert [Window.parse(line.split("] ")[0] + "]") for line in lines] == [s.window for s in world.scenes]
    assert lines[0] == f"[0.0-2.0 s] {world.scenes[0].object}, {world.scenes[0].place}, {world.scenes[0].sound}."
    assert [e["sound"] for e in events(world)] == [s.sound for s in world.scenes]
    row = question_row(world, questions(world)[0])
    assert row["window_s"] == [0.0, 2.0] and row["events"] == events(world)


def _clips_of_three(split: str, objects: list | None, sounds: list | None) -> list[tuple[list, list]]:
    """Every clip of three scenes the split may draw, written again from the rules; objects or sounds may be given."""
    shown = [objects] if objects else [
        list(zip(c, h, strict=True)) for c in permutations(range(6), 3) for h in permutations(range(4), 3)
    ]  # fmt: skip
    played = [sounds] if sounds else [list(p) for p in permutations(range(6), 3)]
    clips = []
    for o in shown:
        for s in played:
            unseen = [[held_out(*a, b) for a in o] for b in s]
            fits_train = not any(unseen[k][k] for k in range(3)) and all(sum(row) < 2 for row in unseen)
            if all(map(all, unseen)) if split == "test" else fits_train:
                clips.append((o, s))
    return clips


def _brute_force(clips: list[tuple[list, list]], family: str, named: tuple | None, heard: int | None) -> dict:
    """Ask every question of `family` in every clip, keep those that read the same, count the answers."""
    found: Counter = Counter()
    for o, s in clips:
        for k in range(3):
            if family == "sound" and o[k] == named:
                found[SOUNDS[s[k]]] += 1
            elif family == "sync" and s[k] == heard:
                others = [j for j in range(3) if j != k and held_out(*o[j], heard) == held_out(*o[k], heard)]
                found["yes"] += o[k] == named
                found["no"] += sum(o[j] == named for j in others) / len(others)
            elif family in ("colour", "shape") and s[k] == heard:
                found[COLOURS[o[k][0]] if family == "colour" else SHAPES[o[k][1]]] += 1
    return {answer: count / found.total() for answer, count in found.items() if count}


@pytest.mark.parametrize("split", ["train", "test"])
def test_chance_equals_brute_force(split: str) -> None:
    worlds = [w for w in (sample_world(seed, split) for seed in range(30)) if len(w.scenes) == 3][:3]
    for world in worlds:
        objects = [(COLOURS.index(s.colour), SHAPES.index(s.shape)) for s in world.scenes]
        sounds = [SOUNDS.index(s.sound) for s in world.scenes]
        seen, heard = _clips_of_three(split, objects, None), _clips_of_three(split, None, sounds)
        for scene in world.scenes:
            cases = [(f, None) for f in ("colour", "shape", "sound")]
            cases += [("sync", other) for other in (scene, *world.others(scene))]
            for family, other in cases:
                named = objects[(other or scene).index]
                for clips, posterior in ((seen, picture_posterior), (heard, sound_posterior)):
                    ours = {a: p for a, p in posterior(world, family, scene, other).items() if p}
                    assert ours == pytest.approx(_brute_force(clips, family, named, sounds[scene.index]))


def _scenes_asked(world: World, question) -> tuple[Scene, Scene]:
    scene = next(s for s in world.scenes if s.window == question.window)
    return scene, next((s for s in world.scenes if s.object in question.text), scene)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_best_guesser_is_right_as_often_as_chance_says(split: str) -> None:
    drawn = draw_questions(split, 4000, seed=100)
    for posterior, chance in ((picture_posterior, "chance_picture"), (sound_posterior, "chance_sound")):
        right, expected = Counter(), Counter()
        for world, question in drawn:
            scene, named = _scenes_asked(world, question)
            belief = posterior(world, question.family, scene, named if question.family == "sync" else None)
            right[question.family] += max(belief, key=belief.get) == question.answer
            expected[question.family] += getattr(question, chance)
            assert max(belief.values()) == getattr(question, chance)
        for family in FAMILIES:
            assert abs(right[family] - expected[family]) < 3.5 * np.sqrt(800 * 0.25)
