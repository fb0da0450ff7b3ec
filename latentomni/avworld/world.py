"""A world is the exact truth of one clip: what is shown where, what sounds when. Drawn from a seed."""

from dataclasses import dataclass

import numpy as np

from latentomni.avworld.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, SOUNDS, held_out
from latentomni.clock import Window
from latentomni.errors import RequestError

__all__ = ["SCENE_S", "SPLITS", "Scene", "World", "sample_world"]

SCENE_S = 2.0
SPLITS = ("train", "validation", "test")
_MOTIONS = ("drift", "bob", "spin", "pulse")
_MARGIN_S = 0.1
_BIN_S = 0.05
_SILENCE_S = 0.2


@dataclass(frozen=True)
class Scene:
    """Two seconds with one object and one sound.

    repeats: how many times the sound plays, 1 to 3. onset_s, sound_s: start (seconds from clip start) and length of the
    sound from the first time to the last. pitch, loudness: factors.
    diameter: share of the frame's width. centre: (x, y), shares of the frame. motion, heading, phase: how it moves
    (radians). hue, warmth: the background, 0 to 1.
    """

    index: int
    colour: str
    shape: str
    place: str
    sound: str
    repeats: int
    onset_s: float
    sound_s: float
    pitch: float
    loudness: float
    diameter: float
    centre: tuple[float, float]
    motion: str
    heading: float
    phase: float
    hue: float
    warmth: float

    @property
    def window(self) -> Window:
        return Window(self.index * SCENE_S, (self.index + 1) * SCENE_S)

    @property
    def sound_window(self) -> Window:
        return Window(self.onset_s, self.onset_s + self.sound_s)

    @property
    def bursts(self) -> tuple[Window, ...]:
        """When the sound plays, once per repeat: equally long, with a silence between them."""
        length_s = (self.sound_s - _SILENCE_S * (self.repeats - 1)) / self.repeats
        starts_s = [self.onset_s + k * (length_s + _SILENCE_S) for k in range(self.repeats)]
        return tuple(Window(start_s, start_s + length_s) for start_s in starts_s)

    @property
    def count(self) -> str:
        return COUNTS[self.repeats - 1]

    @property
    def seen(self) -> str:
        """All there is to see and hear, in words: "red star, top left, bell, twice." """
        return f"{self.object}, {self.place}, {self.sound}, {self.count}."

    @property
    def object(self) -> str:
        return f"{self.colour} {self.shape}"

    def held_out_with(self, sound: str) -> bool:
        """Whether this object never goes with this sound in training."""
        return held_out(COLOURS.index(self.colour), SHAPES.index(self.shape), SOUNDS.index(sound))

    @property
    def held_out(self) -> bool:
        return self.held_out_with(self.sound)


@dataclass(frozen=True)
class World:
    """3 to 5 scenes of 2 s; objects and sounds are distinct within a clip. noise: amplitude of the background sound."""

    seed: int
    split: str
    scenes: tuple[Scene, ...]
    noise: float

    @property
    def duration_s(self) -> float:
        return len(self.scenes) * SCENE_S

    @property
    def name(self) -> str:
        return f"avworld-{self.split}-{self.seed}"

    def others(self, scene: Scene) -> tuple[Scene, ...]:
        """The scenes whose object can be asked about with the sound of `scene` and a true answer of no.

        Held-out sounds are denied with held-out objects, all others with others: which it is says nothing.
        """
        return tuple(s for s in self.scenes if s is not scene and s.held_out_with(scene.sound) == scene.held_out)

    def neighbours(self, scene: Scene) -> tuple[Scene, ...]:
        """The scenes right after and right before, where there are such."""
        return tuple(self.scenes[k] for k in (scene.index + 1, scene.index - 1) if 0 <= k < len(self.scenes))

    @property
    def askable(self) -> tuple[Scene, ...]:
        """The scenes questions are about: all of them, in the test split the held-out combinations."""
        return tuple(s for s in self.scenes if s.held_out) if self.split == "test" else self.scenes


