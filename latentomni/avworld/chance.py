"""The best possible guesser: what the question and one modality alone tell about the answer, enumerated exactly.

It knows the rules of the generator, held-out combinations included, and all pictures or all sounds of the clip.
"""

from functools import cache, lru_cache
from itertools import permutations, product

import numpy as np

from latentomni.avworld.vocabulary import COLOURS, PLACES, SHAPES, SOUNDS, held_out
from latentomni.avworld.world import Scene, World

__all__ = ["picture_posterior", "sound_posterior"]


def picture_posterior(world: World, family: str, scene: Scene, other: Scene | None = None) -> dict[str, float]:
    """Answer -> probability, for one who sees but does not hear.

    scene: the one asked about. other: for "sync", the scene whose object the question names (`scene` itself for "yes").
    """
    objects = tuple((COLOURS.index(s.colour), SHAPES.index(s.shape)) for s in world.scenes)
    heard = _sound_table(world.split, objects)
    if family == "sound":
        return _normalised(dict(zip(SOUNDS, heard[scene.index], strict=True)))
    plays = heard[:, SOUNDS.index(scene.sound)]
    if family == "sync":
        others = len(world.others(scene))  # the same for every scene that may play this sound
        yes = plays[other.index]
        return _normalised({"yes": yes, "no": (plays.sum() - yes) / others})
    shown: dict[str, float] = {}
    for candidate, weight in zip(world.scenes, plays, strict=True):
        word = getattr(candidate, family)
        shown[word] = shown.get(word, 0.0) + float(weight)
    return _normalised(shown)


def sound_posterior(world: World, family: str, scene: Scene, other: Scene | None = None) -> dict[str, float]:
    """Answer -> probability, for one who hears but does not see; arguments as in `picture_posterior`."""
    shown, denied = _object_tables(world.split, tuple(SOUNDS.index(s.sound) % 2 for s in world.scenes))
    if family == "colour":
        return _normalised(dict(zip(COLOURS, shown[scene.index].sum(1), strict=True)))
    if family == "shape":
        return _normalised(dict(zip(SHAPES, shown[scene.index].sum(0), strict=True)))
    if family == "place":
        return dict.fromkeys(PLACES, 1 / len(PLACES))
    named = other or scene
    colour, shape = COLOURS.index(named.colour), SHAPES.index(named.shape)
    if family == "sync":
        return _normalised({"yes": shown[scene.index, colour, shape], "no": denied[scene.index, colour, shape]})
    return _normalised({s.sound: shown[s.index, colour, shape] for s in world.askable})


def _normalised(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {answer: float(weight) / float(total) for answer, weight in weights.items()}


def _possible(split: str, unseen: np.ndarray) -> np.ndarray:
    """(P,) whether a clip of the split may be so. unseen: (P, N, N) is the object of scene i held out with sound j."""
    own = np.diagonal(unseen, axis1=1, axis2=2)
    if split == "test":  # all objects belong to one block, and all three sounds of that block are played
        return (own.sum(1) == 3) & (unseen == own[:, None]).all((1, 2))
    return ~own.any(1) & ((~unseen).sum(1) >= 2).all(1)


@lru_cache(maxsize=64)
def _sound_table(split: str, objects: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(N, 6): in how many clips with these objects (colour, shape) scene n plays this sound and may be asked about."""
    colours, shapes = np.array(objects).T
    sounds = _sound_draws(len(objects))
    unseen = held_out(colours[:, None], shapes[:, None], sounds[:, None])
    asked = np.diagonal(unseen, axis1=1, axis2=2) == (split == "test")
    counted = asked & _possible(split, unseen)[:, None]
    return np.stack([(counted & (sounds == s)).sum(0) for s in range(len(SOUNDS))], axis=1)


@cache
def _object_tables(split: str, parities: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two tables (N, 6, 4) over clips with these sounds: scene n shows this object; another does and may be named.

    parities: (N,) sound number modulo 2, which is all that `held_out` depends on.
    """
    colours, shapes = _object_draws(len(parities))
    unseen = held_out(colours[:, :, None], shapes[:, :, None], np.array(parities))
    possible = _possible(split, unseen)
    objects = (colours * len(SHAPES) + shapes)[possible]
    named = unseen[possible] == (split == "test")  # (P, object, sound)
    share = named / (named.sum(1, keepdims=True) - 1)  # the other scenes are equally likely to be named
    shown, denied = np.zeros((2, len(parities), len(COLOURS) * len(SHAPES)))
    for n, m in product(range(len(parities)), repeat=2):
        table, weights = (shown, None) if n == m else (denied, share[:, m, n])
        table[n] += np.bincount(objects[:, m], weights, minlength=table.shape[1])
    size = len(parities), len(COLOURS), len(SHAPES)
    return shown.reshape(size), denied.reshape(size)


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
