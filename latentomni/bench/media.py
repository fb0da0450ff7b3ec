"""How fast a clip is read: `read_clip` beside an ffmpeg pipe and moviepy, on one drawn clip, in one interleaved run."""

import logging
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.media import read_clip
from latentomni.memory import peak_bytes

__all__ = ["bench_media"]

_DURATION_S, _FRAME_RATE_HZ, _WIDTH_PX, _HEIGHT_PX = 60, 30, 1280, 720
_FPS = 2.0
_SMALL_PX = (596, 336)  # what 448 * 448 pixels leave of 1280x720; asserted against read_clip
_log = logging.getLogger(__name__)


def bench_media(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Median seconds to read a 60 s 720p clip with sound at 2 frames per second, and our peak memory in bytes.

    Every reading runs in a fresh process, the readers in turn. `ratio` and `moviepy_ratio` are ours over theirs;
    `peak_bytes` is the process's peak above its size after the imports.
    """
    readers = {"ours": _read_ours, "ffmpeg": _read_ffmpeg, "moviepy": _read_moviepy}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    peaks_bytes = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        _write_clip(path, seed)
        for repeat in range(repeats):
            for name, reader in readers.items():
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                    elapsed_s, peak_bytes, counts = fresh.submit(_measure, reader, str(path)).result()
                _log.info("media %d/%d %s: %.2f s, frames and samples %s", repeat + 1, repeats, name, elapsed_s, counts)
                lacks = (_DURATION_S * _FPS - counts[0], _DURATION_S - counts[1] / SAMPLE_RATE_HZ)
                assert abs(lacks[0]) <= 1 and abs(lacks[1]) < 0.1, f"{name} did other work: {counts}"
                seconds[name].append(elapsed_s)
                if name == "ours":
                    peaks_bytes.append(peak_bytes)
        size_mib = path.stat().st_size / 2**20
    ours, peer, moviepy = (statistics.median(seconds[name]) for name in readers)
    return {
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "moviepy_s": moviepy,
        "moviepy_ratio": ours / moviepy,
        "peak_bytes": max(peaks_bytes),
        "shape": f"60 s {_WIDTH_PX}x{_HEIGHT_PX} {_FRAME_RATE_HZ} fps h264 + aac stereo 44.1 kHz, {size_mib:.1f} MiB; "
        f"read at {_FPS:g} fps as {_SMALL_PX[0]}x{_SMALL_PX[1]} with 16 kHz mono; peer: ffmpeg pipe",
        "repeats": repeats,
    }


def _measure(reader: Callable[[str], tuple[int, int]], path: str) -> tuple[float, int, tuple[int, int]]:
    """Runs in a fresh process: seconds, bytes of memory above the imports, and what was read (frames, samples)."""
    reader("")  # imports only
    before_bytes = peak_bytes()
    start_s = time.perf_counter()
    counts = reader(path)
    return time.perf_counter() - start_s, peak_bytes() - before_bytes, counts


def _read_ours(path: str) -> tuple[int, int]:
    if not path:
        return 0, 0
    clip = read_clip(path, fps=_FPS)
    assert clip.frames.shape[1:3] == _SMALL_PX[::-1] and clip.waveform is not None
    return len(clip.frames), len(clip.waveform)


def _read_ffmpeg(path: str) -> tuple[int, int]:
    """One ffmpeg process: raw frames through its stdout, samples through a second pipe."""
    import imageio_ffmpeg

    if not path:
        return 0, 0
    width_px, height_px = _SMALL_PX
    read_end, write_end = os.pipe()
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path,
        "-map", "0:v", "-vf", f"fps={_FPS}:round=up,scale={width_px}:{height_px}:flags=area",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1",
        "-map", "0:a", "-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-f", "s16le", f"pipe:{write_end}",
    ]  # fmt: skip
    sound = bytearray()
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[write_end]) as process:
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            listener = threading.Thread(target=lambda: sound.extend(pipe.read()))
            listener.start()
            assert process.stdout is not None
            picture = process.stdout.read()
            listener.join()
    frames = np.frombuffer(picture, dtype=np.uint8).reshape(-1, height_px, width_px, 3)
    waveform = np.frombuffer(sound, dtype=np.int16) / np.float32(32768)
    return len(frames), len(waveform)


def _read_moviepy(path: str) -> tuple[int, int]:
    from moviepy import VideoFileClip

    if not path:
        return 0, 0
    with VideoFileClip(path, target_resolution=_SMALL_PX) as clip:
        frames = np.stack(list(clip.iter_frames(fps=_FPS)))
        waveform = clip.audio.to_soundarray(fps=SAMPLE_RATE_HZ).mean(axis=1, dtype=np.float32)
    return len(frames), len(waveform)


def _write_clip(path: Path, seed: int) -> None:
    """Two textures that drift apart, with noise bursts and a tone: work for the decoder as in a filmed clip."""
    import imageio_ffmpeg

    rng = np.random.default_rng(seed)
    rate_hz = 44_100
    time_s = np.arange(_DURATION_S * rate_hz) / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * 330 * time_s) + 0.2 * rng.standard_normal(len(time_s)) * (time_s % 1 < 0.2)
    samples = path.with_suffix(".s16le")
    np.repeat((tone.clip(-1, 1) * 32767).astype("<i2"), 2).tofile(samples)
    back, front = (_texture(rng, 2 * _HEIGHT_PX, 2 * _WIDTH_PX) for _ in range(2))
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p",
        "-s", f"{_WIDTH_PX}x{_HEIGHT_PX}", "-r", str(_FRAME_RATE_HZ), "-i", "pipe:0",
        "-f", "s16le", "-ar", str(rate_hz), "-ac", "2", "-i", str(samples),
        "-c:v", "libx264", "-preset", "veryfast", "-b:v", "4M", "-c:a", "aac", str(path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for k in range(_DURATION_S * _FRAME_RATE_HZ):
            process.stdin.write(_drawn_frame(back, front, k / _FRAME_RATE_HZ))
    if process.returncode:
        raise RuntimeError(f"ffmpeg could not write the clip to be read (exit status {process.returncode})")


def _texture(rng: np.random.Generator, height_px: int, width_px: int) -> np.ndarray:
    """(height, width) uint8: smooth patches under fine grain."""
    patches = rng.integers(40, 200, (height_px // 40, width_px // 40)).repeat(40, 0).repeat(40, 1)
    return (patches + rng.integers(0, 24, (height_px, width_px))).astype(np.uint8)


def _drawn_frame(back: np.ndarray, front: np.ndarray, time_s: float) -> bytes:
    """One yuv420p picture: the back texture drifts, a window onto the front one circles over it."""
    shift_y, shift_x = (
        int(size * (0.5 + 0.45 * np.sin(w * time_s))) for size, w in ((_HEIGHT_PX, 0.31), (_WIDTH_PX, 0.23))
    )
    light = back[shift_y : shift_y + _HEIGHT_PX, shift_x : shift_x + _WIDTH_PX].copy()
    top, left = int(180 + 170 * np.sin(time_s)), int(480 + 470 * np.cos(0.8 * time_s))
    light[top : top + 300, left : left + 300] = front[shift_y : shift_y + 300, shift_x : shift_x + 300]
    return light.tobytes() + light[::2, ::2].tobytes() + np.roll(light, 64, axis=1)[::2, ::2].tobytes()
