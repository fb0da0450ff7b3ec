"""Questions about a world that need both its picture and its sound, with their answers, windows and chance."""

import re
from dataclasses import dataclass

import numpy as np

from latentomni.avworld.chance import picture_posterior, sound_posterior
from latentomni.avworld.vocabulary import COLOURS, PLACES, SHAPES, SOUNDS
from latentomni.avworld.world import SPLITS, Scene, World, sample_world
from latentomni.clock import Window

__all__ = ["FAMILIES", "Question", "answers", "draw_questions", "heldout_questions", "parse_answer", "questions"]

FAMILIES = ("colour", "shape", "place", "sound", "sync")
HELDOUT_SEED = 20_000
_ANSWERS = {"colour": COLOURS, "shape": SHAPES, "place": PLACES, "sound": SOUNDS, "sync": ("yes", "no")}
_ASKED = {
    "colour": (
        "What colour is the object when the {sound} {plays}?",
        "When you hear the {sound}, what colour is on screen?",
        "Which colour is shown while the {sound} {plays}?",
    ),
    "shape": (
        "Which shape is shown when the {sound} {plays}?",
        "When you hear the {sound}, what shape is on screen?",
        "What shape do you see while the {sound} {plays}?",
    ),
    "place": (
        "Where is the object when the {sound} {plays}?",
        "When you hear the {sound}, where on screen is the object?",
        "In which corner is the object while the {sound} {plays}?",
    ),
    "sound": (
        "Which sound plays while the {object} is shown?",
        "When you see the {object}, what do you hear?",
        "What sound goes with the {object}?",
    ),
    "sync": (
        "Is the {object} shown when the {sound} {plays}?",
        "When you hear the {sound}, is the {object} on screen?",
        "Is the {object} on screen while the {sound} {plays}?",
    ),
}
_REPLY = {
    "colour": "The object is {answer}.",
    "shape": "The shape is a {answer}.",
    "place": "It is at the {answer}.",
    "sound": "It is a {answer}.",
}


@dataclass(frozen=True)
class Question:
    """One question with all its truth.

    answer: the short answer, one of `answers(family)`. lead: what is said before the latent block. window: the span of
    the scene asked about. closing: the answer as a sentence. chance: accuracy of the best guesser with the question and
    the better single modality; chance_picture and chance_sound: with that one.
    """

    family: str
    text: str
    answer: str
    lead: str
    window: Window
    closing: str
    chance_picture: float
    chance_sound: float

    @property
    def chance(self) -> float:
        return max(self.chance_picture, self.chance_sound)

    @property
    def asked(self) -> str:
        """What the window is found by: the sound or the object that the lead names."""
        return self.lead.rpartition(" the ")[2].rstrip(".")


def answers(family: str) -> tuple[str, ...]:
    """Every answer a question of this family can have."""
    return _ANSWERS[family]


def parse_answer(family: str, text: str) -> str | None:
    """The first answer of `family` that a free text names, or None."""
    found = re.search(rf"\b({'|'.join(answers(family))})s?\b", text.lower().replace("-", " "))
    return found[1] if found else None


def questions(world: World) -> tuple[Question, ...]:
    """Every question of every family about every scene of `world.askable`; "sync" once with yes and once with no."""
    rng = np.random.default_rng([SPLITS.index(world.split), world.seed, 2])
    asked = []
    for scene in world.askable:
        asked += [_ask(world, family, scene, None, rng) for family in FAMILIES if family != "sync"]
        asked += [_ask(world, "sync", scene, other, rng) for other in (scene, _pick(world.others(scene), rng))]
    return tuple(asked)


def heldout_questions(n: int = 1000, seed: int = HELDOUT_SEED) -> list[tuple[World, Question]]:
    """The fixed benchmark: `n` questions of the test split."""
    return draw_questions("test", n, seed)


def draw_questions(split: str, n: int, seed: int) -> list[tuple[World, Question]]:
    """`n` questions, balanced over families (and over yes and no), three of different families per clip.

    Clips are the worlds `seed`, `seed` + 1, ... of the split; the scene asked about is uniform among those allowed.
    """
    rng = np.random.default_rng([SPLITS.index(split), seed, 3])
    drawn = []
    for number in range(n):
        if number % 3 == 0:
            world = sample_world(seed + number // 3, split)
        family = FAMILIES[number % len(FAMILIES)]
        scene = _pick(world.askable, rng)
        other = None
        if family == "sync":
            other = scene if number // len(FAMILIES) % 2 else _pick(world.others(scene), rng)
        drawn.append((world, _ask(world, family, scene, other, rng)))
    return drawn


def _pick(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Scene:
    return scenes[int(rng.integers(len(scenes)))]


def _ask(world: World, family: str, scene: Scene, other: Scene | None, rng: np.random.Generator) -> Question:
    """A question about `scene`; `other` is the scene whose object a "sync" question names."""
    named = other or scene
    words = {"sound": scene.sound, "object": named.object, "plays": "play" if scene.sound == "clicks" else "plays"}
    text = _ASKED[family][int(rng.integers(len(_ASKED[family])))].format(**words)
    if family == "sync":
        answer = "yes" if named is scene else "no"
        closing = "Yes, it is." if answer == "yes" else "No, it is not."
    else:
        answer = getattr(scene, family)
        closing = "It is a series of clicks." if answer == "clicks" else _REPLY[family].format(answer=answer)
    return Question(
        family, text, answer,
        lead=f"I look for the {scene.object}." if family == "sound" else f"I listen for the {scene.sound}.",
        window=scene.window,
        closing=closing,
        chance_picture=max(picture_posterior(world, family, scene, other).values()),
        chance_sound=max(sound_posterior(world, family, scene, other).values()),
    )  # fmt: skip
