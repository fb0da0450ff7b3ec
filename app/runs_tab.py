"""The Runs tab: what this browser remembers of earlier answers, links that open them again, and the files made of an answer."""

import time
from pathlib import Path
from typing import Any

import gradio as gr

from app import copy
from app.handlers import open_trace
from app.page import Page, calm, failed, said
from app.session import Session
from app.shared import runs
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.page import html_page

__all__ = ["STORAGE_KEY", "act", "export", "keep", "list_runs", "open_link", "reel"]

STORAGE_KEY = "latentomni-runs"
_MAX_RUNS = 40


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
    path, clip = (example.trace, example.clip) if example else (runs.find(run), None)
    page = open_trace(session, path, request.session_hash, run, clip)
    return page._replace(status=said("opened"), tabs=gr.Tabs(selected="latents"))


def export(session: Session) -> tuple[Any, Any, Any]:
    """Make the shown answer ready for download: its trace, a page that needs nothing else, and the button for its reel."""
    if not session.turns or session.shown >= len(session.turns):
        return gr.skip(), gr.skip(), gr.skip()
    source = Path(session.turns[session.shown].trace)
    report = _beside(session, source, ".html")
    if not report.is_file():
        report.write_text(html_page(Trace.load(source)), encoding="utf-8")
    return str(source), str(report), gr.update(visible=False, value=None)


def reel(session: Session) -> tuple[Any, Any]:
    """Cut the moments that the answer names together; returns the status and the download."""
    try:
        if not session.turns:
            raise RequestError(copy.ERRORS["no_answer"])
        if not session.clip:
            raise RequestError(copy.ERRORS["no_clip_in_trace"])
        from visualizers.reel import write_reel

        source = Path(session.turns[session.shown].trace)
        film = _beside(session, source, ".reel.mp4")
        if not film.is_file():
            write_reel(Trace.load(source), session.clip, film)
        return said("reel"), gr.update(value=str(film), visible=True)
    except Exception as error:
        return failed(error), gr.skip()


def _beside(session: Session, trace: Path, suffix: str) -> Path:
    """A file made of a trace: in the run's folder, or in the visitor's where the trace is not one of our runs."""
    folder = trace.parent if runs.folder in trace.parents else Path(session.folder)
    return folder / f"{trace.name.split('.')[0]}{suffix}"
