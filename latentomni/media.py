"""A video or sound file becomes a Clip: the frames shown at regular times and a 16 kHz mono waveform. The door to PyAV.

Time 0 is the moment the earlier of the two streams is first presented, as on a player's clock: edit lists, encoder
priming and non-zero start times are accounted for. Dimensions: F frames, H rows, W columns, N samples.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.config import MediaLimits
from latentomni.errors import MediaError, RequestError

__all__ = ["Clip", "MediaInfo", "probe", "read_clip"]

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,wav,mp3,flac,ogg"  # a playlist could open other files
_READABLE = "mp4, mov, webm, mkv, avi, gif, wav, mp3, flac, ogg and m4a can be read"
_Container, _Stream = av.container.InputContainer, av.stream.Stream
_LIMITS = MediaLimits()
_SILENCE = 1e-4  # peak of full scale (-80 dB); the dither of 16-bit sound stays below
_JUMP_S = 0.05  # timestamps of unbroken sound jitter by less than this
_MAX_TIE_S = 5e-4  # a container that counts milliseconds rounds a frame's time by up to this much
_MISSING_S = 1.0  # a file that ends this much before its header says has lost its end


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip in memory. Frame i is what a player shows at i / sample_fps; one that is held long appears repeatedly.

    frames: (F, H, W, 3) uint8 RGB, upright, square pixels; F is 0 for sound only.
    frame_times_s: (F,) float64 seconds from clip start at which each frame was first presented; never decreasing.
    waveform: (N,) float32 in [-1, 1], mono at 16 kHz, from clip start to clip end; None without a sound track.
    sha256: hash of the file's bytes. notices: sentences about what is missing, was cut or lowered.
    """

    frames: np.ndarray
    frame_times_s: np.ndarray
    waveform: np.ndarray | None
    duration_s: float
    sample_fps: float
    sha256: str
    name: str
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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
    """What a file's header says. A codec is None where the stream is missing; the size is in stored pixels."""

    name: str
    size_bytes: int
    duration_s: float
    video_codec: str | None
    width_px: int
    height_px: int
    frame_rate_hz: float
    audio_codec: str | None


def probe(path: str | Path, limits: MediaLimits = _LIMITS) -> MediaInfo:
    """Read a file's header and hold it against the limits; nothing is decoded.

    Raises MediaError, one sentence that says why, for a file that cannot be used.
    """
    file = _checked(Path(path), limits)
    with _opened(file, limits) as container:
        streams = _streams(container, file.name)
        duration_s = _header_duration_s(container) or _timeline(container, streams, file.name).duration_s
        return _described(streams, file, duration_s, limits)


def read_clip(
    path: str | Path,
    *,
    fps: float = 2.0,
    max_pixels: int = 448 * 448,
    limits: MediaLimits = _LIMITS,
    cancelled: Callable[[], bool] | None = None,
) -> Clip:
    """Decode a file: the frames shown at 0, 1/fps, 2/fps ... seconds, and the whole sound.

    max_pixels: frames are scaled down to at most this many (even sides, aspect kept). `cancelled` is asked between
    packets. Raises MediaError, one sentence that says why, for a file that cannot be used or a read that was stopped.
    """
    if not 0 < fps < math.inf or max_pixels < 4:
        raise RequestError(f"fps must be positive and max_pixels at least 4, got {fps} and {max_pixels}")
    file = _checked(Path(path), limits)
    with _opened(file, limits) as container:
        streams = _streams(container, file.name)
        timeline = _timeline(container, streams, file.name)
        info = _described(streams, file, max(_header_duration_s(container), timeline.duration_s), limits)
    picture, sound = _Picture(timeline, fps, max_pixels, limits.max_frames), _Sound()
    is_damaged = False
    try:
        with _opened(file, limits) as container:
            for stream, frame in _decoded(container, _streams(container, file.name), picture.needed_ticks, limits):
                if cancelled is not None and cancelled():
                    raise MediaError(f"Reading {file.name} was stopped.")
                if frame is None:
                    is_damaged = True
                    continue
                part = picture if stream.type == "video" else sound
                ticks = frame.dts if frame.pts is None else frame.pts
                time_s = part.end_s if ticks is None else float(ticks * stream.time_base) - timeline.start_s
                part.add(frame, time_s, stream)
        picture.finish()
        sound.finish()
    except (av.FFmpegError, ValueError):
        raise MediaError(f"{file.name} is in a format that cannot be converted; save it as mp4 first.") from None
    return _assembled(file, info, fps, picture, sound, is_damaged)


