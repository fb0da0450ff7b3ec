"""The clip's clock: frames, sound, stated windows, and where each latent stands and where its evidence lies.

Dimensions: F thumbnails, E envelope points, S blocks, L latents of all blocks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latentomni.trace import SIGNIFICANT_P, Trace

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["AUDIO_COLOUR", "ENVELOPE_HZ", "NO_EVIDENCE_COLOUR", "VISUAL_COLOUR", "Timeline", "compute_timeline", "plot_timeline"]

VISUAL_COLOUR, AUDIO_COLOUR, NO_EVIDENCE_COLOUR, _TRUE_COLOUR = "#2f5fd0", "#a8500b", "#8a919c", "#1a7f4b"
ENVELOPE_HZ = 50
_QUIET = 0.02  # of full scale; sound below this is not magnified


@dataclass(frozen=True, eq=False)
class Timeline:
    """All times in seconds from clip start.

    frame_times_s: (F,). envelope: (E,) peaks of the sound at `ENVELOPE_HZ`, 0 to 1 of its loudest. windows_s: (S, 2).
    block: (L,) block of each latent. is_visual: (L,). stated_s: (L,) by its position. evidence_s: (L, 2) start and end
    of its best match, NaN without one. score: (L,). p: (L,) corrected where the block has closed; NaN without a null.
    true_s: (W, 2) windows where the evidence of the right answer lies, for W that are known.
    """

    duration_s: float
    frame_times_s: np.ndarray
    envelope: np.ndarray
    windows_s: np.ndarray
    block: np.ndarray
    is_visual: np.ndarray
    stated_s: np.ndarray
    evidence_s: np.ndarray
    score: np.ndarray
    p: np.ndarray
    true_s: np.ndarray

    @property
    def is_evidence(self) -> np.ndarray:
        """(L,) True where the best match stands out from the null; False without a null."""
        return self.p <= SIGNIFICANT_P


def compute_timeline(trace: Trace) -> Timeline:
    """The lanes of a trace, of an unfinished one too."""
    latents = [(number, z) for number, block in enumerate(trace.blocks) for z in block.latents]
    best = [z.matches[0] if z.matches else None for _, z in latents]
    p = [z.p if z.p_corrected is None else z.p_corrected for _, z in latents]
    return Timeline(
        duration_s=trace.clip.duration_s,
        frame_times_s=trace.clip.thumbnail_times_s,
        envelope=_envelope(trace),
        windows_s=np.array([(b.window.start_s, b.window.end_s) for b in trace.blocks]).reshape(-1, 2),
        block=np.array([number for number, _ in latents], dtype=int),
        is_visual=np.array([z.modality == "visual" for _, z in latents], dtype=bool),
        stated_s=np.array([z.time_s for _, z in latents], dtype=float),
        evidence_s=np.array([(m.start_s, m.end_s) if m else (np.nan, np.nan) for m in best]).reshape(-1, 2),
        score=np.array([m.score if m else np.nan for m in best], dtype=float),
        p=np.array([np.nan if value is None else value for value in p], dtype=float),
        true_s=np.array([(w.start_s, w.end_s) for w in (trace.truth.windows if trace.truth else ())]).reshape(-1, 2),
    )


def _envelope(trace: Trace) -> np.ndarray:
    """(E,) float32 from 0 to 1; empty without sound."""
    sound, samples = trace.clip.sound, trace.sound_hz // ENVELOPE_HZ
    if sound is None or not len(sound):
        return np.zeros(0, np.float32)
    peaks = np.maximum.reduceat(np.abs(sound.astype(np.float32)), np.arange(0, len(sound), samples))
    return (peaks / max(float(peaks.max()), _QUIET * 32_768)).astype(np.float32)


def plot_timeline(timeline: Timeline) -> "Figure":
    """Sound above; below it each latent's stated time joined to the time of its evidence, over the stated windows."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.3, 0.7], vertical_spacing=0.04)
    seconds = np.arange(len(timeline.envelope)) / ENVELOPE_HZ
    figure.add_scatter(
        x=np.concatenate([seconds, seconds[::-1]]), y=np.concatenate([timeline.envelope, -timeline.envelope[::-1]]),
        fill="toself", line_width=0, fillcolor=AUDIO_COLOUR, opacity=0.5, hoverinfo="skip", name="sound", row=1, col=1,
    )  # fmt: skip
    middle_s = timeline.evidence_s.mean(axis=1)
    for name, rows, colour in (
        ("visual", timeline.is_visual & timeline.is_evidence, VISUAL_COLOUR),
        ("audio", ~timeline.is_visual & timeline.is_evidence, AUDIO_COLOUR),
        (
            "no null: ranks only" if np.isnan(timeline.p).all() else "no evidence",
            ~timeline.is_evidence,
            NO_EVIDENCE_COLOUR,
        ),
    ):
        gaps = np.full(rows.sum(), np.nan)
        figure.add_scatter(
            x=np.stack([timeline.stated_s[rows], middle_s[rows], gaps], axis=1).ravel(),
            y=np.tile([1.0, 0.0, np.nan], rows.sum()),
            mode="lines+markers", line={"width": 1, "color": colour}, marker_size=8,
            opacity=0.6, name=name, row=2, col=1,
            hovertemplate="%{x:.2f} s",
        )  # fmt: skip
    for start_s, end_s in timeline.windows_s:
        figure.add_vrect(x0=start_s, x1=end_s, fillcolor=NO_EVIDENCE_COLOUR, opacity=0.12, line_width=0)
    gaps = np.full(len(timeline.true_s), np.nan)
    if len(gaps):  # a line under the stated ones, which it would else hide, and hatching the whole way up
        figure.add_scatter(
            x=np.column_stack([timeline.true_s, gaps]).ravel(), y=np.tile([-0.12, -0.12, np.nan], len(gaps)), mode="lines",
            line={"width": 6, "color": _TRUE_COLOUR}, name="true window", row=2, col=1, hovertemplate="%{x:.2f} s",
        )  # fmt: skip
    for start_s, end_s in timeline.true_s:
        figure.add_vrect(x0=start_s, x1=end_s, fillcolor=_TRUE_COLOUR, opacity=0.1, line_width=0)
    figure.update_yaxes(visible=False, row=1, col=1)
    figure.update_yaxes(tickvals=[0, 1], ticktext=["most similar to", "stated"], row=2, col=1)
    figure.update_xaxes(range=[0, timeline.duration_s], title_text="seconds", row=2, col=1)
    return figure.update_layout(
        template="plotly_white",
        height=340,
        margin={"l": 100, "r": 20, "t": 30, "b": 45},
        legend={"orientation": "h", "y": 1.12},
    )
