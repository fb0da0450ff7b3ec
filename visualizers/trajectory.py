"""Latents and the clip's own moments in one plane: PCA at once, UMAP where it is asked for.

Rows are centred on the clips' moments and scaled to length one, as when evidence is scored, so that near means similar.
Dimensions: n points, N moments, L latents, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from latentomni.errors import require
from latentomni.trace import Plane, Trace, project
from visualizers.timeline import AUDIO_COLOUR, NO_EVIDENCE_COLOUR, VISUAL_COLOUR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["MIN_UMAP_POINTS", "Trajectory", "compute_trajectory", "map_view", "plot_trajectory"]

MIN_UMAP_POINTS = 10
_NEIGHBOURS = 15

Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The moments of every clip, then the latents of every run, in order.

    plane: (n, 2) points, to be kept with `Trace.with_plane` where they took long. explained: (2,) shares of the variance on
    the axes, NaN for UMAP. is_visual: (n,). run, block, slot: (n,) of a latent; block and slot are -1 for a moment, and
    run is the first that asked about its clip. moment: (n,) place among the clip's moments of the modality: its own, or of
    the one that the latent is most similar to, -1 without any. spans_s: (n, 2) of that moment, or NaN. time_s: (n,) the
    stated time of a latent, the middle of a moment.
    """

    plane: Plane
    explained: np.ndarray
    is_visual: np.ndarray
    run: np.ndarray
    block: np.ndarray
    slot: np.ndarray
    moment: np.ndarray
    time_s: np.ndarray
    spans_s: np.ndarray

    @property
    def is_latent(self) -> np.ndarray:
        return self.slot >= 0


@dataclass(frozen=True, eq=False)
class _Rows:
    """Points before they are placed: vectors (n, width) as stored, fields (n, 8) in the order of `Trajectory`."""

    vectors: np.ndarray
    fields: np.ndarray


def compute_trajectory(traces: Sequence[Trace], method: str = "pca", progress: Progress = lambda share, what: None) -> Trajectory:
    """Place the runs, "pca" or "umap". A UMAP plane that one of the traces keeps is used again.

    progress: told the share done, 0 to 1, and what comes next. Raises RequestError for runs that share no space.
    """
    require(method in ("pca", "umap"), f"A map is drawn by pca or umap, got {method!r}.")
    rows = _rows(traces)
    n = len(rows.vectors)
    is_latent = rows.fields[:, 3] >= 0
    vectors = rows.vectors.astype(np.float32)
    vectors = vectors - (vectors if is_latent.all() else vectors[~is_latent]).mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    key, explained = sha256(rows.vectors.tobytes()).hexdigest()[:16], np.full(2, np.nan)
    if method == "pca":
        points, explained = _principal(vectors)
    else:
        require(n >= MIN_UMAP_POINTS, f"UMAP needs at least {MIN_UMAP_POINTS} points, and there are {n}; choose PCA.")
        kept = [p.points for t in traces for p in t.planes if (p.method, p.key, len(p.points)) == (method, key, n)]
        points = kept[0] if kept else _umap(vectors, progress)
    is_visual, run, block, slot, moment, time_s, start_s, end_s = rows.fields.T
    numbers = (values.astype(int) for values in (run, block, slot, moment))
    return Trajectory(Plane(method, key, points), explained, is_visual > 0, *numbers, time_s, np.stack([start_s, end_s], 1))


def _rows(traces: Sequence[Trace]) -> _Rows:
    spaces = {(t.model, *(t.moments(m).features.shape[1] for m in ("visual", "audio") if len(t.moments(m).features))) for t in traces}
    widths = {width for _, *found in spaces for width in found}
    models = {model for model, *_ in spaces}
    require(len(models) <= 1 and len(widths) <= 1,
            f"Runs share a map where model and width agree, got {', '.join(sorted(models))} and widths {sorted(widths)}; "
            "choose runs of one model about clips of similar length.")  # fmt: skip
    seen: dict[str, int] = {}
    for number, trace in enumerate(traces):
        seen.setdefault(trace.clip.sha256, number)
    parts = [_moments(traces[number], number) for number in seen.values()]
    parts += [_latents(trace, number, min(widths, default=0)) for number, trace in enumerate(traces)]
    rows = [row for part in parts for row in part]
    require(bool(rows), "A map shows latents and moments, and these runs have neither; choose a run in latent mode.")
    return _Rows(np.stack([vector for vector, _ in rows]), np.array([fields for _, fields in rows], float))


def _moments(trace: Trace, run: int) -> list[tuple[np.ndarray, tuple]]:
    return [
        (vector, (modality == "visual", run, -1, -1, i, (start + end) / 2, start, end))
        for modality in ("visual", "audio")
        for moments in [trace.moments(modality)]
        for i, (vector, start, end) in enumerate(zip(moments.features, moments.start_s, moments.end_s, strict=True))
    ]


def _latents(trace: Trace, run: int, width: int) -> list[tuple[np.ndarray, tuple]]:
    rows = []
    for number, block in enumerate(trace.blocks):
        for slot, z in enumerate(block.latents):
            found = (z.matches[0].moment, z.time_s, z.matches[0].start_s, z.matches[0].end_s) if z.matches else (-1, z.time_s, np.nan, np.nan)
            rows.append((project(z.vector, width or len(z.vector)), (z.modality == "visual", run, number, slot, *found)))
    return rows


