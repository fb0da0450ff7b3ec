"""Media files that the tests write: drawn frames that tell their number, and a tone that begins at a known second."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentomni.media import Clip

FRAME_RATE_HZ, SECONDS, ONSET_S = 10, 3, 1.25
SHADE_STEP = 6  # frame i is drawn in grey 20 + 6 i
TOLERANCE_S = 0.002  # lossy codecs smear an onset


def drawn(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), 20 + SHADE_STEP * index, dtype=np.uint8)


def indices(clip: Clip) -> list[int]:
    """Which drawn frame each sampled frame is."""
    return np.rint((clip.frames.mean(axis=(1, 2, 3)) - 20) / SHADE_STEP).astype(int).tolist()


def onset_s(clip: Clip) -> float:
    assert clip.waveform is not None
    return float(np.argmax(np.abs(clip.waveform) > 0.1)) / 16_000


def tone(channels: int = 1, rate_hz: int = 48_000, seconds: float = SECONDS, onset: float = ONSET_S) -> np.ndarray:
    """(channels, samples): silence, then 1 kHz from `onset` seconds."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    wave = np.where(time_s >= onset, 0.5 * np.cos(2 * np.pi * 1000 * (time_s - onset)), 0.0)
    return np.repeat(wave[None], channels, axis=0)


def write(
    path: Path,
    video: str | None = None,
    audio: str | None = None,
    *,
    pictures: list[np.ndarray] | None = None,
    times_ms: list[int] | None = None,
    sound: np.ndarray | None = None,
    rate_hz: int = 48_000,
    pix_fmt: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    shift_s: float = 0.0,
    tags: dict[str, str] | None = None,
) -> Path:
    """Encode pictures (one each 1/10 s, or at `times_ms`) and sound; `shift_s` moves every timestamp."""
    if (video and video not in av.codecs_available) or (audio and audio not in av.codecs_available):
        pytest.skip(f"this build of PyAV cannot write {video} with {audio}")
    with av.open(str(path), "w", options=options or {}) as out:
        out.metadata.update(tags or {})
        streams, packets = [], []
        if video:
            pictures = [drawn(i) for i in range(SECONDS * FRAME_RATE_HZ)] if pictures is None else pictures
            stream = out.add_stream(video, rate=FRAME_RATE_HZ, options=codec_options or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt, stream.bit_rate = pix_fmt, 2_000_000
            if times_ms:
                stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
            streams.append((stream, video_frames(pictures, times_ms, pix_fmt)))
        if audio:
            sound = tone(rate_hz=rate_hz) if sound is None else sound
            layout = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1"}[len(sound)]
            stream = out.add_stream(audio, rate=rate_hz, layout=layout, options={} if video else codec_options or {})
            streams.append((stream, audio_frames(sound, rate_hz, layout)))
        for stream, frames in streams:
            for frame in [*frames, None]:
                packets += stream.encode(frame)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            for name in ("pts", "dts"):
                setattr(packet, name, getattr(packet, name) + round(shift_s / packet.time_base))
            out.mux(packet)
    return path


def video_frames(pictures: list[np.ndarray], times_ms: list[int] | None, pix_fmt: str) -> list[av.VideoFrame]:
    frames = []
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
        frame.pts = times_ms[i] if times_ms else i
        frame.time_base = Fraction(1, 1000 if times_ms else FRAME_RATE_HZ)
        frames.append(frame)
    return frames


def audio_frames(sound: np.ndarray, rate_hz: int, layout: str) -> list[av.AudioFrame]:
    frames = []
    for start in range(0, sound.shape[1], 1000):
        samples = np.ascontiguousarray(sound[:, start : start + 1000], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        frames.append(frame)
    return frames
