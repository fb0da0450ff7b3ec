"""What the training tests share: clips that a model has seen, and turns about them in every mode."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.training.records import LATENT_PAIR
from latentomni.training.turns import Segment, Turn

CLIPS = sorted((Path(__file__).parents[2] / "examples").glob("*.mp4"))[:2]

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


@pytest.fixture(scope="session")
def train_file(tmp_path_factory):
    """A training file of seven rows about two videos and a sound of 3 s (rows 1, 3, 4 and 5), with no block to two."""
    folder = tmp_path_factory.mktemp("data")
    with wave.open(str(folder / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(np.random.default_rng(0).normal(0, 3000, 16000 * 3).astype("<i2").tobytes())
    blocks = [(CLIPS[0], 1), ("a.wav", 2), (CLIPS[1], 0), ("a.wav", 1), ("a.wav", 0), ("a.wav", 1), (CLIPS[0], 2)]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(_row(media, n)) for media, n in blocks))
    return folder / "train.jsonl"


def _row(media, blocks):
    segment = {"start_s": 0.0, "end_s": 2.0, "caption": "red circle, bell.", "asked": "bell"}
    answer = f"The bell. {LATENT_PAIR} " * blocks + "The object is red."
    messages = [{"role": "user", "content": ONE.question}, {"role": "assistant", "content": answer}]
    return {"media": str(media), "messages": messages, "segments": [segment] * blocks, "answer": "red"}
