"""A video or sound file becomes a Clip: the frames shown at regular times and a 16 kHz mono waveform. The door to PyAV.

Time 0 is the moment the earlier of the two streams is first presented, as on a player's clock: edit lists, encoder
priming and non-zero start times are accounted for. Dimensions: F frames, H rows, W columns, N samples.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from latentomni.config import MediaLimits, ReadingSpec
from latentomni.errors import MediaError, RequestError
from latentomni.tracks import Picture, Sound, Timeline

__all__ = ["Clip", "MediaInfo", "hashes", "probe", "read_clip"]

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,wav,mp3,flac,ogg"  # a playlist could open other files
_READABLE = "mp4, mov, webm, mkv, avi, gif, wav, mp3, flac, ogg and m4a can be read"
_Container, _Stream = av.container.InputContainer, av.stream.Stream
_LIMITS, _PLAIN = MediaLimits(), ReadingSpec()
_SILENCE = 1e-4  # peak of full scale (-80 dB); the dither of 16-bit sound stays below
_MISSING_S = 1.0  # a file that ends this much before its header says has lost its end


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip in memory. Frame i is what a player shows at i / sample_fps; one that is held long appears repeatedly.

    frames: (F, H, W, 3) uint8 RGB, upright, square pixels; F is 0 for sound only.
    frame_times_s: (F,) float64 seconds from clip start at which each frame was first presented; never decreasing.
    waveform: (N,) float32 in [-1, 1], mono at 16 kHz, from clip start to clip end; None without a sound track.
    reading: how it was read; all times count from its cut. file_sha256: hash of the file's bytes. sha256: the same for the
    plain reading, else another: it names what the model is given. notices: sentences about what is missing, was cut or lowered.
    """

    frames: np.ndarray
    frame_times_s: np.ndarray
    waveform: np.ndarray | None
    duration_s: float
    sample_fps: float
    sha256: str
    name: str
    notices: tuple[str, ...] = ()
    reading: ReadingSpec = _PLAIN
    file_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "file_sha256", self.file_sha256 or self.sha256)
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[3] != 3:
            raise ValueError(f"frames must be (F, H, W, 3) uint8, got {self.frames.shape} {self.frames.dtype}")
        if self.frame_times_s.dtype != np.float64 or self.frame_times_s.shape != self.frames.shape[:1]:
            raise ValueError(f"frame_times_s must be ({len(self.frames)},) float64, got {self.frame_times_s.shape}")
        if self.waveform is not None and (self.waveform.dtype != np.float32 or self.waveform.ndim != 1):
            raise ValueError(f"waveform must be (N,) float32, got {self.waveform.shape} {self.waveform.dtype}")
        if not (0 < self.duration_s < math.inf and 0 < self.sample_fps < math.inf):
            raise ValueError(f"a clip lasts and is sampled, got {self.duration_s} s and {self.sample_fps} frames/s")


@dataclass(frozen=True)
class MediaInfo:
    """What a file's header says. A codec is None where the stream is missing; the size is in stored pixels, each
    `pixel_aspect` times as wide as high. picture_end_s: when the last frame ends."""

    name: str
    size_bytes: int
    duration_s: float
    video_codec: str | None
    width_px: int
    height_px: int
    frame_rate_hz: float
    audio_codec: str | None
    picture_end_s: float = 0.0
    pixel_aspect: float = 1.0


def probe(path: str | Path, limits: MediaLimits = _LIMITS) -> MediaInfo:
    """Read a file's header and hold it against the limits; nothing is decoded.

    Raises MediaError, one sentence that says why, for a file that cannot be used.
    """
    file = _checked(Path(path), limits)
    with _opened(file, limits) as container:
        streams = _streams(container, file.name, limits)
        duration_s, picture_end_s = _header_duration_s(container), _header_picture_end_s(container, streams)
        if not duration_s or picture_end_s is None:
            timeline = _timeline(container, streams, file.name)
            duration_s, picture_end_s = duration_s or timeline.duration_s, timeline.picture_end_s
        return replace(_described(streams, file, duration_s, limits), picture_end_s=picture_end_s)