def sample_world(seed: int, split: str) -> World:
    """The world of this seed; the same seed gives another world in another split."""
    if split not in SPLITS:
        raise RequestError(f"there is no AV World split {split!r}; choose one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([SPLITS.index(split), seed])
    count = int(rng.integers(3, 6))
    colours, shapes, sounds = (_sample_test if split == "test" else _sample_train)(rng, count)
    places, repeats = _spread(rng, len(PLACES), count), _spread(rng, len(COUNTS), count) + 1
    scenes = [
        _sample_scene(rng, k, COLOURS[c], SHAPES[h], int(p), SOUNDS[s], int(r), parity=int(split == "test"))
        for k, (c, h, p, s, r) in enumerate(zip(colours, shapes, places, sounds, repeats, strict=True))
    ]
    return World(seed, split, tuple(scenes), noise=float(rng.uniform(0.002, 0.006)))


def _spread(rng: np.random.Generator, kinds: int, count: int) -> np.ndarray:
    """(count,) numbers below `kinds`, as different as possible, in random order."""
    chosen = rng.permutation(kinds)[:count]
    return rng.permutation(np.concatenate([chosen, rng.permutation(kinds)[: count - len(chosen)]]))


def _sample_train(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of colours, shapes and sounds: uniform over all draws without a held-out combination.

    Every sound also finds a second object it may go with, so that "is the star shown when the bell plays?" can be
    denied with a combination that training knows: no combination gives its answer away.
    """
    while True:
        colours, sounds = rng.permutation(len(COLOURS))[:count], rng.permutation(len(SOUNDS))[:count]
        shapes = _spread(rng, len(SHAPES), count)
        unseen = held_out(colours, shapes, sounds[:, None])
        if not unseen.diagonal().any() and (~unseen).sum(1).min() >= 2:
            return colours, shapes, sounds


def _sample_test(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of one held-out block with all three of its sounds, and other sounds for the scenes that remain."""
    block = int(rng.integers(2))
    own, other = np.arange(block, len(SOUNDS), 2), np.arange(1 - block, len(SOUNDS), 2)
    sounds = rng.permutation(np.concatenate([own, rng.permutation(other)[: count - 3]]))
    while True:
        colours = rng.permutation(len(COLOURS))[:count]
        shapes = (colours + 2 * block) % len(SHAPES)
        if len(set(shapes.tolist())) == min(count, len(SHAPES)):
            return colours, shapes, sounds


def _sample_scene(
    rng: np.random.Generator, index: int, colour: str, shape: str, place: int, sound: str, repeats: int, parity: int
) -> Scene:
    sound_s = round(float(rng.uniform(1.0, 1.4)), 3)
    bins = int((SCENE_S - 2 * _MARGIN_S - sound_s) / _BIN_S)
    onset_bin = int(rng.choice(np.arange(parity, bins, 2)))  # test onsets lie in time bins that training never uses
    column, row = place % 2, place // 2
    offset = rng.uniform(-0.01, 0.01, 2)
    return Scene(
        index, colour, shape, PLACES[place], sound, repeats,
        onset_s=round(index * SCENE_S + _MARGIN_S + (onset_bin + float(rng.random())) * _BIN_S, 4),
        sound_s=sound_s,
        pitch=float(rng.uniform(0.8, 1.25)),
        loudness=float(rng.uniform(0.5, 1.0)),
        diameter=float(rng.uniform(0.35, 0.41)),
        centre=(0.26 + 0.48 * column + float(offset[0]), 0.26 + 0.48 * row + float(offset[1])),
        motion=_MOTIONS[int(rng.integers(len(_MOTIONS)))],
        heading=float(rng.uniform(0, 2 * np.pi)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        hue=float(rng.random()),
        warmth=float(rng.random()),
    )  # fmt: skip
