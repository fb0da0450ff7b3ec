"""Questions about a world that need both its picture and its sound, with their answers, steps and chance."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from latentomni.avworld.chance import picture_posterior, sound_posterior
from latentomni.avworld.world import SPLITS, Scene, World, sample_world
from latentomni.clock import Window

__all__ = ["FAMILIES", "Question", "Step", "draw_question", "draw_questions", "heldout_questions", "questions"]

FAMILIES = ("colour", "shape", "place", "sound", "sync", "count", "order", "pair")
HELDOUT_SEED = 20_000
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
    "count": (
        "How many times does the sound play while the {object} is shown?",
        "When you see the {object}, how often do you hear the sound?",
        "How often does the sound play while the {object} is on screen?",
    ),
    "order": (
        "What colour is the object right {way} the {sound} {plays}?",
        "Which colour is shown right {way} the {sound} {plays}?",
        "When you hear the {sound}, which colour is on screen right {way} that?",
    ),
    "pair": (
        "What colour is the object when the {sound} {plays}, and what colour when the {other} {other_plays}?",
        "Which colour is shown while the {sound} {plays}, and which while the {other} {other_plays}?",
        "When you hear the {sound}, and when you hear the {other}, which colours are on screen?",
    ),
}
_CLOSING = {
    "colour": "The object is {answer}.",
    "shape": "The shape is a {answer}.",
    "place": "It is at the {answer}.",
    "sound": "It is a {answer}.",
    "sync": "I look for the {object}, I see the {seen}, so {answer}.",
    "count": "It plays {answer}.",
    "order": "{Then} the object is {answer}.",
    "pair": "First {first}, then {second}.",
}


@dataclass(frozen=True)
class Step:
    """What one latent block is for.

    lead: what is said before the block. window: the span of the scene it looks at. asked: the sound or the object the
    window is found by, as the lead ends with it; "" where the window follows from the step before. seen: what is there.
    """

    lead: str
    window: Window
    asked: str
    seen: str


@dataclass(frozen=True)
class Question:
    """One question with all its truth.

    answer: the short answer, one of `answers(family)`. steps: what is looked at in turn. closing: the answer as a
    sentence. chance: accuracy of the best guesser with the question and the better single modality; chance_picture and
    chance_sound: with that one.
    """

    family: str
    text: str
    answer: str
    steps: tuple[Step, ...]
    closing: str
    chance_picture: float
    chance_sound: float

    @property
    def chance(self) -> float:
        return max(self.chance_picture, self.chance_sound)

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(step.window for step in self.steps)

    def window_iou(self, told: Iterable[Window]) -> float:
        """Of the windows of an answer's blocks: mean over the steps; one without a block counts as 0."""
        return sum(window.iou(true) for window, true in zip(told, self.windows, strict=False)) / len(self.steps)


def questions(world: World) -> tuple[Question, ...]:
    """Every question of every family about every scene of `world.askable`.

    Per scene "sync" once with yes and once with no, "order" after and before where there is such a scene, the rest once.
    """
    rng = np.random.default_rng([SPLITS.index(world.split), world.seed, 2])
    return tuple(
        _ask(world, family, scene, other, rng)
        for scene in world.askable
        for family in FAMILIES
        for other in _others(world, family, scene, rng)
    )


def heldout_questions(n: int = 1000, seed: int = HELDOUT_SEED) -> list[tuple[World, Question]]:
    """The fixed benchmark: `n` questions of the test split."""
    return draw_questions("test", n, seed)


