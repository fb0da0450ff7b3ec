"""What stands below a picture of the evidence reel, drawn with Pillow: question, caption, and the clip's clock.

Dimensions: H rows, W columns of a picture.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from latentomni.clock import Window

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

__all__ = ["BAND_PX", "WIDTH_PX", "Caption", "draw_answer", "draw_band", "fit_picture"]

WIDTH_PX, BAND_PX = 640, 136
_PICTURE_PX, _MARGIN_PX, _BAR_PX = 480, 20, 8
_GROUND, _TEXT, _MUTED, _LINE = (21, 24, 30), (233, 236, 241), (164, 173, 186), (58, 65, 77)
_PLAIN = str.maketrans({"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "..."})  # what Pillow's own font has no glyph for
_COLOURS = {"visual": (147, 180, 255), "audio": (255, 178, 107), "": (164, 173, 186)}


@dataclass(frozen=True)
class Caption:
    """Three lines, and the moment they cite on the clock of a clip of `duration_s`. modality: "visual", "audio", or "" for a
    stated window."""

    question: str
    headline: str
    detail: str
    cited: Window
    duration_s: float
    modality: str


@lru_cache(maxsize=8)
def _font(size_px: int) -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.load_default(size_px)


def fit_picture(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 scaled into the width of the reel and at most 480 rows, on a dark ground; H and W even."""
    from PIL import Image

    height, width = frame.shape[:2]
    scale = min(WIDTH_PX / width, _PICTURE_PX / height)
    columns, rows = (max(2, round(side * scale / 2) * 2) for side in (width, height))
    ground = Image.new("RGB", (WIDTH_PX, rows), _GROUND)
    ground.paste(Image.fromarray(frame).resize((columns, rows)), ((WIDTH_PX - columns) // 2, 0))
    return np.asarray(ground)


def draw_band(caption: Caption, time_s: float) -> np.ndarray:
    """(BAND_PX, WIDTH_PX, 3) uint8: the lines, and the clock with the cited moment and a mark at `time_s`."""
    band = _band(caption).copy()
    x = _x(time_s, caption.duration_s)
    band[-_MARGIN_PX - _BAR_PX - 4 : -_MARGIN_PX + 4, x - 1 : x + 2] = _TEXT
    return band


@lru_cache(maxsize=4)
def _band(caption: Caption) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH_PX, BAND_PX), _GROUND)
    draw = ImageDraw.Draw(image)
    tone = _COLOURS[caption.modality]
    for y, size_px, colour, text in ((14, 15, _MUTED, caption.question), (38, 21, tone, caption.headline), (70, 15, _TEXT, caption.detail)):
        draw.text((_MARGIN_PX, y), _shortened(text, size_px), colour, _font(size_px))
    top, foot = BAND_PX - _MARGIN_PX - _BAR_PX, BAND_PX - _MARGIN_PX
    draw.rounded_rectangle((_MARGIN_PX, top, WIDTH_PX - _MARGIN_PX, foot), _BAR_PX // 2, _LINE)
    start, end = (_x(t, caption.duration_s) for t in (caption.cited.start_s, caption.cited.end_s))
    draw.rounded_rectangle((start, top, max(end, start + 3), foot), _BAR_PX // 2, tone)
    return np.asarray(image)


def _x(time_s: float, duration_s: float) -> int:
    share = min(max(time_s / duration_s, 0.0), 1.0)
    return round(_MARGIN_PX + share * (WIDTH_PX - 2 * _MARGIN_PX))


def _shortened(text: str, size_px: int) -> str:
    """One line, with an ellipsis where the rest does not fit."""
    text, font = " ".join(text.translate(_PLAIN).split()), _font(size_px)
    room = WIDTH_PX - 2 * _MARGIN_PX
    if len(text) < room and font.getlength(text) <= room:
        return text
    fitting = bisect_left(range(1, min(len(text), room)), True, key=lambda n: font.getlength(text[:n] + "...") > room)
    return text[:fitting].rstrip() + "..."


def draw_answer(question: str, answer: str, picture: np.ndarray) -> np.ndarray:
    """(H + BAND_PX, WIDTH_PX, 3) uint8: the answer over a dimmed picture (H, WIDTH_PX, 3), the question below as before."""
    from PIL import Image, ImageDraw

    ground = (picture * 0.25 + np.array(_GROUND) * 0.75).astype(np.uint8)
    image = Image.fromarray(np.concatenate([ground, np.broadcast_to(np.uint8(_GROUND), (BAND_PX, WIDTH_PX, 3))]))
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN_PX, len(picture) + 14), _shortened(question, 15), _MUTED, _font(15))
    lines = _wrapped(answer, 26, most=max(1, (len(picture) - 40) // 36))
    y = (len(picture) - 36 * len(lines)) // 2
    for number, line in enumerate(lines):
        _centred(draw, y + 36 * number, line)
    return np.asarray(image)


def _centred(draw: "ImageDraw", y: int, line: str) -> None:
    draw.text(((WIDTH_PX - _font(26).getlength(line)) / 2, y), line, _TEXT, _font(26))


def _wrapped(text: str, size_px: int, most: int) -> list[str]:
    """Lines that fit, at most so many; the last one is shortened."""
    lines, words = [""], text.split()
    for number, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _font(size_px).getlength(longer) <= WIDTH_PX - 2 * _MARGIN_PX:
            lines[-1] = longer
        elif len(lines) == most:
            lines[-1] = " ".join([lines[-1], *words[number:]])
            break
        else:
            lines.append(word)
    return [_shortened(line, size_px) for line in lines]
