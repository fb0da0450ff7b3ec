"""Questions: answerable, balanced, and with the chance that a perfect guesser with one modality really has."""

from collections import Counter
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest

from latentomni.avworld import heldout_questions, parse_answer, questions, sample_world
from latentomni.avworld.answers import answers
from latentomni.avworld.chance import picture_posterior, sound_posterior
from latentomni.avworld.questions import FAMILIES, Question, draw_questions
from latentomni.avworld.truth import events, narration, question_row, truth_sha256
from latentomni.avworld.vocabulary import COLOURS, COUNTS, SHAPES, SOUNDS, held_out
from latentomni.avworld.world import SPLITS, Scene, World
from latentomni.clock import Window

HELDOUT = heldout_questions()


def test_the_held_out_benchmark_is_fixed() -> None:
    assert truth_sha256(HELDOUT) == "b71750f4e77cec4a011b374ebc3a5e6898a61e8357cbfabe3711d4217d8f6465"


def test_the_benchmark_is_balanced() -> None:
    assert Counter(q.family for _, q in HELDOUT) == dict.fromkeys(FAMILIES, 125)
    assert Counter(q.answer for _, q in HELDOUT if q.family == "sync") == {"yes": 63, "no": 62}
    assert Counter("after" in q.text for _, q in HELDOUT if q.family == "order") == {True: 63, False: 62}
    clips = {}
    for world, question in HELDOUT:
        clips.setdefault(world.seed, []).append(question.family)
    assert all(len(set(families)) == len(families) for families in clips.values()) and len(clips) == 334


def test_chance_on_the_benchmark_is_low() -> None:
    for _, question in HELDOUT:
        limit = {"count": 2 / 3, "pair": 1 / 6}.get(question.family, 0.5)
        assert question.chance <= limit + 1e-9
        assert question.chance == pytest.approx(0.5) or question.family != "sync"
        assert question.chance_picture == pytest.approx(1 / 3) or question.family != "count"
    assert np.mean([q.chance for _, q in HELDOUT]) < 0.34


def _check_answer(question: Question, first: Scene, last: Scene) -> None:
    """The answer against the scenes of the first and the last step."""
    if question.family == "sync":
        assert (first.object in question.text) == (question.answer == "yes") and first.object in question.closing
    elif question.family == "order":
        assert question.answer == last.colour and first.sound in question.text
        assert last.index - first.index == (1 if "right after" in question.text else -1)
    elif question.family == "pair":
        assert question.answer == f"{first.colour} and {last.colour}" and first is not last
        assert 0 <= question.text.index(first.sound) < question.text.index(last.sound)
    else:
        assert getattr(first, question.family) == question.answer
        assert (first.sound in question.text) != (first.object in question.text)


@pytest.mark.parametrize("split", SPLITS)
def test_every_question_carries_its_truth(split: str) -> None:
    for seed in range(30):
        world = sample_world(seed, split)
        by_window = {s.window: s for s in world.scenes}
        asked = questions(world)
        assert asked == questions(world)
        assert len(asked) == sum(8 + len(world.neighbours(s)) for s in world.askable)
        for question in asked:
            scenes = [by_window[window] for window in question.windows]
            assert scenes[0] in world.askable and len(scenes) == 1 + (question.family in ("order", "pair"))
            assert question.answer in answers(question.family)
            assert parse_answer(question.family, question.closing) == question.answer
            _check_answer(question, scenes[0], scenes[-1])


def test_steps_say_what_they_look_for_and_what_is_there() -> None:
    for world, question in HELDOUT[:300]:
        lines = narration(world).splitlines()
        assert all(f"{step.window} {step.seen}" in lines for step in question.steps)
        first, then = question.steps[0], question.steps[1:]
        kind = "look" if question.family in ("sound", "count") else "listen"
        assert first.lead == f"I {kind} for the {first.asked}." and first.asked in first.seen
        if question.family == "pair":
            assert then[0].lead == f"I listen for the {then[0].asked}." and then[0].asked in then[0].seen
        for step in then if question.family == "order" else ():
            way = "after" if step.window.start_s > first.window.start_s else "before"
            assert (step.lead, step.asked) == (f"Then I look right {way} it.", "")


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
        ("sync", "I look for the red star, I see the blue circle, so no.", "no"),
        ("count", "Three times, or twice.", "three times"),
        ("count", "many times", None),
        ("order", "Before that the object is purple.", "purple"),
        ("pair", "First red, then blue, not green.", "red and blue"),
        ("pair", "Red and red.", None),
        ("pair", "It is orange.", None),
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
    assert lines[0] == f"[0.0-2.0 s] {world.scenes[0].object}, {world.scenes[0].place}, buzz, three times."
    assert [e["sound"] for e in events(world)] == [s.sound for s in world.scenes]
    row = question_row(world, questions(world)[0])
    assert row["steps"][0]["window_s"] == [0.0, 2.0] and row["events"] == events(world)


