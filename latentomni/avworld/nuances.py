"""Questions that words answer badly: which of two moments is bluer, louder, higher or sooner, by however little.

The answer is the moment's place in the question, "first" or "second": a name to copy is a skill beside the comparison, and takes a
small model longer to learn. Louder and higher are meant for the sound's kind, since two scenes never have the same; an onset
counts from when the object appears. Each needs both modalities: a moment is named by its sound where the picture is compared, and
by its object where the sound is. Practice for them: a gauge asks what one moment is like, in the words of a caption, and a contrast how
two moments differ by every measure, so that one answer teaches what four questions would (docs/LOG.md).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, count, islice, permutations

import numpy as np

from latentomni.avworld.questions import Question, Step
from latentomni.avworld.vocabulary import ORDINALS
from latentomni.avworld.world import SPLITS, Scene, World, sample_world

__all__ = ["NUANCES", "Nuance", "contrasts", "gauges", "heldout_nuances", "nuances"]

HELDOUT_SEED = 40_000
_BLUE = 2 / 3 - 0.06  # the hue whose gradient, which runs on by 0.12, is blue in its middle


@dataclass(frozen=True)
class _Kind:
    """measure: what is compared, the greater wins. span: of the measure over all scenes. words: for a lower and a higher one, split
    at `middle`. by_sound: the picture is compared, so scenes are named by their sounds."""

    measure: Callable[[Scene], float]
    span: float
    middle: float
    words: tuple[str, str]
    by_sound: bool
    asked: tuple[str, ...]
    closing: str


NUANCES = {
    "shade": _Kind(
        lambda s: math.cos(2 * math.pi * (s.hue - _BLUE)), 2.0, 0.0, ("yellowish", "bluish"), True,
        ("Is the background bluer with the {a} or with the {b}?", "When is the background bluer: when you hear the {a} or the {b}?",
         "With which sound is the background bluer, the {a} or the {b}?"),
        "It is bluer with the {answer}.",
    ),
    "loudness": _Kind(
        lambda s: s.loudness, 0.5, 0.75, ("soft", "loud"), False,
        ("Is the sound louder than usual rather with the {a} or with the {b}?", "When is the sound louder for its kind: when you see the {a} or the {b}?",
         "With which object is the sound louder for its kind, the {a} or the {b}?"),
        "It is louder with the {answer}.",
    ),
    "pitch": _Kind(
        lambda s: math.log2(s.pitch), math.log2(1.25 / 0.8), 0.0, ("low", "high"), False,
        ("Is the sound higher than usual rather with the {a} or with the {b}?", "When is the sound higher for its kind: when you see the {a} or the {b}?",
         "With which object is the sound higher for its kind, the {a} or the {b}?"),
        "It is higher with the {answer}.",
    ),
    "onset": _Kind(
        lambda s: s.window.start_s - s.onset_s, 0.8, -0.4, ("late", "early"), False,
        ("Does the sound begin sooner after the {a} appears or after the {b} appears?",
         "After which object appears does the sound begin sooner, the {a} or the {b}?",
         "Which object waits less for its sound, the {a} or the {b}?"),
        "It begins sooner after the {answer}.",
    ),
}  # fmt: skip


# Of four halves, by whether moments are named by their sounds: who only sees knows the shade of an object that is named, who only hears
# loudness and pitch of a sound; an onset takes both, and the rest is guessed.
_CHANCES = {True: (1 / 16, 1 / 4), False: (1 / 8, 1 / 16)}


@dataclass(frozen=True)
class Nuance(Question):
    """difference: between the two moments, as a share of what scenes can differ by."""

    difference: float = 0.0


def nuances(world: World) -> tuple[Nuance, ...]:
    """Every question of every kind about every two scenes of `world.askable`, named in a random order."""
    rng = np.random.default_rng([SPLITS.index(world.split), world.seed, 4])
    pairs = list(combinations(world.askable, 2))
    return tuple(_ask(kind, pair if rng.random() < 0.5 else pair[::-1], rng) for kind in NUANCES for pair in pairs)


def gauges(world: World) -> tuple[Question, ...]:
    """What every scene of `world.askable` is like by all measures, named by its sound and by its object."""
    return tuple(_gauge(scene, by_sound) for scene in world.askable for by_sound in (True, False))


def contrasts(world: World) -> tuple[Question, ...]:
    """How every two scenes of `world.askable` differ by all measures, in both orders, named by their sounds and by their objects."""
    return tuple(_contrast(pair, by_sound) for pair in permutations(world.askable, 2) for by_sound in (True, False))


def heldout_nuances(n: int = 400, seed: int = HELDOUT_SEED) -> list[tuple[World, Nuance]]:
    """`n` questions of the test split, balanced over kinds and over which of the two named moments it is; four a clip."""
    return list(islice((drawn for number in count() for drawn in _draw(seed, number)), n))


def _draw(seed: int, number: int) -> Iterator[tuple[World, Nuance]]:
    """One question of every kind about the clip `seed` + `number`; whether the greater is named first takes turns."""
    world, rng = sample_world(seed + number, "test"), np.random.default_rng([seed, number, 5])
    for k, kind in enumerate(NUANCES):
        first, second = rng.permutation(len(world.askable))[:2]
        pair = _greater_first(kind, world.askable[first], world.askable[second])
        yield world, _ask(kind, pair if (number + k) % 2 else pair[::-1], rng)


def _greater_first(kind: str, a: Scene, b: Scene) -> tuple[Scene, Scene]:
    return (a, b) if NUANCES[kind].measure(a) > NUANCES[kind].measure(b) else (b, a)


def _ask(kind: str, pair: tuple[Scene, Scene], rng: np.random.Generator) -> Nuance:
    """A question that names the scenes in the order of `pair`."""
    asked, steps = NUANCES[kind], tuple(_step(NUANCES[kind].by_sound, s) for s in pair)
    best, other = _greater_first(kind, *pair)
    answer = ORDINALS[pair.index(best)]
    return Nuance(
        kind,
        asked.asked[int(rng.integers(len(asked.asked)))].format(a=steps[0].asked, b=steps[1].asked),
        answer,
        steps,
        asked.closing.format(answer=answer),
        0.5,
        0.5,
        (asked.measure(best) - asked.measure(other)) / asked.span,
    )


def _gauge(scene: Scene, by_sound: bool) -> Question:
    step = _step(by_sound, scene)
    return Question("gauge", f"What is it like with the {step.asked}?", _words(scene), (step,), f"It is {_words(scene)}.", *_CHANCES[by_sound])


def _contrast(pair: tuple[Scene, Scene], by_sound: bool) -> Question:
    steps = tuple(_step(by_sound, s) for s in pair)
    places = [ORDINALS[pair.index(_greater_first(kind, *pair)[0])] for kind in NUANCES]
    closing = " ".join(kind.closing.format(answer=place) for kind, place in zip(NUANCES.values(), places, strict=True))
    return Question("contrast", f"How do the {steps[0].asked} and the {steps[1].asked} differ?", ", ".join(places), steps, closing, *_CHANCES[by_sound])


def _step(by_sound: bool, scene: Scene) -> Step:
    verb, name = ("listen", scene.sound) if by_sound else ("look", scene.object)
    return Step(f"I {verb} for the {name}.", scene.window, name, f"{scene.object}, {scene.sound}, {_words(scene)}.")


def _words(scene: Scene) -> str:
    """The measures as words have them: each is one of two."""
    return ", ".join(kind.words[kind.measure(scene) > kind.middle] for kind in NUANCES.values())
