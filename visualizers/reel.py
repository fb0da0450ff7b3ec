"""The evidence reel: the moments that a run cites, cut together from its clip with captions below, as one mp4. A door to moviepy.

Of every block the stated window plays, then the moments that most of its latents are most similar to; the answer comes last.
Dimensions: H rows, W columns of a picture.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentomni.clock import Window
from latentomni.errors import MediaError, plain, require
from latentomni.evidence import block_moment
from latentomni.trace import SIGNIFICANT_P, Block, Trace
from visualizers.captions import BAND_PX, WIDTH_PX, Caption, draw_answer, draw_band, fit_picture

if TYPE_CHECKING:
    from moviepy import VideoClip

__all__ = ["Part", "reel_parts", "write_reel"]

_LEAST_S, _MOST_S, _ANSWER_S = 1.5, 8.0, 2.5
_FPS = 25


@dataclass(frozen=True)
class Part:
    """One cut. played: the part of the clip that is shown; the cited moment with what stands around it where that is short."""

    caption: Caption
    played: Window


def reel_parts(trace: Trace) -> tuple[Part, ...]:
    """The cuts of a run, in order. RequestError for a run without blocks."""
    require(bool(trace.blocks), f"A reel shows what latent blocks cite, and this answer in {plain(trace.mode, 40)} mode has none; ask in latent mode.")
    duration_s = trace.clip.duration_s
    captions = [caption for number, block in enumerate(trace.blocks, 1) for caption in _captions(trace, block, number)]
    return tuple(Part(caption, _played(caption.cited, duration_s)) for caption in captions)


def _captions(trace: Trace, block: Block, number: int) -> Iterator[Caption]:
    duration_s = trace.clip.duration_s
    window = block.window.clamped(duration_s)
    verb = "assumed" if block.window_source == "nominal" else "stated"
    yield Caption(trace.question, f"Block {number}: {verb} window {_span(window)}", "", window, duration_s, "")
    for modality, name in (("visual", "Pictures"), ("audio", "Sounds")):
        latents = [z for z in block.latents if z.modality == modality]
        found = block_moment(z.matches for z in latents)
        if found is None or found[0] >= duration_s:
            continue
        voters = [z for z in latents if z.matches and (z.matches[0].start_s, z.matches[0].end_s) == found]
        p = [value for value in (z.p if z.p_corrected is None else z.p_corrected for z in voters) if value is not None]
        certainty = f"p {np.median(p):.2g}" if p else "no null: ranks only"
        detail = f"{len(voters)} of {len(latents)} {modality} latents of block {number}"
        if p and np.median(p) > SIGNIFICANT_P:
            detail += ", no evidence"
        moment = Window(float(found[0]), max(min(float(found[1]), duration_s), float(found[0]) + 0.01))
        yield Caption(trace.question, f"{name}: most similar to {_span(moment)}, {certainty}", detail, moment, duration_s, modality)


def _span(window: Window) -> str:
    return f"{window.start_s:.1f}–{window.end_s:.1f} s"


def _played(cited: Window, duration_s: float) -> Window:
    length_s = min(max(cited.duration_s, _LEAST_S), _MOST_S, duration_s)
    start_s = cited.start_s if length_s <= cited.duration_s else cited.midpoint_s - length_s / 2
    start_s = min(max(start_s, 0.0), duration_s - length_s)
    return Window(start_s, start_s + length_s)


def write_reel(trace: Trace, clip_path: Path | str, out_path: Path | str) -> None:
    """Write an mp4 (h264, and aac where the clip has sound) that browsers play.

    clip_path: the file that the run was about. Raises RequestError for a run without blocks or about another file,
    MediaError for a file that cannot be read any more.
    """
    from moviepy import concatenate_videoclips

    parts, path, out_path = reel_parts(trace), Path(clip_path), Path(out_path)
    require(path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == trace.clip.sha256,
            f"This run was about {trace.clip.name}, and {path.name} is missing or another file; choose the clip of the run.")  # fmt: skip
    source = _opened(path, has_picture=bool(trace.clip.thumbnails))
    try:
        cuts = [_cut(source, part) for part in parts]
        last = cuts[-1].get_frame(max(cuts[-1].duration - 1 / _FPS, 0))
        reel = concatenate_videoclips([*cuts, _answer(trace, last)])
        reel.write_videofile(
            str(out_path), fps=_FPS, codec="libx264", preset="veryfast", pixel_format="yuv420p", audio_codec="aac",
            temp_audiofile_path=str(out_path.parent), ffmpeg_params=["-crf", "20", "-movflags", "+faststart"], logger=None,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise MediaError(f"{path.name} could not be cut ({str(error).splitlines()[0][:120]}); save it as mp4 first and ask again.") from error
    finally:
        source.close()


def _opened(path: Path, has_picture: bool) -> "VideoClip":
    """The clip; a card without picture where it has only sound."""
    from moviepy import AudioFileClip, ImageClip, VideoFileClip

    try:
        if has_picture:
            return VideoFileClip(str(path))
        sound = AudioFileClip(str(path))
    except (OSError, KeyError) as error:
        raise MediaError(f"{path.name} cannot be opened for cutting; save it as mp4 first and ask again.") from error
    return ImageClip(np.zeros((4, 16, 3), np.uint8), duration=sound.duration).with_audio(sound)


def _cut(source: "VideoClip", part: Part) -> "VideoClip":
    end_s = min(part.played.end_s, source.duration)
    start_s = min(part.played.start_s, max(end_s - 1 / _FPS, 0))
    return source.subclipped(start_s, end_s).transform(_captioned(part.caption, start_s))


def _captioned(caption: Caption, start_s: float) -> Callable[[Callable[[float], np.ndarray], float], np.ndarray]:
    def frame(get_frame: Callable[[float], np.ndarray], time_s: float) -> np.ndarray:
        return np.concatenate([fit_picture(get_frame(time_s)), draw_band(caption, start_s + time_s)])

    return frame


def _answer(trace: Trace, last: np.ndarray) -> "VideoClip":
    from moviepy import ImageClip

    assert last.shape[1] == WIDTH_PX
    return ImageClip(draw_answer(trace.question, trace.answer or trace.text, last[:-BAND_PX])).with_duration(_ANSWER_S)
