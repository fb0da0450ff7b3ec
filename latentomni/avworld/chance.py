"""The best possible guesser: what the question and one modality alone tell about the answer, enumerated exactly.

It knows the rules of the generator, held-out combinations included, and all pictures or all sounds of the clip.
"""

from functools import cache, lru_cache
from itertools import permutations, product

import numpy as np

from latentomni.avworld.answers import answers
from latentomni.avworld.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, SOUNDS, held_out
from latentomni.avworld.world import Scene, World

__all__ = ["picture_posterior", "sound_posterior"]


def picture_posterior(world: World, family: str, scene: Scene, other: Scene | None = None) -> dict[str, float]:
    """Answer -> probability, for one who sees but does not hear.

    scene: the one asked about. other: for "sync", the scene whose object the question names (`scene` itself for "yes");
    for "order", the neighbour; for "pair", the second scene.
    """
    if family == "count":
        return dict.fromkeys(COUNTS, 1 / len(COUNTS))
    objects = tuple((COLOURS.index(s.colour), SHAPES.index(s.shape)) for s in world.scenes)
    plays = _asked_plays(world.split, objects)
    if family == "sound":
        return _normalised(dict(zip(SOUNDS, plays[:, scene.index].sum(0), strict=True)))
    here = plays[:, :, SOUNDS.index(scene.sound)]
    if family == "pair":
        together = here.T @ plays[:, :, SOUNDS.index(other.sound)]
        two = permutations(world.scenes, 2)
        return _normalised({f"{a.colour} and {b.colour}": together[a.index, b.index] for a, b in two})
    weights = here.sum(0)
    if family == "sync":
        others = len(world.others(scene))  # the same for every scene that may play this sound
        yes = weights[other.index]
        return _normalised({"yes": yes, "no": (weights.sum() - yes) / others})
    if family == "order":  # clips differ in how many scenes have that neighbour, but so they do whichever scene plays
        way = other.index - scene.index
        both = [(s, there) for s in world.scenes for there in world.neighbours(s) if there.index - s.index == way]
        return _normalised({there.colour: weights[s.index] for s, there in both})
    shown: dict[str, float] = {}
    for candidate, weight in zip(world.scenes, weights, strict=True):
        word = getattr(candidate, family)
        shown[word] = shown.get(word, 0.0) + float(weight)
    return _normalised(shown)


def sound_posterior(world: World, family: str, scene: Scene, other: Scene | None = None) -> dict[str, float]:
    """Answer -> probability, for one who hears but does not see; arguments as in `picture_posterior`."""
    if family == "place":
        return dict.fromkeys(PLACES, 1 / len(PLACES))
    shown, denied, together = _object_tables(world.split, tuple(SOUNDS.index(s.sound) % 2 for s in world.scenes))
    if family in ("order", "pair"):
        both = together[scene.index, other.index]
        weights = both.sum(0) if family == "order" else both[~np.eye(len(COLOURS), dtype=bool)]
        return _normalised(dict(zip(answers(family), weights, strict=True)))
    if family == "colour":
        return _normalised(dict(zip(COLOURS, shown[scene.index].sum(1), strict=True)))
    if family == "shape":
        return _normalised(dict(zip(SHAPES, shown[scene.index].sum(0), strict=True)))
    named = other or scene
    here = shown[:, COLOURS.index(named.colour), SHAPES.index(named.shape)]
    if family == "sync":
        no = denied[scene.index, COLOURS.index(named.colour), SHAPES.index(named.shape)]
        return _normalised({"yes": here[scene.index], "no": no})
    told: dict[str, float] = {}
    for candidate in world.askable:
        word = getattr(candidate, family)
        told[word] = told.get(word, 0.0) + float(here[candidate.index])
    return _normalised(told)


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
def _asked_plays(split: str, objects: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(P, N, 6) of 0 and 1: in a clip with these objects (colour, shape) scene n plays this sound and may be asked about.

    P: all clips with these objects that the split may draw, and others, which are 0 throughout.
    """
    colours, shapes = np.array(objects).T
    sounds = _sound_draws(len(objects))
    unseen = held_out(colours[:, None], shapes[:, None], sounds[:, None])
    asked = np.diagonal(unseen, axis1=1, axis2=2) == (split == "test")
    counted = asked & _possible(split, unseen)[:, None]
    return (counted[:, :, None] & (sounds[:, :, None] == np.arange(len(SOUNDS)))).astype(float)


@cache
def _object_tables(split: str, parities: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three tables over clips with these sounds, which tell which scenes may be asked about.

    Two of (N, 6, 4): scene n shows this object; another does and may be named. One of (N, N, 6, 6): scenes n and m show
    these colours. parities: (N,) sound number modulo 2, which is all that `held_out` depends on.
    """
    colours, shapes = _object_draws(len(parities))
    unseen = held_out(colours[:, :, None], shapes[:, :, None], np.array(parities))
    possible = _possible(split, unseen)
    colours, objects = colours[possible], (colours * len(SHAPES) + shapes)[possible]
    named = unseen[possible] == (split == "test")  # (P, object, sound)
    share = named / (named.sum(1, keepdims=True) - 1)  # the other scenes are equally likely to be named
    count, kinds = len(parities), len(COLOURS)
    shown, denied = np.zeros((2, count, kinds * len(SHAPES)))
    together = np.zeros((count, count, kinds * kinds))
    for n, m in product(range(count), repeat=2):
        table, weights = (shown, None) if n == m else (denied, share[:, m, n])
        table[n] += np.bincount(objects[:, m], weights, minlength=table.shape[1])
        together[n, m] = np.bincount(colours[:, n] * kinds + colours[:, m], minlength=kinds * kinds)
    objects_of = count, kinds, len(SHAPES)
    return shown.reshape(objects_of), denied.reshape(objects_of), together.reshape(count, count, kinds, kinds)


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
