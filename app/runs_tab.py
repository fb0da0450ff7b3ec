"""The tab "Runs": what this browser remembers of earlier answers, and links that open them again."""

import time
from typing import Any

import gradio as gr

from app import copy
from app.components import History
from app.handlers import open_trace
from app.lanes import AT_ONCE
from app.page import Page, calm, failed, said
from app.session import Session
from app.shared import runs
from latentomni.trace import Trace

__all__ = ["STORAGE_KEY", "act", "build_tab", "keep", "list_runs", "open_link", "wire"]

STORAGE_KEY = "latentomni-runs"
_MAX_RUNS = 40


def build_tab() -> dict[str, gr.Component]:
    """Lay the tab out; returns its components by name."""
    gr.HTML(f'<p class="lo-quiet">{copy.LABELS["runs_intro"]}</p>', apply_default_css=False)
    return {"runs": History(elem_id="runs")}


def wire(parts: dict[str, gr.Component], tab: gr.Tab, controls: list[gr.Component]) -> None:
    """parts: the tab's own components, and those that all tabs share."""
    session, history = parts["session"], parts["history"]
    page = [*(parts[name] for name in Page._fields), history, parts["runs"]]
    tab.select(list_runs, history, parts["runs"], **AT_ONCE)
    parts["runs"].select(act, [session, history], page, **AT_ONCE)


def list_runs(history: list[dict[str, Any]] | None) -> dict[str, Any]:
    """What the list draws; the tab was opened."""
    return {"runs": [entry for entry in history or [] if isinstance(entry, dict) and isinstance(entry.get("run"), str)]}


def keep(session: Session, history: list[dict[str, Any]] | None) -> Any:
    """The history with the newest answer in front; a recorded example is not remembered."""
    turn = session.turns[-1] if session.turns else None
    known = list_runs(history)["runs"]
    if turn is None or not turn.run or runs.example(turn.run) or any(entry["run"] == turn.run for entry in known):
        return gr.skip()
    return [runs.entry(turn.run, Trace.load(turn.trace), time.time()), *known][:_MAX_RUNS]


def act(session: Session, history: list[dict[str, Any]] | None, event: gr.EventData, request: gr.Request) -> tuple:
    """A run of the list was chosen, or is to be forgotten. Returns the page, then the history and its list."""
    run, action = event._data.get("run"), event._data.get("action")
    try:
        if action == "forget":
            runs.forget(str(run))
            history = [entry for entry in list_runs(history)["runs"] if entry["run"] != run]
            return (*Page(), history, list_runs(history))
        return (*_opened(session, str(run), request), gr.skip(), gr.skip())
    except Exception as error:
        return (*Page(status=failed(error)), gr.skip(), gr.skip())


@calm
def open_link(session: Session, request: gr.Request) -> Page:
    """The page was opened with `?run=`: show that run, or say that it is gone."""
    run = request.query_params.get("run")
    return _opened(session, run, request) if run else Page()


def _opened(session: Session, run: str, request: gr.Request) -> Page:
    example = runs.example(run)
    path, clip = (example.trace, example.clip) if example else (runs.find(run), runs.clip(run))
    page = open_trace(session, path, request.session_hash, run, clip)
    return page._replace(status=said("opened"), tabs=gr.Tabs(selected="latents"))
