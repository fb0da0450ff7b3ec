"""Files made of an answer: its trace, a page that needs nothing else, and a film of the moments it cites."""

from pathlib import Path
from typing import Any

import gradio as gr

from app import copy
from app.page import failed, said
from app.session import Session
from app.shared import runs
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.page import html_page
from visualizers.reel_process import write_reel_apart

__all__ = ["begin_reel", "export", "reel"]


def export(session: Session) -> tuple[Any, Any, Any, Any]:
    """Make the shown answer ready for download: the row of buttons, its trace, a page that needs nothing else, and its reel, which
    is not there yet."""
    if not session.turns or session.shown >= len(session.turns):
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
    source = Path(session.turns[session.shown].trace)
    report = _beside(session, source, ".html")
    if not report.is_file():
        report.write_text(html_page(Trace.load(source)), encoding="utf-8")
    return gr.update(visible=True), str(source), str(report), gr.update(visible=False, value=None)


def begin_reel() -> dict[str, str]:
    """The reel was asked for, which takes some seconds."""
    return said("reel_begins", "busy")


def reel(session: Session) -> tuple[Any, Any]:
    """Cut the moments that the answer names together; returns the status and the download."""
    try:
        if not session.turns:
            raise RequestError(copy.ERRORS["no_answer"])
        if not session.clip:
            raise RequestError(copy.ERRORS["no_clip_in_trace"])
        source = Path(session.turns[session.shown].trace)
        film = _beside(session, source, ".reel.mp4")
        if not film.is_file():
            write_reel_apart(source, Path(session.clip), film)
        return said("reel"), gr.update(value=str(film), visible=True)
    except Exception as error:
        return failed(error), gr.skip()


def _beside(session: Session, trace: Path, suffix: str) -> Path:
    """A file made of a trace: in the run's folder, or in the visitor's where the trace is not one of our runs."""
    folder = trace.parent if runs.folder in trace.parents else Path(session.folder)
    return folder / f"{trace.name.split('.')[0]}{suffix}"
