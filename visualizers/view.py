"""A trace as plain JSON values for the web component (`static/inspector.js`). Needs numpy alone.

The clip's pictures and sound do not change during a run, so they are left out with `media=False`; the component keeps
the ones it has been given for the same clip. Rows of numbers travel as base64 of bytes: in `codes` 0 is no value, 1 to
255 run evenly over `range`.
"""

import base64
import math
from itertools import pairwise
from typing import Any

import numpy as np

from latentomni.evidence import block_moment
from latentomni.trace import Block, Latent, Trace
from visualizers.evidence import CellMap, compute_cells
from visualizers.spectrogram import compute_spectrogram
from visualizers.spread import compute_spread
from visualizers.sync import SyncLane, compute_sync
from visualizers.timeline import ENVELOPE_HZ, compute_timeline

__all__ = ["data_uri", "view"]

_CURVE_POINTS = 120
_COLLAPSE = ("between_clip_variance", "segment_retrieval_top1", "effective_rank", "raw_cosine")
_WINDOW_SOURCES = {
    "model": "written by the model",
    "clamped": "written by the model, cut to the clip",
    "nominal": "assumed, the model wrote none",
}


def view(trace: Trace, media: bool = True) -> dict[str, Any]:
    """What the component draws; `media=False` leaves out thumbnails and sound."""
    lane = compute_sync(trace)
    edges = {m: _curve_edges(trace, m) for m in ("visual", "audio")}
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
        "blocks": [
            _block(block, [_latent(trace, z, edges[z.modality]) for z in block.latents], _sync(lane, b))
            for b, block in enumerate(trace.blocks)
        ],
        "truth": trace.truth and {
            "answer": trace.truth.answer,
            "is_right": trace.truth.is_right,
            "windows": [[w.start_s, w.end_s, m] for w, m in zip(trace.truth.windows, trace.truth.modalities, strict=True)],
        },
        "collapse": {name: _short(trace.collapse.get(name)) for name in _COLLAPSE} if trace.collapse else None,
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
        "envelope": _bytes(np.round(compute_timeline(trace).envelope * 255)),
        "envelope_hz": ENVELOPE_HZ,
        "spectrogram": None if trace.clip.sound is None else _spectrogram(trace.clip.sound, trace.sound_hz),
    }


def _spectrogram(sound: np.ndarray, sound_hz: int) -> dict[str, Any]:
    shown = compute_spectrogram(sound, sound_hz)
    return {"levels": _bytes(shown.levels), "hz": shown.hz, "edges_hz": [round(float(hz)) for hz in shown.edges_hz]}


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


def _block(block: Block, latents: list[dict[str, Any]], sync: dict[str, Any]) -> dict[str, Any]:
    def moment(modality: str) -> tuple[float, float] | None:
        return block_moment(z.matches for z in block.latents if z.modality == modality)

    spread = compute_spread(np.array([z.vector for z in block.latents]))
    return {
        "window": [block.window.start_s, block.window.end_s],
        "source": _WINDOW_SOURCES.get(block.window_source, block.window_source),
        "closed": block.closed_s is not None,
        "moments": {modality: moment(modality) for modality in ("visual", "audio")},
        "spread": spread and {"effective_rank": _short(spread.effective_rank), "raw_cosine": _short(spread.raw_cosine)},
        "sync": sync,
        "latents": latents,
    }


def _sync(lane: SyncLane, block: int) -> dict[str, Any]:
    """Per instant of a block: stated and evidence time, each of the visual and of the audio latents, and their gap."""
    rows = np.flatnonzero(lane.block == block)
    measured = np.isfinite(lane.gap_s[rows])
    return {
        "instants": [
            {
                "stated_s": [_short(s) for s in lane.stated_s[row]],
                "evidence_s": [_short(s) for s in lane.evidence_s[row]],
                "gap_s": _short(lane.gap_s[row]),
            }
            for row in rows
        ],
        "median_s": _short(lane.median_gap_s(block)),
        "resolution_s": _short(lane.resolution_s[rows][measured].max()) if measured.any() else None,
    }


def _latent(trace: Trace, latent: Latent, edges: np.ndarray) -> dict[str, Any]:
    p = latent.p if latent.p_corrected is None else latent.p_corrected
    return {
        "modality": latent.modality,
        "cell": latent.cell,
        "time_s": round(latent.time_s, 3),
        "p": None if p is None else float(f"{p:.2g}"),
        "evidence": latent.is_evidence,
        "null_level": _short(latent.null_level),
        "curve": None if latent.scores is None or not len(latent.scores) else _coded(_curve(latent.scores, edges)),
        "cells": _cells(compute_cells(trace, latent)),
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


def _curve_edges(trace: Trace, modality: str) -> np.ndarray:
    """(2, points) first and one past the last of the modality's times that each even piece of the clip touches."""
    moments = trace.moments(modality)
    spans = np.unique(moments.start_s + 1j * moments.end_s)  # the order of `EvidenceBank.times_s`, found sooner
    marks = np.linspace(0, trace.clip.duration_s, _CURVE_POINTS + 1)
    first = np.searchsorted(np.maximum.accumulate(spans.imag), marks[:-1] + 1e-4, side="left")
    return np.stack([first, np.searchsorted(spans.real, marks[1:] - 1e-4, side="left")])


def _curve(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(points,) best score in each piece, NaN where the modality has nothing."""
    padded = np.append(scores.astype(np.float32), -np.inf)  # so that an end past the last time is a place, too
    best = np.maximum.reduceat(padded, edges.T.ravel())[::2]
    return np.where(edges[0] < edges[1], best, np.nan)


def _cells(shown: CellMap | None) -> dict[str, Any] | None:
    """The frame's cells row by row, where they form a whole grid."""
    if shown is None:
        return None
    order = np.lexsort((shown.boxes[:, 1], shown.boxes[:, 0]))
    rows, columns = (len(np.unique(np.round(shown.boxes[:, side], 4))) for side in (0, 1))
    if rows * columns != len(order):
        return None
    return {"rows": rows, "columns": columns, "recorded": shown.is_recorded, **_coded(shown.scores[order])}


def _coded(values: np.ndarray) -> dict[str, Any]:
    values = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    codes = np.where(np.isnan(values), 0, 1 + np.round((values - low) / max(high - low, 1e-9) * 254))
    return {"range": [round(low, 4), round(high, 4)], "codes": _bytes(codes)}


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(np.nan_to_num(values).astype(np.uint8).tobytes()).decode("ascii")


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)