def _assembled(file: Path, info: MediaInfo, fps: float, picture: "_Picture", sound: "_Sound", is_damaged: bool) -> Clip:
    """Put the parts on one clock and say what is missing."""
    duration_s = max(picture.end_s, sound.end_s)
    if duration_s <= 0:
        raise MediaError(f"Nothing in {file.name} could be decoded; the file is damaged, so export or record it again.")
    waveform = sound.waveform(duration_s) if sound.runs else None
    notices = []
    if not picture.times_s:
        notices.append("This clip has no picture.")
    elif picture.fps < fps:
        notices.append(f"To stay within the limit, {picture.fps:.3g} instead of {fps:.3g} frames per second are read.")
    if waveform is None:
        notices.append("This clip has no sound track.")
    elif np.abs(waveform).max(initial=0.0) < _SILENCE:
        notices.append("The sound track is silent.")
    for wanted, got, what in ((info.video_codec, picture.times_s, "picture"), (info.audio_codec, sound.runs, "sound")):
        if wanted and not got:
            notices.append(f"The {what} of this file could not be decoded.")
    if duration_s < info.duration_s - _MISSING_S:
        notices.append(f"The file breaks off: {duration_s:.1f} of {info.duration_s:.1f} seconds could be read.")
    elif is_damaged:
        notices.append("Parts of the file are damaged and were left out.")
    frames, times_s = picture.rows[: len(picture.times_s)], np.array(picture.times_s, dtype=np.float64)
    return Clip(frames, times_s, waveform, duration_s, picture.fps, _sha256(file), file.name, tuple(notices))


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


def _streams(container: _Container, name: str) -> list[_Stream]:
    """The best picture and the best sound for which there is a decoder; cover art is no picture."""
    best = [stream for kind in ("video", "audio") if (stream := container.streams.best(kind)) is not None]
    cover = av.stream.Disposition.attached_pic
    found = [s for s in best if s.codec_context is not None and cover not in s.disposition]
    if not found:
        raise MediaError(f"{name} holds neither a picture nor a sound that can be decoded ({_READABLE}).")
    return found


def _header_duration_s(container: _Container) -> float:
    """0 where the header does not say, guesses (mp3), or counts from the wrong moment (matroska that starts late)."""
    is_vague = container.format.name == "mp3" or (container.start_time or 0) > av.time_base // 2
    return 0.0 if is_vague else max(container.duration or 0, 0) / av.time_base


def _described(streams: list[_Stream], file: Path, duration_s: float, limits: MediaLimits) -> MediaInfo:
    """The header as MediaInfo; refuses what lies outside the limits."""
    if duration_s > limits.max_duration_s:
        length = f"{duration_s:.0f} s, longer than the {limits.max_duration_s:.0f} s allowed"
        raise MediaError(f"{file.name} lasts {length}; cut it shorter.")
    video, audio = (next((s for s in streams if s.type == kind), None) for kind in ("video", "audio"))
    video_codec, audio_codec = (s and s.codec_context.codec.canonical_name for s in (video, audio))
    width_px, height_px = (video.codec_context.width, video.codec_context.height) if video else (0, 0)
    if width_px * height_px > limits.max_frame_pixels:
        raise MediaError(f"{file.name} has frames of {width_px}x{height_px} pixels, too many to read; scale it down.")
    rate_hz, size_bytes = float(video.average_rate or 0) if video else 0.0, file.stat().st_size
    return MediaInfo(file.name, size_bytes, duration_s, video_codec, width_px, height_px, rate_hz, audio_codec)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Timeline:
    """When packets are presented, known without decoding them.

    start_s: the file's timestamp of time 0. picture_ticks: sorted, in units of tick_s; None where a packet has none.
    """

    start_s: float
    duration_s: float
    picture_ticks: np.ndarray | None
    picture_end_s: float
    tick_s: float


def _timeline(container: _Container, streams: list[_Stream], name: str) -> _Timeline:
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
    return _Timeline(start_s, max(ends_s.values()) - start_s, known, ends_s.get("video", start_s) - start_s, tick_s)


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


