"""What the training tests share: clips that a model has seen, and turns about them in every mode."""

import pytest

from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.training.turns import Segment, Turn

BELL = Segment(Window(0.0, 2.0), "bell", "red circle, bell.")
BUZZ = Segment(Window(1.5, 3.0), "buzz", "blue star, buzz.")
ONE = Turn("What is seen while the bell rings?", Mode.LATENT, ("I hear the bell.", BELL, "The object is red."))
TWO = Turn("Bell, then buzz?", Mode.LATENT, ("The bell.", BELL, "Then the buzz.", BUZZ, "It is red, then blue."))
ALOUD = Turn("Bell, then buzz?", Mode.TEXT_COT, ("The bell.", BELL, "Then the buzz.", BUZZ, "It is red, then blue."))
DIRECT = Turn("Which sound plays?", Mode.DIRECT, (BUZZ, "It is a buzz."))


@pytest.fixture(scope="session")
def features(tiny64, make_clip):
    """Three clips of unlike length: with picture and sound, without sound, without picture."""
    clips = (make_clip(0), make_clip(1, 3.0, sound=False), make_clip(2, 4.0, picture=False))
    return [tiny64.encode_clip(clip) for clip in clips]
