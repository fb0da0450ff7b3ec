"""What the player shows: a video or sound that the browser can play, else the pictures and the sound that a trace keeps."""

import wave
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from gradio import FileData

from latentomni.config import MediaLimits
from latentomni.isolation import probe_isolated
from latentomni.media import MediaInfo
from latentomni.trace import Trace

__all__ = ["LIMITS", "header", "is_trace_file", "player_of_file", "player_of_trace"]

LIMITS = MediaLimits()
_VIDEO_FILES = {".mp4", ".m4v", ".mov", ".webm"}
_VIDEO_CODECS = {"h264", "vp8", "vp9", "av1"}
_SOUND_FILES = {".wav", ".mp3", ".ogg", ".flac", ".m4a", ".mp4", ".webm"}


def is_trace_file(path: str) -> bool:
    return Path(path).suffix.lower() == ".zip"


def header(path: str) -> MediaInfo:
    """What a clip's header says, read in a process of its own and remembered. MediaError where it is no clip."""
    status = Path(path).stat() if Path(path).is_file() else None
    return _header(path, status and (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=256)
def _header(path: str, _: tuple[int, int] | None) -> MediaInfo:
    return probe_isolated(path, LIMITS)


def player_of_file(path: str, media: dict[str, Any] | None = None, key: str = "", start_s: float = 0.0) -> dict[str, Any]:
    """The player's value for a clip; `media` and `key` as `visualizers.view` gives them. MediaError where it is no clip.
    start_s: where the part that the model read begins; the page's clock counts from there."""
    info = header(path)
    suffix = Path(path).suffix.lower()
    if info.video_codec:
        kind = "video" if suffix in _VIDEO_FILES and info.video_codec in _VIDEO_CODECS else "unplayable"
    else:
        kind = "audio" if suffix in _SOUND_FILES else "unplayable"
    facts = [f"{info.duration_s:.1f} s"]
    facts += [f"{info.width_px} × {info.height_px}"] * bool(info.video_codec)
    facts += ["no sound track"] * (info.audio_codec is None)
    return {
        "kind": kind, "file": _file(path), "name": info.name, "facts": ", ".join(facts), "media": media, "key": key, "start_s": start_s,
    }  # fmt: skip


def player_of_trace(trace: Trace, folder: str, media: dict[str, Any]) -> dict[str, Any]:
    """The player's value where there is no file to play: stills, moved by a sound file written to `folder`."""
    path = Path(folder) / f"sound-{trace.clip.sha256[:16]}.wav"
    rate_hz, sound = trace.sound_hz, trace.clip.sound
    if sound is None or not len(sound):  # silence still gives the page a clock
        rate_hz, sound = 8000, np.zeros(round(trace.clip.duration_s * 8000), np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(sound.astype("<i2").tobytes())
    kind = "stills" if trace.clip.thumbnails else "audio"
    facts = f"{trace.clip.duration_s:.1f} s, from the saved answer"
    return {
        "kind": kind,
        "file": _file(path),
        "name": trace.clip.name,
        "facts": facts,
        "media": media,
        "key": trace.clip.sha256,
        "start_s": 0.0,
    }


def _file(path: str | Path) -> dict[str, Any]:
    return FileData(path=str(path), orig_name=Path(path).name).model_dump()
