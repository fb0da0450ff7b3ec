"""What the app's tests share: a tiny model that opens latent blocks, a visitor, a sound file, and asking from begin to end."""

import wave
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app import asking, handlers
from app.session import Session
from app.shared import runtime
from latentomni import checkpoints
from latentomni.clock import SAMPLE_RATE_HZ


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory):
    """The tiny checkpoint on disk, with weights that make it open latent blocks."""
    thinker = checkpoints.build("tiny", tokenizer, seed=0)
    with torch.no_grad():
        for weight in (*thinker.text_model.parameters(), thinker.model.lm_head.weight):
            if weight.ndim == 2:
                weight *= 8
        thinker.model.lm_head.weight[thinker.ids.trigger] *= 5
    folder = tmp_path_factory.mktemp("tiny")
    checkpoints.save(thinker, folder)
    return folder


@pytest.fixture
def visitor(model_folder, monkeypatch, tmp_path):
    """A request of a new visitor; uploads and answers lie in a folder of this test."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    if runtime.name != str(model_folder):
        runtime.use(str(model_folder))
    request = SimpleNamespace(session_hash=tmp_path.name)
    yield request
    handlers.leave(request)


@pytest.fixture
def clip(tmp_path):
    """Three seconds of a tone, as a file."""
    seconds = np.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((9000 * np.sin(2 * np.pi * 440 * seconds)).astype("<i2").tobytes())
    return str(tmp_path / "tone.wav")


@pytest.fixture(scope="session")
def asked():
    """asked(session, question, visitor, settings): all pages of one answer, `begin` first."""

    def ask(session, question, visitor, settings=("latent", 0.0, 1.0, 0, 24)):
        first = asking.begin(session, question, visitor)
        return [first, *asking.answer(first.session, visitor, *settings)]

    return ask


@pytest.fixture(scope="session")
def brought():
    """brought(clip, visitor): the session of a visitor who has just brought a file."""

    def bring(clip, visitor):
        return handlers.bring(Session(), clip, visitor).session

    return bring
