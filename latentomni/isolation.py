"""Strangers' files are decoded in a process of their own, which has PyAV and numpy, little memory, little time and nothing to write.

What that process says counts as untrusted: one line of JSON, then raw arrays, all held against the limits. Whatever becomes of
it (it crashes, hangs, or takes too much memory) ends as a MediaError in one sentence. Dimensions: F frames, H rows, W columns,
N samples.
"""

import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.config import MediaLimits, ReadingSpec
from latentomni.errors import MediaError, RequestError
from latentomni.media import Clip, MediaInfo, hashes, probe, read_clip

__all__ = ["probe_isolated", "read_isolated", "serve"]

_LIMITS, _PLAIN = MediaLimits(), ReadingSpec()
_PROBE_S = 30.0  # most that a header may take
_POLL_S = 0.02
_HEADER_BYTES = 1 << 16
_MAX_CHARS = 400  # of a sentence
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # no keys, no proxies
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # each costs address space
_ERRORS = {"MediaError": MediaError, "RequestError": RequestError}
_log = logging.getLogger(__name__)


class _Bloated(Exception):
    """The process had not enough memory. Where this one has not, that is a MemoryError of its own."""


class _Unfit(Exception):
    """What the process said does not follow the format."""


def probe_isolated(path: str | Path, limits: MediaLimits = _LIMITS) -> MediaInfo:
    """`probe` in a process of its own. Raises MediaError."""
    request = {"limits": asdict(limits)}
    return _asked(Path(path), request, limits, min(_PROBE_S, limits.max_read_s), None, _received_info)


def read_isolated(
    path: str | Path,
    *,
    fps: float = 2.0,
    max_pixels: int = 448 * 448,
    limits: MediaLimits = _LIMITS,
    cancelled: Callable[[], bool] | None = None,
    reading: ReadingSpec = _PLAIN,
) -> Clip:
    """`read_clip` in a process of its own: the same clip, bit for bit. `cancelled` is asked all the time; the process is then ended.

    Raises MediaError, RequestError as `read_clip` does, and MediaError where limits.max_read_s or .max_memory_bytes are exceeded.
    """
    path = Path(path)
    request = {"limits": asdict(limits), "fps": fps, "max_pixels": max_pixels, "reading": reading.changes}
    most_pixels = max(max_pixels, reading.max_pixels or 0)

    def received(header: dict[str, Any], pipe: BinaryIO) -> Clip:
        return _received_clip(header, pipe, path, limits, most_pixels, reading)

    return _asked(path, request, limits, limits.max_read_s, cancelled, received)


def _asked(
    path: Path,
    request: dict[str, Any],
    limits: MediaLimits,
    limit_s: float,
    cancelled: Callable[[], bool] | None,
    received: Callable[..., Any],
) -> Any:
    """What `received` makes of the answer of a fresh process, which has ended when this returns."""
    request = {**request, "path": str(path), "limit_s": limit_s}
    code = f"import sys; sys.path[:] = {[os.path.abspath(p) for p in sys.path]!r}; from latentomni.isolation import serve; serve()"
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**kept, **_ONE_THREAD}
    )  # fmt: skip
    deadline_s = time.monotonic() + limit_s
    with child, ThreadPoolExecutor(1) as receiver:
        try:
            answer = receiver.submit(_exchanged, child, request, received)
            while not wait([answer], timeout=_POLL_S).done:
                if cancelled is not None and cancelled():
                    raise MediaError(f"Reading {path.name} was stopped.")
                if time.monotonic() > deadline_s:
                    _log.warning("the reader of %r took more than %g s", path.name, limit_s)
                    raise MediaError(
                        f"{path.name} takes more than {limit_s:g} s to read; cut it shorter or scale it down."
                    )
            return answer.result()
        except _Bloated:
            most = f"{limits.max_memory_bytes >> 20} MiB"
            _log.warning("the reader of %r took more than %s", path.name, most)
            raise MediaError(
                f"{path.name} needs more than {most} of memory to be read; cut it shorter or scale it down."
            ) from None
        except (_Unfit, OSError) as error:
            child.kill()
            _log.warning("the reader of %r ended with status %s: %s", path.name, child.wait(), error)
            raise MediaError(
                f"{path.name} cannot be read, because reading it broke the decoder; save it as mp4 first."
            ) from None
        finally:
            child.kill()  # the receiver then finds the end of the pipe


