"""Where the attention of an answer falls, step by step: directly on the clip, and by way of latents, never only the sum.

Works on an `AttentionRecord` (latentomni/attention.py), which holds arrays alone; torch is not needed here.
Dimensions: Q steps, P temporal patches, S half seconds, R x C grid cells.
"""

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latentomni.errors import require
from latentomni.trace import Trace
from visualizers.timeline import AUDIO_COLOUR, NO_EVIDENCE_COLOUR, VISUAL_COLOUR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from latentomni.attention import AttentionRecord

__all__ = ["AttentionCurves", "attention_view", "compute_attention", "plot_attention"]

_MARKERS = {"<Unified_Latent>": "open", "</Unified_Latent>": "close", "<|im_end|>": "end"}  # what a reader sees for them


@dataclass(frozen=True, eq=False)
class AttentionCurves:
    """One layer, or the mean over layers. texts: Q tokens read. is_latent: (Q,). direct, via_latents: (Q,) shares;
    even_direct, even_via_latents: (Q,) what an even spread would give. frames: (P,) and sounds: (S,) mean share over the words.
    """

    texts: tuple[str, ...]
    is_latent: np.ndarray
    direct: np.ndarray
    via_latents: np.ndarray
    even_direct: np.ndarray
    even_via_latents: np.ndarray
    frames: np.ndarray
    sounds: np.ndarray


def compute_attention(record: "AttentionRecord", layer: int | None = None) -> AttentionCurves:
    """The curves of a layer, counted from 0; None: the mean over layers. RequestError where there is no such layer."""
    depth = len(record.direct)
    require(layer is None or 0 <= layer < depth, f"This model has layers 0 to {depth - 1}, got {layer}.")

    def chosen(values: np.ndarray) -> np.ndarray:
        return values.mean(0) if layer is None else values[layer]

    is_word = np.array([group == "text" for group in record.groups], bool)
    rows = is_word if is_word.any() else np.ones(len(is_word), bool)
    return AttentionCurves(
        texts=record.texts,
        is_latent=np.array([group == "latent" for group in record.groups], bool),
        direct=chosen(record.direct),
        via_latents=chosen(record.via_latents),
        even_direct=record.even_direct,
        even_via_latents=record.even_via_latents,
        frames=chosen(record.frames)[rows].mean(0),
        sounds=chosen(record.sounds)[rows].mean(0),
    )


def attention_view(record: "AttentionRecord", trace: Trace) -> dict[str, Any]:
    """What `static/attention.js` draws, plain JSON; heat is packed in bytes (`_packed`)."""
    texts, slots = record.texts, _slots(record)
    steps = [
        {"text": _MARKERS.get(text, text), "group": group, "block": int(block), "slot": slot, "start_s": _start_s(trace, int(block), slot)}
        for text, group, block, slot in zip(texts, record.groups, record.blocks, slots, strict=True)
    ]
    return {
        "clip": {
            "key": trace.clip.sha256,
            "duration_s": trace.clip.duration_s,
            "has_picture": bool(len(record.frame_spans_s)),
            "has_sound": bool(len(record.sound_spans_s)),
        },
        "flow": trace.flow,
        "steps": steps,
        "direct": _rounded(record.direct, 4),
        "via_latents": _rounded(record.via_latents, 4),
        "even_direct": _rounded(record.even_direct, 4),
        "even_via_latents": _rounded(record.even_via_latents, 4),
        "frame_spans_s": _rounded(record.frame_spans_s, 3),
        "sound_spans_s": _rounded(record.sound_spans_s, 3),
        "frames": _packed(record.frames),
        "sounds": _packed(record.sounds),
        "cells": {group: _packed(values) for group, values in record.cells.items()},
    }


def _slots(record: "AttentionRecord") -> list[int | None]:
    """A latent's place in its block."""
    counts: dict[int, int] = {}
    slots: list[int | None] = []
    for group, block in zip(record.groups, record.blocks.tolist(), strict=True):
        is_latent = group == "latent"
        slots.append(counts.get(block, 0) if is_latent else None)
        counts[block] = counts.get(block, 0) + is_latent
    return slots


def _start_s(trace: Trace, block: int, slot: int | None) -> float | None:
    """Start of the moment that a latent is most similar to."""
    if slot is None or block >= len(trace.blocks) or slot >= len(trace.blocks[block].latents):
        return None
    latent = trace.blocks[block].latents[slot]
    return round(latent.matches[0].start_s if latent.matches else latent.time_s, 3)


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def _packed(values: np.ndarray) -> dict[str, Any]:
    """shape, top, and 16-bit numbers of which 65,535 stands for `top`: a page holds many values."""
    top = float(values.max()) if values.size else 0.0
    numbers = np.round(np.asarray(values, np.float64) / (top or 1.0) * 65_535).astype("<u2")
    return {"shape": list(values.shape), "top": top, "data": base64.b64encode(numbers.tobytes()).decode("ascii")}


def plot_attention(curves: AttentionCurves) -> "Figure":
    """Two charts over the steps, each with what an even spread would give."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.08, subplot_titles=("directly on the clip", "by way of latents"))
    steps = np.arange(len(curves.texts))
    texts = [text or "latent" for text in curves.texts]
    for row, (name, share, even, colour) in enumerate((
        ("direct", curves.direct, curves.even_direct, VISUAL_COLOUR),
        ("via latents", curves.via_latents, curves.even_via_latents, AUDIO_COLOUR),
    ), 1):  # fmt: skip
        figure.add_scatter(x=steps, y=share, name=name, fill="tozeroy", line={"color": colour}, customdata=texts, row=row, col=1,
                           hovertemplate="%{customdata}: %{y:.1%}<extra></extra>")  # fmt: skip
        figure.add_scatter(x=steps, y=even, name=f"{name}, were it even", line={"dash": "dot", "color": NO_EVIDENCE_COLOUR}, row=row, col=1)
        figure.update_yaxes(tickformat=".0%", rangemode="tozero", row=row, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    return figure.update_layout(template="plotly_white", height=420, margin={"t": 40, "b": 45})
