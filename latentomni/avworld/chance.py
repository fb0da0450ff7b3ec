"""The best possible guesser: what the question and one modality alone tell about the answer, enumerated exactly.

It knows the rules of the generator, held-out combinations included, and either every picture or every sound of the clip.
"""

from functools import cache
from itertools import permutations, product

import numpy as np

from latentomni.avworld.vocabulary import COLOURS, PLACES, SHAPES, SOUNDS, held_out
from latentomni.avworld.world import Scene, World

__all__ = ["picture_posterior", "sound_posterior"]


def picture_posterior(world: World, family: str, scene: Scene, other: Scene | None = None) -> dict[str, float]:
    """Answer -> probability, for one who sees but does not hear.

    scene: the one asked about. other: for "sync", the scene whose object the question names (`scene` itself for "yes").
    """
    colours, shapes = _object_numbers(world)
    if family == "sound":
        heard = _sound_table(world.split, colours, shapes)[scene.index]
        return _normalised({s: heard[j] for j, s in enumerate(SOUNDS)})
    plays = _sound_table(world.split, colours, shapes)[:, SOUNDS.index(scene.sound)]
    if family == "sync":
        return _sync(plays, other.index)
    shown: dict[str, float] = {}
    for candidate, weight in zip(world.scenes, plays, strict=True):
        word = getattr(candidate, family)
        shown[word] = shown.get(word, 0.0) + float(weight)
    return _normalised(shown)


def sound_posterior(world: World, family: str, scene: Scene, other: Scene | None = None) -> dict[str, float]:
    """Answer -> probability, for one who hears but does not see; arguments as in `picture_posterior`."""
    table = _object_table(world.split, tuple(SOUNDS.index(s.sound) % 2 for s in world.scenes))
    if family == "colour":
        return _normalised(dict(zip(COLOURS, table[scene.index].sum(1), strict=True)))
    if family == "shape":
        return _normalised(dict(zip(SHAPES, table[scene.index].sum(0), strict=True)))
    if family == "place":
        return dict.fromkeys(PLACES, 1 / len(PLACES))
    named = scene if other is None else other
    shown = table[:, COLOURS.index(named.colour), SHAPES.index(named.shape)]
    if family == "sync":
        return _sync(shown, scene.index)
    asked = {s.index for s in world.askable}
    return _normalised({s.sound: shown[s.index] * (s.index in asked) for s in world.scenes})


def _normalised(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {answer: float(weight) / float(total) for answer, weight in weights.items()}


def _sync(weights: np.ndarray, known: int) -> dict[str, float]:
    """Yes where the scene that is not seen (heard) is the `known` one; no, equally often, where it is one of the others."""
    yes, no = weights[known], (weights.sum() - weights[known]) / (len(weights) - 1)
    return _normalised({"yes": yes, "no": no})


def _object_numbers(world: World) -> tuple[np.ndarray, np.ndarray]:
    return (np.array([COLOURS.index(s.colour) for s in world.scenes]),
            np.array([SHAPES.index(s.shape) for s in world.scenes]))  # fmt: skip


def _sound_table(split: str, colours: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """(N, 6): in how many of the clips that could go with these pictures scene n plays this sound and is asked about."""
    sounds = _sound_draws(len(colours))
    unseen = held_out(colours, shapes, sounds)
    asked = unseen if split == "test" else ~unseen
    possible = (unseen.sum(1) == 3) if split == "test" else ~unseen.any(1)
    return np.stack([(asked & possible[:, None] & (sounds == s)).sum(0) for s in range(len(SOUNDS))], axis=1)


@cache
def _object_table(split: str, parities: tuple[int, ...]) -> np.ndarray:
    """(N, 6, 4): in how many of the clips that could go with these sounds scene n shows this colour and this shape.

    parities: (N,) sound number modulo 2, which is all that `held_out` depends on.
    """
    colours, shapes = _object_draws(len(parities))
    unseen = held_out(colours, shapes, np.array(parities))
    if split == "test":  # three sounds of one block, and every object belongs to that block
        possible = held_out(colours, shapes, int(parities.count(1) == 3)).all(1)
    else:
        possible = ~unseen.any(1)
    table = np.zeros((len(parities), len(COLOURS), len(SHAPES)), np.int64)
    for n in range(len(parities)):
        np.add.at(table[n], (colours[possible, n], shapes[possible, n]), 1)
    return table


@cache
def _sound_draws(count: int) -> np.ndarray:
    """(P, count): every order of `count` distinct sounds."""
    return np.array(list(permutations(range(len(SOUNDS)), count)))


@cache
def _object_draws(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours and shapes, each (P, count), of every sequence of objects a clip may show."""
    colours = np.array(list(permutations(range(len(COLOURS)), count)))
    spread = [s for s in product(range(len(SHAPES)), repeat=count) if len(set(s)) == min(count, len(SHAPES))]
    shapes = np.array(spread)
    return np.repeat(colours, len(shapes), axis=0), np.tile(shapes, (len(colours), 1))