def read_clip(
    path: str | Path,
    *,
    fps: float = 2.0,
    max_pixels: int = 448 * 448,
    limits: MediaLimits = _LIMITS,
    cancelled: Callable[[], bool] | None = None,
    reading: ReadingSpec = _PLAIN,
) -> Clip:
    """Decode a file: the frames shown at 0, 1/fps, 2/fps ... seconds, and the whole sound; or what `reading` asks for.

    max_pixels: frames are scaled down to at most this many (even sides, aspect kept), or to the reading's if these are more.
    `cancelled` is asked between packets. Raises MediaError, one sentence that says why, for a file that cannot be used or a read
    that was stopped, RequestError for a reading that leaves nothing of it.
    """
    if not 0 < fps < math.inf or max_pixels < 4:
        raise RequestError(f"fps must be positive and max_pixels at least 4, got {fps} and {max_pixels}")
    fps, max_pixels = reading.fps or fps, max(max_pixels, reading.max_pixels or 0)
    file = _checked(Path(path), limits)
    with _opened(file, limits) as container:
        streams = _streams(container, file.name, limits)
        timeline = _timeline(container, streams, file.name)
        info = _described(streams, file, max(_header_duration_s(container), timeline.duration_s), limits)
        wanted = _wanted(streams, reading, file.name)
    cut_s = (reading.start_s, math.inf if reading.end_s is None else reading.end_s)
    picture, sound = Picture(timeline, fps, max_pixels, limits.max_frames, cut_s), Sound()
    is_damaged = False
    try:
        with _opened(file, limits) as container:
            streams, unfinished = [s for s in _streams(container, file.name, limits) if s.type in wanted], set(wanted)
            for stream, frame in _decoded(container, streams, picture.needed_ticks, limits):
                if cancelled is not None and cancelled():
                    raise MediaError(f"Reading {file.name} was stopped.")
                if frame is None:
                    is_damaged = True
                    continue
                part = picture if stream.type == "video" else sound
                ticks = frame.dts if frame.pts is None else frame.pts
                time_s = part.end_s if ticks is None else float(ticks * stream.time_base) - timeline.start_s
                _require_short(time_s - _MISSING_S, file, limits)  # packets may have said less
                part.add(frame, time_s, stream)
                if time_s >= cut_s[1]:
                    unfinished.discard(stream.type)
                    if not unfinished:
                        break
        picture.finish()
        sound.finish()
    except MemoryError:  # FFmpeg's is one, too
        raise MediaError(f"{file.name} takes more memory to read than there is; cut it shorter or scale it down.") from None
    except (av.FFmpegError, ValueError):
        raise MediaError(f"{file.name} is in a format that cannot be converted; save it as mp4 first.") from None
    _require_short(max(picture.end_s, sound.end_s) - _MISSING_S, file, limits)
    return _assembled(file, info, fps, picture, sound, is_damaged, reading)


