"""Clip and question -> what the model reads: patches for the vision tower, and the prompt as a `Sequence`.

Works without torchvision: resizing, normalising and patching are a few lines of plain torch, equal to the library's
processor (tests/test_processing.py).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from latentomni.config import AttentionFlow, LatentSpec, Mode, VideoSpec
from latentomni.errors import RequestError, plain, require
from latentomni.sequence import ClipFeatures, Sequence, SpecialIds

__all__ = ["INSTRUCTIONS", "add_question", "new_sequence", "patchify", "resized_size"]

INSTRUCTIONS = {Mode.LATENT: "", Mode.TEXT_COT: " Think in words.", Mode.DIRECT: " Answer directly."}
MAX_QUESTION_CHARS = 2000
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, which Qwen2.5-Omni was trained with
_STD = (0.26862954, 0.26130258, 0.27577711)


def resized_size(height: int, width: int, spec: VideoSpec) -> tuple[int, int]:
    """Height and width in multiples of `spec.factor_px` whose product lies within the pixel bounds, aspect kept closely."""
    factor = spec.factor_px
    rounded = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if rounded[0] * rounded[1] > spec.max_pixels:
        scale = math.sqrt(height * width / spec.max_pixels)
        longest = spec.max_pixels // factor**2 * factor  # a picture a few pixels high would grow beyond all bounds
        rounded = [min(max(factor, math.floor(side / scale / factor) * factor), longest) for side in (height, width)]
    elif rounded[0] * rounded[1] < spec.min_pixels:
        scale = math.sqrt(spec.min_pixels / (height * width))
        rounded = [math.ceil(side * scale / factor) * factor for side in (height, width)]
    return rounded[0], rounded[1]


def patchify(frames: np.ndarray, spec: VideoSpec) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Frames (F, H, W, 3) uint8 -> patches (N, 3 * temporal * patch^2) float32 and the grid (time, rows, columns) of patches.

    Patches of one merged token stand together, as the vision tower expects. An odd last frame is repeated.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    size = resized_size(frames.shape[1], frames.shape[2], spec)
    if size != tuple(frames.shape[1:3]):
        pixels = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True).round().clamp(0, 255)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    pixels = (pixels.float() / 255 - mean) / std
    missing = -len(pixels) % spec.temporal_patch
    if missing:
        pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
    p, m, t = spec.patch_px, spec.merge, spec.temporal_patch
    grid = (len(pixels) // t, size[0] // p, size[1] // p)
    pixels = pixels.view(grid[0], t, 3, grid[1] // m, m, p, grid[2] // m, m, p)
    pixels = pixels.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)  # time, row, column, row in merge, column in merge, rgb, t, y, x
    return pixels.reshape(math.prod(grid), -1), grid


def new_sequence(clip: ClipFeatures, spec: LatentSpec, ids: SpecialIds, encode_text) -> Sequence:
    """A conversation that begins with the clip. Media stand before the question, so their keys do not depend on it."""
    row = Sequence(spec, ids, spec.flow)
    row.add_text(encode_text("<|im_start|>user\n"))
    row.add_media(clip)
    return row


def add_question(row: Sequence, question: str, mode: Mode, encode_text, *, isolated: bool = False) -> None:
    """Append a question with its mode's instruction and open the assistant's turn. Without latents everything is seen (open flow)."""
    question = check_question(question)
    follow_up = row.turn > 0 and not isolated
    row.begin_turn(row.spec.flow if mode is Mode.LATENT else AttentionFlow.OPEN, isolated=isolated)
    if follow_up:
        cut = [] if row.token_ids[-1] == row.ids.end_of_turn else [row.ids.end_of_turn]
        row.add_text([*cut, *encode_text("\n<|im_start|>user\n")])
    row.question_ids = encode_text(question)
    row.add_text(row.question_ids)
    if INSTRUCTIONS[mode]:
        row.add_text(encode_text(INSTRUCTIONS[mode]))
    row.add_text(encode_text("<|im_end|>\n<|im_start|>assistant\n"))


def check_question(question: str) -> str:
    """The question without control characters and outer space; RequestError where it is no text, empty or too long."""
    require(isinstance(question, str), f"A question is text, got {plain(repr(question), 40)}; type it in words.")
    text = " ".join("".join(c if c.isprintable() else " " for c in question).split())
    if not text:
        raise RequestError("The question is empty; type what you want to know about the clip.")
    if len(text) > MAX_QUESTION_CHARS:
        raise RequestError(f"The question has {len(text)} characters; at most {MAX_QUESTION_CHARS} are read, please shorten it.")
    return text
