"""Scores over time and over the frame: how similar each latent is to every time of the clip, and to every cell.

Dimensions: K latents of one modality, T distinct times, N moments, G cells of a frame.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latentomni.clock import Window
from latentomni.evidence import EvidenceBank
from latentomni.trace import Latent, Trace, project

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["CellMap", "EvidenceMap", "compute_cells", "compute_evidence", "plot_evidence"]


@dataclass(frozen=True, eq=False)
class EvidenceMap:
    """times_s: (T, 2) start and end, seconds. scores: (K, T), the best cell of each time. slots: (K,) places
    in the block. p: (K,) corrected where the block has closed, NaN without a null. window: what the block stated.
    """

    modality: str
    window: Window
    times_s: np.ndarray
    scores: np.ndarray
    slots: np.ndarray
    p: np.ndarray


def compute_evidence(trace: Trace, block: int, modality: str) -> EvidenceMap:
    """The map of one block and modality: the scores that were recorded, else centred cosines of the stored features."""
    slots = [k for k, z in enumerate(trace.blocks[block].latents) if z.modality == modality]
    latents = [trace.blocks[block].latents[k] for k in slots]
    moments = trace.moments(modality)
    bank = EvidenceBank(moments)
    if any(z.scores is None for z in latents):
        vectors = np.stack([z.vector for z in latents]).astype(np.float32)
        scores = bank.by_time(bank.nearest(project(vectors, moments.features.shape[1])))
    else:
        scores = np.array([z.scores for z in latents], np.float32).reshape(len(latents), len(bank.times_s))
    p = [z.p if z.p_corrected is None else z.p_corrected for z in latents]
    return EvidenceMap(
        modality=modality,
        window=trace.blocks[block].window,
        times_s=bank.times_s,
        scores=scores,
        slots=np.array(slots, dtype=int),
        p=np.array([np.nan if value is None else value for value in p], dtype=float),
    )


@dataclass(frozen=True, eq=False)
class CellMap:
    """boxes: (G, 4) top, left, bottom, right as shares of the frame. scores: (G,) of the cells of the best moment's time.
    is_recorded: computed in the run; else from the stored features around their own mean, which may rank otherwise.
    """

    boxes: np.ndarray
    scores: np.ndarray
    is_recorded: bool


def compute_cells(trace: Trace, latent: Latent) -> CellMap | None:
    """The map of the frame a latent is most similar to; None where it has no match, or its frame only one cell."""
    if not latent.matches:
        return None
    moments = trace.moments(latent.modality)
    best = latent.matches[0].moment
    places = np.flatnonzero((moments.start_s == moments.start_s[best]) & (moments.end_s == moments.end_s[best]))
    if len(places) < 2:
        return None
    scores = latent.cell_scores
    is_recorded = scores is not None and len(scores) == len(places)
    if not is_recorded:
        vector = latent.vector[None].astype(np.float32)
        scores = EvidenceBank(moments).nearest(project(vector, moments.features.shape[1]))[0, places]
    return CellMap(moments.cells[places], np.asarray(scores, np.float32), is_recorded)


def plot_evidence(evidence: EvidenceMap) -> "Figure":
    """A heat map, latents down, time across, with the stated window framed."""
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.add_heatmap(
        x=evidence.times_s.mean(axis=1), y=[f"{k + 1}" for k in evidence.slots], z=evidence.scores,
        colorscale="Blues" if evidence.modality == "visual" else "Oranges",
        colorbar={"title": "score", "thickness": 12},
        customdata=np.broadcast_to(evidence.p[:, None], evidence.scores.shape),
        hovertemplate="latent %{y}, %{x:.2f} s<br>score %{z:.3f}<br>p %{customdata:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_vrect(
        x0=evidence.window.start_s, x1=evidence.window.end_s, line={"width": 2, "dash": "dot"}, opacity=0.7
    )
    figure.update_yaxes(title_text=f"{evidence.modality} latent", autorange="reversed", type="category")
    figure.update_xaxes(title_text="seconds")
    return figure.update_layout(
        template="plotly_white", height=120 + 16 * len(evidence.slots), margin={"t": 20, "b": 45}
    )