def hashes(path: Path, reading: ReadingSpec = _PLAIN) -> tuple[str, str]:
    """The hash of a file's bytes, and that of a reading of it: another for every reading but the plain one, so that nothing made from
    one is taken for another's."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    of_file = digest.hexdigest()
    if not reading.changes:
        return of_file, of_file
    return of_file, hashlib.sha256(f"{of_file} {json.dumps(reading.changes, sort_keys=True)}".encode()).hexdigest()


def _wanted(streams: list[_Stream], reading: ReadingSpec, name: str) -> set[str]:
    """The types of stream that are there and switched on."""
    wanted = {s.type for s in streams if (reading.picture if s.type == "video" else reading.sound)}
    if not wanted:
        off, other = ("sound", "picture") if reading.picture else ("picture", "sound")
        raise RequestError(f"{name} has no {other}, and its {off} is switched off; switch it on.")
    return wanted


def _assembled(
    file: Path, info: MediaInfo, fps: float, picture: Picture, sound: Sound, is_damaged: bool, reading: ReadingSpec
) -> Clip:
    """Put the parts on one clock."""
    end_s, start_s = max(picture.end_s, sound.end_s), reading.start_s
    if end_s <= 0:
        raise MediaError(f"Nothing in {file.name} could be decoded; the file is damaged, so export or record it again.")
    if end_s <= start_s:
        raise RequestError(f"{file.name} lasts {end_s:.1f} s, so nothing of it is left from {start_s:g} s on; start the cut earlier.")
    end_s = min(end_s, math.inf if reading.end_s is None else reading.end_s)
    waveform = sound.waveform(start_s, end_s - start_s) if sound.runs else None
    notices = [f"Read from {start_s:.1f} to {end_s:.1f} s of the file."] if "start_s" in reading.changes or "end_s" in reading.changes else []
    notices += _shortcomings(info, fps, picture, waveform, reading)
    if reading.picture and reading.sound and end_s < min(info.duration_s, reading.end_s or math.inf) - _MISSING_S:
        notices.append(f"The file breaks off: {end_s:.1f} of {info.duration_s:.1f} seconds could be read.")
    elif is_damaged:
        notices.append("Parts of the file are damaged and were left out.")
    frames, times_s = picture.rows[: len(picture.times_s)], np.array(picture.times_s, dtype=np.float64)
    of_file, sha256 = hashes(file, reading)
    return Clip(frames, times_s, waveform, float(end_s - start_s), float(picture.fps), sha256, file.name, tuple(notices), reading, of_file)


def _shortcomings(info: MediaInfo, fps: float, picture: Picture, waveform: np.ndarray | None, reading: ReadingSpec) -> list[str]:
    """What of picture and sound is off, missing or less than was asked for."""
    notices = []
    if not reading.picture:
        notices.append("The picture is switched off.")
    elif not picture.times_s:
        notices.append("This clip has no picture.")
    elif picture.fps < fps:
        notices.append(f"To stay within the limit, {picture.fps:.3g} instead of {fps:.3g} frames per second are read.")
    if not reading.sound:
        notices.append("The sound is switched off.")
    elif waveform is None:
        notices.append("This clip has no sound track.")
    elif np.abs(waveform).max(initial=0.0) < _SILENCE:
        notices.append("The sound track is silent.")
    if reading.picture and info.video_codec and not picture.end_s:
        notices.append("The picture of this file could not be decoded.")
    if reading.sound and info.audio_codec and waveform is None:
        notices.append("The sound of this file could not be decoded.")
    return notices


def _checked(file: Path, limits: MediaLimits) -> Path:
    """Refuse what the file system alone gives away."""
    if not file.exists():
        raise MediaError(f"There is no file {file}; check the path.")
    if not file.is_file():
        raise MediaError(f"{file} is a folder or a device; give one video or sound file.")
    size_bytes = file.stat().st_size
    if size_bytes == 0:
        raise MediaError(f"{file.name} is empty (0 bytes); record or download it again.")
    if size_bytes > limits.max_bytes:
        size = f"{size_bytes >> 20} MiB, more than the {limits.max_bytes >> 20} MiB allowed"
        raise MediaError(f"{file.name} has {size}; cut it shorter or compress it.")
    return file


def _opened(file: Path, limits: MediaLimits) -> _Container:
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file", "max_pixels": str(limits.max_frame_pixels)}
    try:
        return av.open(str(file.absolute()), mode="r", options=options, metadata_errors="replace")
    except PermissionError:
        raise MediaError(f"{file.name} may not be read; change its permissions.") from None
    except (av.FFmpegError, ValueError):
        raise MediaError(f"{file.name} is not a video or sound file, or is damaged ({_READABLE}).") from None


def _streams(container: _Container, name: str, limits: MediaLimits) -> list[_Stream]:
    """The best picture and the best sound for which there is a decoder; cover art is no picture."""
    if len(container.streams) > limits.max_streams:
        count = f"{len(container.streams)} streams, more than the {limits.max_streams} allowed"
        raise MediaError(f"{name} holds {count}; export it with one picture and one sound.")
    best = [stream for kind in ("video", "audio") if (stream := container.streams.best(kind)) is not None]
    cover = av.stream.Disposition.attached_pic
    found = [s for s in best if s.codec_context is not None and cover not in s.disposition]
    if not found:
        raise MediaError(f"{name} holds neither a picture nor a sound that can be decoded ({_READABLE}).")
    return found


def _header_duration_s(container: _Container) -> float:
    """0 where the header does not say, guesses (mp3), knows of one stream alone (avi), or counts from the wrong moment (matroska
    that starts late)."""
    is_vague = container.format.name in ("mp3", "avi") or (container.start_time or 0) > av.time_base // 2
    return 0.0 if is_vague else max(container.duration or 0, 0) / av.time_base


def _header_picture_end_s(container: _Container, streams: list[_Stream]) -> float | None:
    """0 without a picture; None where the header does not say."""
    video = next((s for s in streams if s.type == "video"), None)
    if video is None:
        return 0.0
    if not video.duration:
        return None
    starts_s = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return float(((video.start_time or 0) + video.duration) * video.time_base) - min(starts_s, default=0.0)


def _require_short(duration_s: float, file: Path, limits: MediaLimits) -> None:
    if duration_s > limits.max_duration_s:
        length = f"{duration_s:.0f} s, longer than the {limits.max_duration_s:.0f} s allowed"
        raise MediaError(f"{file.name} lasts {length}; cut it shorter.")


def _described(streams: list[_Stream], file: Path, duration_s: float, limits: MediaLimits) -> MediaInfo:
    """The header as MediaInfo; refuses what lies outside the limits."""
    _require_short(duration_s, file, limits)
    video, audio = (next((s for s in streams if s.type == kind), None) for kind in ("video", "audio"))
    video_codec, audio_codec = (s and s.codec_context.codec.canonical_name for s in (video, audio))
    width_px, height_px = (video.codec_context.width, video.codec_context.height) if video else (0, 0)
    if width_px * height_px > limits.max_frame_pixels:
        raise MediaError(f"{file.name} has frames of {width_px}x{height_px} pixels, too many to read; scale it down.")
    rate_hz, size_bytes = float(video.average_rate or 0) if video else 0.0, file.stat().st_size
    aspect = float(video.sample_aspect_ratio or 1) if video else 1.0
    return MediaInfo(file.name, size_bytes, duration_s, video_codec, width_px, height_px, rate_hz, audio_codec, pixel_aspect=aspect)


def _timeline(container: _Container, streams: list[_Stream], name: str) -> Timeline:
    ticks: list[int | None] = []
    ends_s = {stream.type: 0.0 for stream in streams}
    with suppress(av.FFmpegError):  # a file that breaks off: what lies before is good
        for packet in container.demux(streams):
            if packet.has_sidedata("encryption_info"):
                raise MediaError(f"{name} is encrypted (DRM); use a copy without protection.")
            shown = packet.dts if packet.pts is None else packet.pts
            if shown is None or packet.is_discard:
                continue
            kind = packet.stream.type
            ends_s[kind] = max(ends_s[kind], float((shown + (packet.duration or 0)) * packet.time_base))
            if kind == "video":
                ticks.append(packet.pts)
    tick_s = next((float(s.time_base) for s in streams if s.type == "video"), 1.0)
    known = None if None in ticks else np.sort(np.array(ticks, dtype=np.int64))
    starts_s = {s.type: float(s.start_time * s.time_base) for s in streams if s.start_time is not None}
    if known is not None and len(known):  # some containers count the start in order of decoding
        starts_s["video"] = known[0] * tick_s
    start_s = min(starts_s.values(), default=0.0)
    return Timeline(start_s, max(ends_s.values()) - start_s, known, ends_s.get("video", start_s) - start_s, tick_s)


def _decoded(
    container: _Container, streams: list[_Stream], needed_ticks: set[int] | None, limits: MediaLimits
) -> Iterator[tuple[_Stream, av.frame.Frame | None]]:
    """Decoded frames with their stream, in file order; None in place of a frame that is damaged.

    A picture outside `needed_ticks` that no other picture refers to is not decoded (None: all are).
    """
    for stream in streams:
        stream.codec_context.options = {"max_pixels": str(limits.max_frame_pixels)}
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = 8  # a skipped picture takes a turn too: one thread a core leaves cores idle
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            if needed_ticks is not None and packet.stream.type == "video":
                is_needed = packet.pts is None or packet.pts in needed_ticks
                packet.stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            yield streams[0], None
            continue
        for frame in frames:
            yield packet.stream, frame
    for stream in streams:
        with suppress(av.FFmpegError):  # flushed already, unless the demuxer broke off
            yield from ((stream, frame) for frame in stream.decode(None))
