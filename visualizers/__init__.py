"""Pictures of a trace: `compute_*` gives plain arrays, `plot_*` a plotly figure, `html_page` a whole page.

Here, `plot_*` take the trace itself; in the modules they take what `compute_*` made of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from latentomni.trace import Trace

__all__ = ["plot_evidence", "plot_timeline"]


def plot_timeline(trace: "Trace") -> "Figure":
    """Sound, stated windows, and where each latent stands and what it is most similar to."""
    from visualizers import timeline

    return timeline.plot_timeline(timeline.compute_timeline(trace))


def plot_evidence(trace: "Trace", block: int = 0, modality: str = "visual") -> "Figure":
    """How similar each latent of a block is to every time of the clip; modality: "visual" or "audio"."""
    from visualizers import evidence

    return evidence.plot_evidence(evidence.compute_evidence(trace, block, modality))
