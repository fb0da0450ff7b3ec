"""A stream with real pictures and sound: 6 s, another colour each second, a beep from 3 to 4 s, two latent blocks."""

import io

import numpy as np
import pytest
from PIL import Image

from latentomni.clock import Window
from latentomni.events import ClipRecord, Finished, LatentClosed, LatentOpened, LatentStep, Moments, Started, TextDelta
from latentomni.evidence import EvidenceBank
from latentomni.trace import Trace

INSTANTS, WIDTH, SECONDS = 2, 16, 6
LIMIT_MS = 30_000  # of every single wait


def jpeg(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((60, 80, 3), (shade, 90, 200 - shade), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def clip_record(picture, sound):
    seconds = np.arange(SECONDS * 16_000) / 16_000
    beep = (12_000 * np.sin(2 * np.pi * 440 * seconds) * ((seconds >= 3) & (seconds < 4))).astype(np.int16)
    return ClipRecord(
        name="beep.mp4", sha256="ab" * 32, duration_s=float(SECONDS),
        thumbnails=tuple(jpeg(30 * i) for i in range(SECONDS)) if picture else (),
        thumbnail_times_s=np.arange(SECONDS if picture else 0, dtype=float), sound=beep if sound else None,
    )  # fmt: skip


def moments(rng, cells, seconds):
    start_s = np.repeat(np.arange(seconds, dtype=np.float32), len(cells))
    features = rng.normal(size=(len(start_s), WIDTH)).astype(np.float32)
    return Moments(start_s, start_s + 1, np.tile(np.float32(cells), (seconds, 1)), features)


def make_events(
    *, blocks=2, null=True, picture=True, sound=True, question="When is the beep?", text="Listen: ", answer="at 3 s", level=0.5
):
    """Latent k of a block equals a moment of second (k + block) % 6; by their p, latents 3 and 5 are no evidence."""
    rng = np.random.default_rng(0)
    visual = moments(rng, [[0, 0, 1, 0.5], [0, 0.5, 1, 1]], SECONDS if picture else 0)
    audio = moments(rng, [[0, 0, 1, 1]], SECONDS if sound else 0)
    spec = {"instants": INSTANTS, "rows": 1, "columns": 2}
    yield Started(
        question,
        "latent",
        "strict",
        "nano",
        "nano",
        spec,
        {"seed": 0},
        clip_record(picture, sound),
        visual,
        audio,
        99,
        null,
    )
    banks = {"visual": EvidenceBank(visual), "audio": EvidenceBank(audio)}
    yield TextDelta(text, (1,), 0.1)
    for b in range(blocks):
        yield LatentOpened(b, Window(2.0 * b + 1, 2.0 * b + 3), "model", 0.2)
        for k, modality in enumerate(["visual"] * 4 + ["audio"] * 2):
            rows = banks[modality].moments
            at = rows.features[np.flatnonzero(rows.start_s == (k + b) % SECONDS)]
            vector = at[0] if len(at) else np.ones(WIDTH, np.float32)
            found = banks[modality].matches(vector)
            instant, cell = (k // 2, (0, k % 2)) if modality == "visual" else (k - 4, None)
            scored = banks[modality].nearest(vector[None])
            scores = banks[modality].by_time(scored)[0]
            cells = scored[0, banks[modality].beside(found[0].moment)] if found else None
            p = 0.01 if null and found else None
            time_s = 2.0 * b + 1.5 + instant
            null_level = None if p is None else level
            yield LatentStep(b, k, modality, instant, cell, time_s, vector, found, p, 0.3, scores, cells, null_level)
        yield LatentClosed(b, (0.01, 0.02, 0.02, 0.4, 0.01, 0.6) if null else None, 0.4)
        yield TextDelta(f"after {b}. ", (2, 3), 0.5)
    yield Finished("stop", answer, 8, 0.1, 0.6)


@pytest.fixture
def events():
    return make_events


@pytest.fixture
def trace():
    return Trace.from_events(make_events())


@pytest.fixture
def open_page(browser):
    """Open html; every error, console message and request to elsewhere fails the test."""
    complaints, pages = [], []

    def opened(html, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        page.set_default_timeout(LIMIT_MS)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: request.url.startswith(("data:", "about:")) or complaints.append(request.url)
        )
        page.set_content(html)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []
