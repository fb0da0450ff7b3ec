"""Frames and samples of one file as a decoder hands them out, laid on the clip's clock. Only `media` uses it, and PyAV's types.

Dimensions: F frames, N samples.
"""

import math
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from latentomni.clock import SAMPLE_RATE_HZ

__all__ = ["Picture", "Sound", "Timeline", "frame_grid", "scaled_size"]

_Stream = av.stream.Stream
_JUMP_S = 0.05  # timestamps of unbroken sound jitter by less than this
_MAX_TIE_S = 5e-4  # a container that counts milliseconds rounds a frame's time by up to this much


@dataclass(frozen=True)
class Timeline:
    """When packets are presented, known without decoding them.

    start_s: the file's timestamp of time 0. picture_ticks: sorted, in units of tick_s; None where a packet has none.
    """

    start_s: float
    duration_s: float
    picture_ticks: np.ndarray | None
    picture_end_s: float
    tick_s: float


class Picture:
    """Keeps what is shown at 0, 1/fps, 2/fps ... seconds after the cut's start while frames arrive in order of presentation.

    The first frame also stands for the moments before it, as it does in a player.
    """

    def __init__(self, timeline: Timeline, fps: float, max_pixels: int, max_frames: int, cut_s: tuple[float, float]) -> None:
        self._start_s, end_s = cut_s
        self._tie_s = min(timeline.tick_s / 2, _MAX_TIE_S)
        self.fps, self._count = frame_grid(min(timeline.picture_end_s, end_s) - self._start_s, fps, max_frames, self._tie_s)
        self._max_pixels, self._reformatter = max_pixels, VideoReformatter()
        self.rows = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self._held: av.VideoFrame | None = None
        self.times_s: list[float] = []
        self.end_s = 0.0
        self.needed_ticks = None
        if timeline.picture_ticks is not None and len(timeline.picture_ticks):
            shown_s = timeline.picture_ticks * timeline.tick_s - timeline.start_s
            grid_s = self._start_s + np.arange(self._count) / self.fps
            shown = np.searchsorted(shown_s, grid_s + self._tie_s, side="right") - 1
            self.needed_ticks = set(timeline.picture_ticks[[*shown.clip(0), -1]].tolist())

    def add(self, frame: av.VideoFrame, time_s: float, stream: _Stream) -> None:
        """Take the next frame; the one before it is then known to be shown until `time_s`."""
        if self._held is None:
            self._size_px = scaled_size(frame.width * float(stream.sample_aspect_ratio or 1), frame.height, self._max_pixels)
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
            self._keep_until(max(self.end_s - self._tie_s, self._start_s + 1 / self.fps if not self.times_s else 0.0))

    def _keep_until(self, end_s: float) -> None:
        first, last = len(self.times_s), min(math.ceil((end_s - self._start_s) * self.fps), self._count)
        if last <= first:
            return
        scaled = self._reformatter.reformat(self._held, *self._size_px, "rgb24", interpolation="AREA")
        picture = scaled.to_ndarray().transpose(*self._axes, 2)[:: self._steps[0], :: self._steps[1]]
        if not first:
            self.rows = np.empty((self._count, *picture.shape), dtype=np.uint8)
        self.rows[first:last] = picture
        self.times_s += [max(self._held_s - self._start_s, 0.0)] * (last - first)


def frame_grid(span_s: float, fps: float, max_frames: int, tie_s: float = _MAX_TIE_S) -> tuple[float, int]:
    """Frames per second, lowered where there would be more than `max_frames`, and how many frames a picture of `span_s` gives."""
    if span_s <= 0:
        return fps, 0
    fps = fps if math.ceil((span_s - tie_s) * fps) <= max_frames else max_frames / span_s
    return fps, min(max(math.ceil((span_s - tie_s) * fps), 1), max_frames)


def scaled_size(width_px: float, height_px: int, max_pixels: int) -> tuple[int, int]:
    """Width and height before turning, of a picture whose pixels are square: even sides, at most `max_pixels`."""
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


class Sound:
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

    def waveform(self, start_s: float, duration_s: float) -> np.ndarray:
        """(N,) float32 of `duration_s` from `start_s` on; silence where no sound was stored."""
        whole = np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)
        for run_start_s, chunks in self.runs:
            first = round((run_start_s - start_s) * SAMPLE_RATE_HZ)
            samples = np.concatenate([np.empty(0, np.int16), *chunks])[max(-first, 0) :]
            target = whole[max(first, 0) :][: len(samples)]
            target[:] = samples[: len(target)] / np.float32(32768)
        return whole
