"""Runs about one clip beside each other, two runs in numbers, and one run before and after a change.

Dimensions: S blocks that both runs have, K latents per block.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latentomni.clock import Window
from latentomni.errors import require
from latentomni.trace import Latent, Trace
from visualizers.view import view

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from latentomni.reruns import Outcome

__all__ = ["Difference", "compare_view", "compute_difference", "plot_difference", "stated_windows", "whatif_view"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SPAN = re.compile(r"\[\d+\.\d-\d+\.\d s\]")


@dataclass(frozen=True, eq=False)
class Difference:
    """Two runs about one clip. answers: of both. windows: S or more pairs, None where a run has no such window. iou: of the
    pairs that are whole. moments: (S, K, 2) starts of what each latent is most similar to, seconds, NaN without any.
    cosine: (S, K) of the latents themselves, as they were fed back; NaN where only one run has them.
    """

    answers: tuple[str, str]
    windows: tuple[tuple[Window | None, Window | None], ...]
    iou: tuple[float, ...]
    moments: np.ndarray
    cosine: np.ndarray

    @property
    def is_same_answer(self) -> bool:
        return self.answers[0].split() == self.answers[1].split()

    @property
    def is_same_ending(self) -> bool:
        """Whether the last sentences agree, where an answer follows what was written on the way to it."""
        return len({_SENTENCE_END.split(answer.strip())[-1].casefold() for answer in self.answers}) == 1

    @property
    def same_moment(self) -> float | None:
        """Share of the latents of both that are most similar to the same moment; None without any."""
        known = np.isfinite(self.moments).all(axis=-1)
        return float((self.moments[known, 0] == self.moments[known, 1]).mean()) if known.any() else None


def stated_windows(trace: Trace) -> tuple[Window, ...]:
    """The windows of a run's blocks, or, in a run without any, those that its text names as `[2.0-4.0 s]`."""
    if trace.blocks:
        return tuple(block.window for block in trace.blocks)
    found = (Window.parse(text) for text in _SPAN.findall(trace.text))
    return tuple(window for window in found if window and window.start_s < trace.clip.duration_s)


def compute_difference(a: Trace, b: Trace) -> Difference:
    """Raises RequestError for runs about two clips."""
    _require_one_clip((a, b))
    left, right = stated_windows(a), stated_windows(b)
    count = max(len(left), len(right))
    pairs = tuple(zip(*(windows + (None,) * (count - len(windows)) for windows in (left, right)), strict=True))
    blocks = list(zip(a.blocks, b.blocks, strict=False))
    width = max((len(block.latents) for pair in blocks for block in pair), default=0)
    moments, cosine = np.full((len(blocks), width, 2), np.nan), np.full((len(blocks), width), np.nan)
    is_one_space = a.model == b.model
    for s, pair in enumerate(blocks):
        for k, (one, other) in enumerate(zip(*(block.latents for block in pair), strict=False)):
            moments[s, k] = [z.matches[0].start_s if z.matches else np.nan for z in (one, other)]
            if is_one_space and one.vector.shape == other.vector.shape:
                cosine[s, k] = _cosine(one, other)
    iou = tuple(one.iou(other) for one, other in pairs if one and other)
    return Difference((a.answer, b.answer), pairs, iou, moments, cosine)


def _cosine(a: Latent, b: Latent) -> float:
    x, y = (z.vector.astype(np.float64) for z in (a, b))
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12))


def _require_one_clip(traces: tuple[Trace, ...]) -> None:
    names = {trace.clip.sha256: trace.clip.name for trace in traces}
    require(len(names) == 1, f"Runs are compared on one clip, got {len(names)} ({', '.join(names.values())}); choose runs about the same clip.")