def _clips(split: str, count: int, objects: list | None, sounds: list | None) -> list[tuple[list, list]]:
    """Every clip of 3 or 4 scenes the split may draw, written again from the rules; objects or sounds may be given."""
    shown = [objects] if objects else [
        list(zip(c, h, strict=True)) for c in permutations(range(6), count) for h in permutations(range(4), count)
    ]  # fmt: skip
    played = [sounds] if sounds else [list(p) for p in permutations(range(6), count)]
    clips = []
    for o in shown:
        for s in played:
            unseen = [[held_out(*a, b) for a in o] for b in s]
            fits_train = not any(unseen[k][k] for k in range(count)) and all(count - sum(row) >= 2 for row in unseen)
            fits_test = sum(map(all, unseen)) == 3 and sum(map(any, unseen)) == 3
            if fits_test if split == "test" else fits_train:
                clips.append((o, s))
    return clips


def _all_questions(o: list, s: list, repeats: tuple, family: str, split: str) -> Iterator[tuple[tuple, str, float]]:
    """What each question of `family` about a clip says, its answer, and how often it is drawn beside the others."""
    n = len(o)
    asked = [k for k in range(n) if held_out(*o[k], s[k]) == (split == "test")]
    for k in asked:
        if family == "sync":
            others = [j for j in range(n) if j != k and held_out(*o[j], s[k]) == held_out(*o[k], s[k])]
            yield (s[k], o[k]), "yes", 1
            yield from (((s[k], o[j]), "no", 1 / len(others)) for j in others)
        elif family == "order":
            for way in (-1, 1):
                drawn = [j for j in asked if 0 <= j + way < n]
                if k in drawn:
                    yield (s[k], way), COLOURS[o[k + way][0]], 1 / len(drawn)
        elif family == "pair":
            for j in set(asked) - {k}:
                yield (s[k], s[j]), f"{COLOURS[o[k][0]]} and {COLOURS[o[j][0]]}", 1 / (len(asked) - 1)
        elif family in ("sound", "count"):
            yield (o[k],), SOUNDS[s[k]] if family == "sound" else COUNTS[repeats[k] - 1], 1
        else:
            yield (s[k],), COLOURS[o[k][0]] if family == "colour" else SHAPES[o[k][1]], 1


def _says(family: str, scene: Scene, other: Scene | None, objects: list, sounds: list) -> tuple:
    if family in ("sound", "count"):
        return (objects[scene.index],)
    if family == "sync":
        return sounds[scene.index], objects[other.index]
    if family == "order":
        return sounds[scene.index], other.index - scene.index
    return (sounds[scene.index], sounds[other.index]) if other else (sounds[scene.index],)


def _cases(world: World, scene: Scene) -> list[tuple[str, Scene | None]]:
    cases = [(family, None) for family in ("colour", "shape", "sound", "count")]
    cases += [("sync", other) for other in (scene, *world.others(scene))]
    cases += [("order", other) for other in world.neighbours(scene)]
    return cases + [("pair", other) for other in world.askable if other is not scene]


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("split", ["train", "test"])
def test_chance_equals_brute_force(split: str, count: int) -> None:
    """Ask every question in every clip that looks (or sounds) the same, and count the answers where it reads the same."""
    world = next(w for w in (sample_world(seed, split) for seed in range(30)) if len(w.scenes) == count)
    objects = [(COLOURS.index(s.colour), SHAPES.index(s.shape)) for s in world.scenes]
    sounds, heard = [SOUNDS.index(s.sound) for s in world.scenes], [tuple(s.repeats for s in world.scenes)]
    spreads = [r for r in product((1, 2, 3), repeat=count) if len(set(r)) == 3]
    for posterior, clips, repeats in (
        (picture_posterior, _clips(split, count, objects, None), spreads),
        (sound_posterior, _clips(split, count, None, sounds), heard),
    ):
        found: dict = {}
        for family in (f for f in FAMILIES if f != "place"):
            for (o, s), r in product(clips, repeats if family == "count" else heard):
                for says, answer, weight in _all_questions(o, s, r, family, split):
                    tally = found.setdefault((family, says), {})
                    tally[answer] = tally.get(answer, 0) + weight
        for scene in world.askable:
            for family, other in _cases(world, scene):
                tally = found[family, _says(family, scene, other, objects, sounds)]
                ours = {a: p for a, p in posterior(world, family, scene, other).items() if p}
                assert ours == pytest.approx({a: weight / sum(tally.values()) for a, weight in tally.items()})


def _scenes_asked(world: World, question: Question) -> tuple[Scene, Scene | None]:
    scene, *others = (s for window in question.windows for s in world.scenes if s.window == window)
    if question.family == "sync":
        return scene, next(s for s in world.scenes if s.object in question.text)
    return scene, others[0] if others else None


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_best_guesser_is_right_as_often_as_chance_says(split: str) -> None:
    drawn = draw_questions(split, 4000, seed=100)
    for posterior, chance in ((picture_posterior, "chance_picture"), (sound_posterior, "chance_sound")):
        right, expected = Counter(), Counter()
        for world, question in drawn:
            belief = posterior(world, question.family, *_scenes_asked(world, question))
            right[question.family] += max(belief, key=belief.get) == question.answer
            expected[question.family] += getattr(question, chance)
            assert max(belief.values()) == getattr(question, chance)
        for family in FAMILIES:
            spread = np.sqrt(expected[family] * (1 - expected[family] / 500))
            assert abs(right[family] - expected[family]) < 3.5 * spread