class _Picture:
    """Keeps what is shown at 0, 1/fps, 2/fps ... while frames arrive in order of presentation.

    The first frame also stands for the moments before it, as it does in a player.
    """

    def __init__(self, timeline: _Timeline, fps: float, max_pixels: int, max_frames: int) -> None:
        span_s = timeline.picture_end_s
        self._tie_s = min(timeline.tick_s / 2, _MAX_TIE_S)
        self.fps = fps if math.ceil((span_s - self._tie_s) * fps) <= max_frames else max_frames / span_s
        self._count = min(max(math.ceil((span_s - self._tie_s) * self.fps), 1), max_frames)
        self._max_pixels, self._reformatter = max_pixels, VideoReformatter()
        self.rows = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self._held: av.VideoFrame | None = None
        self.times_s: list[float] = []
        self.end_s = 0.0
        self.needed_ticks = None
        if timeline.picture_ticks is not None and len(timeline.picture_ticks):
            shown_s = timeline.picture_ticks * timeline.tick_s - timeline.start_s
            shown = np.searchsorted(shown_s, np.arange(self._count) / self.fps + self._tie_s, side="right") - 1
            self.needed_ticks = set(timeline.picture_ticks[[*shown.clip(0), -1]].tolist())

    def add(self, frame: av.VideoFrame, time_s: float, stream: _Stream) -> None:
        """Take the next frame; the one before it is then known to be shown until `time_s`."""
        if self._held is None:
            self._size_px = _scaled_size(frame, float(stream.sample_aspect_ratio or 1), self._max_pixels)
            self._axes, self._steps = _turn(frame)
        elif time_s <= self._held_s:  # a repeated or broken timestamp
            return
        else:
            self._keep_until(time_s - self._tie_s)
        self._held, self._held_s = frame, time_s
        self.end_s = time_s + (frame.duration * float(stream.time_base) or 1 / float(stream.average_rate or self.fps))

    def finish(self) -> None:
        """Keep the last frame until it ends."""
        if self._held is not None:
            self._keep_until(max(self.end_s - self._tie_s, 1 / self.fps if not self.times_s else 0.0))

    def _keep_until(self, end_s: float) -> None:
        first, last = len(self.times_s), min(math.ceil(end_s * self.fps), self._count)
        if last <= first:
            return
        scaled = self._reformatter.reformat(self._held, *self._size_px, "rgb24", interpolation="AREA")
        picture = scaled.to_ndarray().transpose(*self._axes, 2)[:: self._steps[0], :: self._steps[1]]
        if not first:
            self.rows = np.empty((self._count, *picture.shape), dtype=np.uint8)
        self.rows[first:last] = picture
        self.times_s += [max(self._held_s, 0.0)] * (last - first)


def _scaled_size(frame: av.VideoFrame, pixel_aspect: float, max_pixels: int) -> tuple[int, int]:
    """Width and height before turning: square pixels, even sides, at most `max_pixels`."""
    width_px, height_px = frame.width * pixel_aspect, frame.height
    scale = min(1.0, math.sqrt(max_pixels / (width_px * height_px)))
    even_height_px = max(2, min(int(height_px * scale + 1e-6), max_pixels // 2) // 2 * 2)
    return max(2, min(int(width_px * scale + 1e-6), max_pixels // even_height_px) // 2 * 2), even_height_px


def _turn(frame: av.VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    """Order of the axes (rows, columns), then the steps along them, that turn a stored frame upright."""
    # asked once a file: a frame whose side data was read stays in memory until garbage is collected
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return (0, 1), (1, 1)
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    axes, down, right = ((1, 0), b, c) if abs(b) > abs(a) else ((0, 1), d, a)
    return axes, (-1 if down < 0 else 1, -1 if right < 0 else 1)


class _Sound:
    """Resamples a sound track as it arrives; each unbroken run of it is laid where its timestamp says."""

    def __init__(self) -> None:
        self.end_s = 0.0
        self.runs: list[tuple[float, list[np.ndarray]]] = []  # start in seconds, chunks of int16 at 16 kHz
        self._form: tuple[str, str, int] | None = None

    def add(self, frame: av.AudioFrame, time_s: float, _: _Stream) -> None:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form or abs(time_s - self.end_s) > _JUMP_S:
            self.finish()
            self.end_s, self._form = time_s, form
            self.runs.append((time_s, []))
            # 16-bit output makes the mixer scale a sum of channels so that it cannot clip
            self._resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
        self._resample(frame)
        self.end_s += frame.samples / frame.sample_rate

    def finish(self) -> None:
        if self.runs:
            self._resample(None)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        self.runs[-1][1].extend(part.to_ndarray()[0] for part in self._resampler.resample(frame))

    def waveform(self, duration_s: float) -> np.ndarray:
        """(N,) float32 over the whole clip; silence where no sound was stored."""
        whole = np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)
        for start_s, chunks in self.runs:
            first = round(start_s * SAMPLE_RATE_HZ)
            samples = np.concatenate([np.empty(0, np.int16), *chunks])[max(-first, 0) :]
            target = whole[max(first, 0) :][: len(samples)]
            target[:] = samples[: len(target)] / np.float32(32768)
        return whole
