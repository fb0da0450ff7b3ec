"""A trace as plain JSON values for the web component (`static/inspector.js`). Needs numpy alone.

The clip's pictures and sound curve do not change during a run, so they are left out with `media=False`; the component
keeps the ones it has been given for the same clip.
"""

import base64
import math
from itertools import pairwise
from typing import Any

import numpy as np

from latentomni.evidence import block_moment
from latentomni.trace import Block, Latent, Trace
from visualizers.timeline import ENVELOPE_HZ, compute_timeline

__all__ = ["data_uri", "view"]

_WINDOW_SOURCES = {
    "model": "written by the model",
    "clamped": "written by the model, cut to the clip",
    "nominal": "assumed, the model wrote none",
}


def view(trace: Trace, media: bool = True) -> dict[str, Any]:
    """What the component draws; `media=False` leaves out thumbnails and the sound curve."""
    offsets = [0, *(block.text_offset for block in trace.blocks), len(trace.text)]
    shown: dict[str, Any] = {
        "clip": {
            "key": trace.clip.sha256,
            "name": trace.clip.name,
            "duration_s": trace.clip.duration_s,
            "has_picture": bool(trace.clip.thumbnails),
            "has_sound": trace.clip.sound is not None,
        },
        "question": trace.question,
        "answer": trace.answer,
        "pieces": [trace.text[a:b] for a, b in pairwise(offsets)],
        "running": trace.reason == "running",
        "has_null": trace.has_null,
        "grid": [trace.spec[name] for name in ("instants", "rows", "columns")],
        "blocks": [_block(block) for block in trace.blocks],
    }
    if media:
        shown["media"] = _media(trace)
    return shown


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _media(trace: Trace) -> dict[str, Any]:
    pictures = trace.clip.thumbnails
    return {
        "thumbnails": [data_uri("image/jpeg", picture) for picture in pictures],
        "thumbnail_times_s": [round(float(t), 3) for t in trace.clip.thumbnail_times_s],
        "aspect": _aspect(pictures[0]) if pictures else 16 / 9,
        "envelope": base64.b64encode(
            np.round(compute_timeline(trace).envelope * 255).astype(np.uint8).tobytes()
        ).decode("ascii"),
        "envelope_hz": ENVELOPE_HZ,
    }


def _aspect(jpeg: bytes) -> float:
    """Width over height, from the frame header of a JPEG; 16:9 where there is none."""
    at = 2
    while at + 9 < len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(jpeg[at + i : at + i + 2], "big") for i in (5, 7))
            return min(max(width / height, 0.25), 4.0) if width and height else 16 / 9
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return 16 / 9


def _block(block: Block) -> dict[str, Any]:
    def moment(modality: str) -> tuple[float, float] | None:
        return block_moment(z.matches for z in block.latents if z.modality == modality)

    return {
        "window": [block.window.start_s, block.window.end_s],
        "source": _WINDOW_SOURCES.get(block.window_source, block.window_source),
        "closed": block.closed_s is not None,
        "moments": {modality: moment(modality) for modality in ("visual", "audio")},
        "latents": [_latent(z) for z in block.latents],
    }


def _latent(latent: Latent) -> dict[str, Any]:
    p = latent.p if latent.p_corrected is None else latent.p_corrected
    return {
        "modality": latent.modality,
        "cell": latent.cell,
        "time_s": round(latent.time_s, 3),
        "p": None if p is None else float(f"{p:.2g}"),
        "evidence": latent.is_evidence,
        "matches": [
            {
                "start_s": round(m.start_s, 3),
                "end_s": round(m.end_s, 3),
                "box": [round(side, 4) for side in m.cell],
                "score": round(m.score, 4) if math.isfinite(m.score) else 0.0,
                "rank": m.rank,
            }
            for m in latent.matches
        ],
    }