def _principal(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) float32 and (2,) shares of variance. The largest part of an axis is positive, so that no axis flips."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.vstack([axes[:2], np.zeros((2, centred.shape[1]))])[:2]
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) < 0, -1.0, 1.0)
    variance = np.append(np.square(singular), [0.0, 0.0])
    return (centred @ axes.T).astype(np.float32), variance[:2] / max(variance.sum(), 1e-12)


def _umap(vectors: np.ndarray, progress: Progress) -> np.ndarray:
    progress(0.05, "loading UMAP")
    from umap import UMAP

    progress(0.3, f"placing {len(vectors)} points")
    neighbours = min(_NEIGHBOURS, len(vectors) - 1)
    # An eigenvector start needs more points than dimensions of its graph; a start by PCA is as good and repeats exactly.
    mapper = UMAP(n_neighbors=neighbours, init=_principal(vectors)[0] * 10, random_state=0, n_jobs=1)
    points = mapper.fit_transform(vectors).astype(np.float32)
    progress(1.0, "done")
    return points - points.mean(axis=0)


def map_view(traces: Sequence[Trace], method: str = "pca") -> dict[str, Any]:
    """What `static/map.js` draws, plain JSON. For UMAP, compute once, keep the plane with a trace, then ask for the view."""
    trajectory = compute_trajectory(traces, method)
    clips = {trace.clip.sha256: trace.clip for trace in traces}
    shares = [None if np.isnan(share) else round(float(share), 3) for share in trajectory.explained]
    return {
        "method": method,
        "explained": shares,
        "runs": [{"mode": t.mode, "question": t.question, "clip": t.clip.sha256} for t in traces],
        "clips": {key: {"name": clip.name, "duration_s": clip.duration_s} for key, clip in clips.items()},
        "moments": [_point(trajectory, i, traces) for i in np.flatnonzero(~trajectory.is_latent)],
        "latents": [_latent_point(trajectory, i, traces) for i in np.flatnonzero(trajectory.is_latent)],
    }


def _point(trajectory: Trajectory, i: int, traces: Sequence[Trace]) -> dict[str, Any]:
    x, y = (round(float(value), 4) for value in trajectory.plane.points[i])
    run, modality = int(trajectory.run[i]), "visual" if trajectory.is_visual[i] else "audio"
    point = {"x": x, "y": y, "modality": modality, "run": run, "time_s": round(float(trajectory.time_s[i]), 3)}
    if (moment := trajectory.moment[i]) < 0:
        return {**point, "span_s": None}
    box = [round(float(side), 4) for side in traces[run].moments(modality).cells[moment]]
    return {**point, "span_s": [round(float(edge), 3) for edge in trajectory.spans_s[i]], "box": box}


def _latent_point(trajectory: Trajectory, i: int, traces: Sequence[Trace]) -> dict[str, Any]:
    """A latent, with `near`: which of the moments of the view it is most similar to."""
    run, block, slot, moment = (int(values[i]) for values in (trajectory.run, trajectory.block, trajectory.slot, trajectory.moment))
    first = next(k for k, trace in enumerate(traces) if trace.clip.sha256 == traces[run].clip.sha256)
    is_kin = ~trajectory.is_latent & (trajectory.run == first) & (trajectory.is_visual == trajectory.is_visual[i])
    latent = traces[run].blocks[block].latents[slot]
    p = latent.p if latent.p_corrected is None else latent.p_corrected
    return {
        **_point(trajectory, i, traces),
        "block": block,
        "slot": slot,
        "near": int(np.flatnonzero(is_kin)[moment]) if moment >= 0 else None,
        "p": None if p is None else float(f"{p:.2g}"),
        "evidence": latent.is_evidence,
    }


def plot_trajectory(trajectory: Trajectory) -> "Figure":
    """Moments small, latents large and joined in order, run by run."""
    from plotly.graph_objects import Figure

    figure = Figure()
    x, y = trajectory.plane.points.T
    for modality, is_here, colour in (("visual", trajectory.is_visual, VISUAL_COLOUR), ("audio", ~trajectory.is_visual, AUDIO_COLOUR)):
        rows = is_here & ~trajectory.is_latent
        figure.add_scatter(
            x=x[rows], y=y[rows], mode="markers", name=f"{modality} moments", customdata=trajectory.spans_s[rows],
            marker={"size": 6, "color": colour, "opacity": 0.35, "symbol": "square" if modality == "visual" else "circle"},
            hovertemplate="%{customdata[0]:.1f}-%{customdata[1]:.1f} s<extra></extra>",
        )  # fmt: skip
    for run in np.unique(trajectory.run[trajectory.is_latent]):
        rows = trajectory.is_latent & (trajectory.run == run)
        figure.add_scatter(
            x=x[rows], y=y[rows], mode="lines+markers", name=f"latents of run {run + 1}", line={"width": 1, "color": NO_EVIDENCE_COLOUR},
            marker={"size": 11, "color": np.where(trajectory.is_visual[rows], VISUAL_COLOUR, AUDIO_COLOUR)},
            customdata=np.column_stack([trajectory.block[rows] + 1, trajectory.slot[rows] + 1, trajectory.time_s[rows]]),
            hovertemplate="block %{customdata[0]}, latent %{customdata[1]}, stated at %{customdata[2]:.1f} s<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(scaleanchor="x")
    return figure.update_layout(template="plotly_white", height=520, margin={"t": 20, "b": 45})