def _exchanged(child: subprocess.Popen, request: dict[str, Any], received: Callable[..., Any]) -> Any:
    """Send the request, read the answer. Raises what the process reports, _Unfit where it says nothing sensible."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.close()
    line = child.stdout.readline(_HEADER_BYTES)
    try:
        header = json.loads(line)
        kind, text = header.get("error"), header.get("text")
    except (ValueError, RecursionError, AttributeError):
        raise _Unfit(f"it said {line[:80]!r}") from None
    if kind == "memory":
        raise _Bloated
    if kind in _ERRORS and isinstance(text, str):
        text = text.replace(request["path"], Path(request["path"]).name)  # a server's folders are nobody's business
        raise _ERRORS[kind]("".join(c if c.isprintable() else "\ufffd" for c in text[:_MAX_CHARS]))
    if kind is not None:
        raise _Unfit(f"it failed with {text!r:.400}")
    try:
        return received(header, child.stdout)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _Unfit(f"its answer does not fit ({error!r})") from None


def _received_info(header: dict[str, Any], _: BinaryIO) -> MediaInfo:
    info = MediaInfo(**header["info"])
    for name, kind in MediaInfo.__annotations__.items():
        value = getattr(info, name)
        fits = (
            isinstance(value, kind)
            and not isinstance(value, bool)
            and (not isinstance(value, float) or math.isfinite(value))
        )
        if not fits:
            raise _Unfit(f"{name} is {value!r:.80}")
    return info


def _received_clip(
    header: dict[str, Any], pipe: BinaryIO, path: Path, limits: MediaLimits, most_pixels: int, reading: ReadingSpec
) -> Clip:
    count, height_px, width_px = (int(n) for n in header["frames"])
    samples, duration_s = header["samples"], float(header["duration_s"])
    most_samples = round((limits.max_duration_s + 2) * SAMPLE_RATE_HZ)
    fits = 0 <= count <= limits.max_frames and min(height_px, width_px) >= 0 and height_px * width_px <= most_pixels
    if not (fits and 0 <= (samples or 0) <= most_samples and all(isinstance(note, str) for note in header["notices"])):
        raise _Unfit(f"its clip is beyond the limits: {str(header)[:200]}")
    times_s = _array(pipe, (count,), np.float64)
    frames = _array(pipe, (count, height_px, width_px, 3), np.uint8)
    waveform = None if samples is None else _array(pipe, (int(samples),), np.float32)
    if not np.isfinite(times_s).all() or (waveform is not None and not np.isfinite(waveform).all()):
        raise _Unfit("its clip is not finite")
    of_file, sha256 = hashes(path, reading)
    notices = tuple(note[:_MAX_CHARS] for note in header["notices"])
    return Clip(
        frames, times_s, waveform, duration_s, float(header["sample_fps"]), sha256, path.name, notices, reading, of_file
    )


def _array(pipe: BinaryIO, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.empty(shape, dtype)
    bytes_left = memoryview(array.reshape(-1).view(np.uint8))
    while len(bytes_left):
        got = pipe.readinto(bytes_left)  # type: ignore[attr-defined]
        if not got:
            raise _Unfit(f"it ended {len(bytes_left)} bytes early")
        bytes_left = bytes_left[got:]
    return array


def serve() -> None:
    """The process: one request on standard input, one answer on standard output."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # no library may write between the arrays
    request = json.loads(sys.stdin.buffer.readline())
    limits = MediaLimits(**request["limits"])
    try:
        _confine(limits, request["limit_s"])
        header, arrays = _made(request, limits)
    except MemoryError:
        header, arrays = {"error": "memory"}, []
    except Exception as error:  # of any kind: a hostile file chose it
        told = str(error) if type(error).__name__ in _ERRORS else f"{error!r} in {_place(error)}"
        header, arrays = {"error": type(error).__name__, "text": told}, []
    with pipe:
        pipe.write(json.dumps(header).encode() + b"\n")
        for array in arrays:
            pipe.write(memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
    os._exit(0)  # what is torn down may break, too


def _made(request: dict[str, Any], limits: MediaLimits) -> tuple[dict[str, Any], list[np.ndarray]]:
    if "fps" not in request:
        return {"info": asdict(probe(request["path"], limits))}, []
    reading = ReadingSpec.from_dict(request["reading"])
    clip = read_clip(
        request["path"], fps=request["fps"], max_pixels=request["max_pixels"], limits=limits, reading=reading
    )
    arrays = [clip.frame_times_s, clip.frames, *([] if clip.waveform is None else [clip.waveform])]
    header = {
        "frames": clip.frames.shape[:3], "samples": None if clip.waveform is None else len(clip.waveform), "duration_s": float(clip.duration_s),
        "sample_fps": float(clip.sample_fps), "notices": clip.notices,
    }  # fmt: skip
    return header, arrays


def _confine(limits: MediaLimits, limit_s: float) -> None:
    """Bound this process where the system can: memory, processor time should its parent be gone, and no file is written."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most_s = math.ceil(limit_s * (os.cpu_count() or 1)) + 1
    for name, most in (
        ("RLIMIT_AS", limits.max_memory_bytes),
        ("RLIMIT_CPU", most_s),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
    ):
        with suppress(ValueError, OSError):  # a limit that the system has but does not let be set
            resource.setrlimit(getattr(resource, name), (most, most))


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
