"""The tab "Map": latents and moments of the clip in one plane; PCA at once, UMAP in the background, kept with the run."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app import copy
from app.components import Map, Status
from app.lanes import AT_ONCE, BACKGROUND
from app.page import failed, said
from app.session import Session
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.trajectory import compute_trajectory, map_view

__all__ = ["build_tab", "draw", "draw_umap", "wire"]

_UMAP = {**BACKGROUND, "concurrency_id": "umap", "concurrency_limit": 1}


def build_tab() -> dict[str, gr.Component]:
    """Lay the tab out; returns its components by name."""
    parts: dict[str, gr.Component] = {}
    gr.HTML(f'<p class="lo-quiet">{copy.LABELS["map_intro"]}</p>', apply_default_css=False)
    with gr.Row(elem_classes="lo-tools"):
        runs = [(copy.CHOICES["map_of"][name], name) for name in ("shown", "all")]
        label = copy.LABELS["map_of"]
        parts["map_of"] = gr.Radio(runs, value="shown", label=label, show_label=False, container=False, elem_id="map-of", scale=3, min_width=260)
        parts["pca"] = gr.Button(copy.LABELS["pca"], size="sm", elem_id="pca", min_width=70)
        parts["umap"] = gr.Button(copy.LABELS["umap"], size="sm", elem_id="umap", min_width=70)
    parts["map_status"] = Status(said("map", "quiet"), elem_id="map-status")
    parts["map"] = Map(elem_id="map")
    return parts


def wire(parts: dict[str, gr.Component], tab: gr.Tab, controls: list[gr.Component]) -> None:
    """parts: the tab's own components, and those that all tabs share."""
    given, drawn = [parts["session"], parts["map_of"]], [parts["map"], parts["map_status"]]
    gr.on([tab.select, parts["map_of"].input, parts["pca"].click], draw, given, drawn, **AT_ONCE)
    parts["umap"].click(draw_umap, given, drawn, **_UMAP)


def draw(session: Session, of: str) -> tuple[Any, Any]:
    """The map by PCA, which takes no time worth mentioning."""
    try:
        return map_view(list(_traces(session, of).values())), said("map", "quiet")
    except Exception as error:
        return None, failed(error)


def draw_umap(session: Session, of: str) -> Iterator[tuple[Any, Any]]:
    """The map by UMAP: computed beside this generator, which tells how far it is, and kept in the traces."""
    try:
        traces = _traces(session, of)
        told: queue.SimpleQueue = queue.SimpleQueue()
        yield gr.skip(), said("umap_begins", "busy")
        worker = threading.Thread(target=_compute, args=(list(traces.values()), told), daemon=True)
        worker.start()
        while True:
            kind, what = told.get()
            if kind == "progress":
                yield gr.skip(), said("umap", "busy", percent=round(100 * what))
                continue
            if kind == "failed":
                raise what
            break
        kept = {path: trace.with_plane(what.plane) for path, trace in traces.items()}
        for path, trace in kept.items():
            if "latentomni-runs" in path:  # a recorded example is not ours to change
                trace.save(path)
        yield map_view(list(kept.values()), "umap"), said("umap_done", "quiet")
    except Exception as error:
        yield gr.skip(), failed(error)


def _compute(traces: list[Trace], told: queue.SimpleQueue) -> None:
    try:
        told.put(("done", compute_trajectory(traces, "umap", lambda share, what: told.put(("progress", share)))))
    except Exception as error:
        told.put(("failed", error))


def _traces(session: Session, of: str) -> dict[str, Trace]:
    """By file: the shown answer, or all answers about this clip."""
    if not 0 <= session.shown < len(session.turns):
        raise RequestError(copy.ERRORS["no_answer"])
    turns = session.turns if of == "all" else [session.turns[session.shown]]
    return {turn.trace: Trace.load(turn.trace) for turn in turns}