def draw_questions(split: str, n: int, seed: int) -> list[tuple[World, Question]]:
    """`n` questions, balanced over families, yes and no, after and before; three of different families per clip.

    Clips are the worlds `seed`, `seed` + 1, ... of the split; the scene asked about is uniform among those allowed.
    """
    rng = np.random.default_rng([SPLITS.index(split), seed, 3])
    drawn = []
    for number in range(n):
        if number % 3 == 0:
            world = sample_world(seed + number // 3, split)
        drawn.append((world, draw_question(world, number, rng)))
    return drawn


def draw_question(world: World, number: int, rng: np.random.Generator) -> Question:
    """Families take turns with `number`, and with each round yes and no, after and before."""
    turn, kind = divmod(number, len(FAMILIES))
    scene, other = _draw_scenes(world, FAMILIES[kind], turn % 2, rng)
    return _ask(world, FAMILIES[kind], scene, other, rng)


def _draw_scenes(world: World, family: str, turn: int, rng: np.random.Generator) -> tuple[Scene, Scene | None]:
    """The scene asked about and the other one. turn 0: a yes, the scene after; turn 1: a no, the scene before."""
    if family == "order":  # of three askable scenes at least two have the neighbour
        way = -1 if turn else 1
        both = [(s, o) for s in world.askable for o in world.neighbours(s) if o.index - s.index == way]
        return both[int(rng.integers(len(both)))]
    scene = _pick(world.askable, rng)
    others = _others(world, family, scene, rng)
    return scene, others[turn % len(others)]


def _others(world: World, family: str, scene: Scene, rng: np.random.Generator) -> tuple[Scene | None, ...]:
    """The other scene of each question about `scene`: "sync" names its object, "order" and "pair" look at it too."""
    if family == "sync":
        return scene, _pick(world.others(scene), rng)
    if family == "order":
        return world.neighbours(scene)
    if family == "pair":
        return (_pick(tuple(s for s in world.askable if s is not scene), rng),)
    return (None,)


def _pick(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Scene:
    return scenes[int(rng.integers(len(scenes)))]


def _ask(world: World, family: str, scene: Scene, other: Scene | None, rng: np.random.Generator) -> Question:
    """A question about `scene`, and `other` where the family needs two."""
    text = _ASKED[family][int(rng.integers(len(_ASKED[family])))]
    answer = _answer(family, scene, other)
    return Question(
        family,
        text.format(**_words(family, scene, other)),
        answer,
        _steps(family, scene, other),
        closing=_closing(family, answer, scene, other),
        chance_picture=max(picture_posterior(world, family, scene, other).values()),
        chance_sound=max(sound_posterior(world, family, scene, other).values()),
    )


def _words(family: str, scene: Scene, other: Scene | None) -> dict[str, str]:
    """What fills the blanks of a question's wording."""
    other = other or scene
    return {
        "sound": scene.sound,
        "plays": _plays(scene),
        "object": (other if family == "sync" else scene).object,
        "way": _way(scene, other),
        "other": other.sound,
        "other_plays": _plays(other),
    }


def _plays(scene: Scene) -> str:
    return "play" if scene.sound == "clicks" else "plays"


def _way(scene: Scene, other: Scene) -> str:
    return "after" if other.index > scene.index else "before"


def _answer(family: str, scene: Scene, other: Scene | None) -> str:
    if family == "sync":
        return "yes" if other is scene else "no"
    if family == "order":
        return other.colour
    if family == "pair":
        return f"{scene.colour} and {other.colour}"
    return getattr(scene, family)


def _closing(family: str, answer: str, scene: Scene, other: Scene | None) -> str:
    if answer == "clicks":
        return "It is a series of clicks."
    first, _, second = answer.partition(" and ")
    then = "Then" if _way(scene, other or scene) == "after" else "Before that"
    return _CLOSING[family].format(answer=answer, object=(other or scene).object, seen=scene.object, first=first, second=second, Then=then)


def _steps(family: str, scene: Scene, other: Scene | None) -> tuple[Step, ...]:
    if family in ("sound", "count"):
        return (Step(f"I look for the {scene.object}.", scene.window, scene.object, scene.seen),)
    if family == "order":
        lead = f"Then I look right {_way(scene, other)} it."
        return _listen(scene), Step(lead, other.window, "", other.seen)
    return (_listen(scene), _listen(other)) if family == "pair" else (_listen(scene),)


def _listen(scene: Scene) -> Step:
    return Step(f"I listen for the {scene.sound}.", scene.window, scene.sound, scene.seen)