def compare_view(runs: Mapping[str, Trace]) -> dict[str, Any]:
    """What the comparison of `static/compare.js` draws, plain JSON: every run, and the first against each other one.

    Raises RequestError for no run, and for runs about two clips.
    """
    require(bool(runs), "A comparison needs at least one run; ask a question first.")
    traces = tuple(runs.values())
    _require_one_clip(traces)
    (first, trace), *others = runs.items()
    return {
        "clip": view(trace, media=False)["clip"],
        "question": trace.question,
        "runs": [_run(name, trace) for name, trace in runs.items()],
        "differences": [{"a": first, "b": name, **_difference(compute_difference(trace, other))} for name, other in others],
    }


def _run(name: str, trace: Trace) -> dict[str, Any]:
    shown, windows = view(trace, media=False), stated_windows(trace)
    latents = sum(len(block.latents) for block in trace.blocks)
    kept = {key: shown[key] for key in ("question", "answer", "running", "has_null", "blocks")}
    return {
        **kept,
        "name": name,
        "mode": trace.mode,
        "text": trace.text,
        "windows": [[window.start_s, window.end_s] for window in windows],
        "windows_from": "blocks" if trace.blocks else "text" if windows else None,
        "tokens": trace.tokens,
        "latents": latents,
        "seconds": round(trace.elapsed_s, 3),
        "first_token_s": None if trace.ttft_s is None else round(trace.ttft_s, 3),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    share = difference.same_moment
    return {
        "same_answer": difference.is_same_answer,
        "same_ending": difference.is_same_ending,
        "windows": [[window and [window.start_s, window.end_s] for window in pair] for pair in difference.windows],
        "iou": [round(value, 3) for value in difference.iou],
        "same_moment": None if share is None else round(share, 3),
        "moments": _plain(difference.moments, 3),
        "cosine": _plain(difference.cosine, 3),
    }


def _plain(values: np.ndarray, digits: int) -> Any:
    """Nested lists, with None where there is no number."""
    if values.ndim:
        return [_plain(part, digits) for part in values]
    return round(float(values), digits) if np.isfinite(values) else None


def whatif_view(outcome: "Outcome") -> dict[str, Any]:
    """What `static/whatif.js` draws, plain JSON, of an outcome of `latentomni.reruns`, which itself needs torch."""
    change, control = outcome.change, outcome.control
    window = change.window
    return {
        "change": {
            "arm": str(change.arm),
            "block": change.block,
            "latent": change.latent,
            "modality": change.modality,
            "window": [window.start_s, window.end_s] if window else None,
            "shift_s": change.shift_s,
        },
        "before": {"answer": outcome.before.answer, "text": outcome.before.text},
        "after": {"answer": outcome.after.answer, "text": outcome.after.text},
        "flipped": bool(outcome.flipped),
        "probabilities": [
            {"answer": answer, "before": _plain(np.asarray(before), 4), "after": _plain(np.asarray(after), 4)}
            for answer, (before, after) in outcome.probabilities.items()
        ],
        "margin_change": _plain(np.asarray(outcome.margin_change, float), 3),
        "moved": [_plain(np.asarray(cosine, float), 3) for cosine in outcome.moved],
        "is_visual": [z.modality == "visual" for block in outcome.before.blocks for z in block.latents][: len(outcome.moved)],
        "control": control and {
            "what": control.what,
            "answer": control.answer,
            "flipped": bool(control.flipped),
            "margin_change": _plain(np.asarray(control.margin_change, float), 3),
        },
        "notices": list(outcome.notices),
    }  # fmt: skip


def plot_difference(difference: Difference) -> "Figure":
    """Cosines of the latents of two runs, blocks down, slots across."""
    from plotly.graph_objects import Figure

    blocks, slots = difference.cosine.shape
    figure = Figure()
    figure.add_heatmap(
        x=[f"{k + 1}" for k in range(slots)], y=[f"block {s + 1}" for s in range(blocks)], z=difference.cosine, zmin=-1, zmax=1, colorscale="RdBu",
        hovertemplate="%{y}, latent %{x}: cosine %{z:.3f}<extra></extra>", colorbar={"title": "cosine", "thickness": 12},
    )  # fmt: skip
    figure.update_xaxes(title_text="latent", type="category")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure.update_layout(template="plotly_white", height=140 + 40 * blocks, margin={"t": 20, "b": 45})
