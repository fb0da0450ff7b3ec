"""The words of AV World, and which combinations are kept for the test split."""

import numpy as np

__all__ = ["COLOURS", "COUNTS", "ORDINALS", "PLACES", "SHAPES", "SOUNDS", "held_out"]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "star")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SOUNDS = ("bell", "buzz", "chirp", "clicks", "siren", "drum")
COUNTS = ("once", "twice", "three times")
ORDINALS = ("first", "second")


def held_out(colour: np.ndarray | int, shape: np.ndarray | int, sound: np.ndarray | int) -> np.ndarray | bool:
    """Whether (colour, shape, sound), given as numbers or arrays of numbers, never occurs in training: 36 of the 144.

    They form two blocks, 6 objects (one of each colour) times 3 sounds each. A test clip shows objects of one block
    only and plays all sounds of that block, so knowing this rule does not tell which object goes with which sound.
    """
    return (shape - colour) % 4 == 2 * (sound % 2)
