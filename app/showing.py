"""What shows a session: the answer in the inspector, the questions so far, what can be done with the answer, its place in line."""

from typing import Any

import gradio as gr

from app import copy, remarks
from app.page import said
from app.session import Session
from latentomni.trace import Trace
from visualizers.view import view

__all__ = ["conversation", "showing", "waiting"]


def showing(session: Session, trace: Trace | None = None) -> dict[str, Any]:
    """The components that show the chosen turn (`trace` is read from its file where it is not at hand). The downloads come into
    sight with their files, by `downloads.export`: before that they would give those of the answer before."""
    hidden = gr.update(visible=False)
    if not session.turns:
        return {"inspector": None, "conversation": None, "downloads": hidden}
    trace = trace or Trace.load(session.turns[session.shown].trace)
    return {
        "inspector": view(trace, media=False),
        "conversation": conversation(session, trace),
        "downloads": hidden,
    }


def conversation(session: Session, trace: Trace | None = None) -> dict[str, Any]:
    """Questions and answers so far, the one shown, and what must be said about it; a turn without an answer is under way."""
    turns = [{"question": turn.question, "answer": turn.answer, "is_live": turn.is_live} for turn in session.turns]
    is_running = session.shown == len(turns)
    if is_running:
        turns.append({"question": session.asked, "answer": None, "is_live": True})
    said_about = remarks.notices(trace, session.is_foreign) if trace else []
    facts = copy.caption(trace, "" if is_running else session.turns[session.shown].true_answer) if trace else ""
    findings = [] if is_running else list(session.turns[session.shown].findings)
    return {"turns": turns, "shown": session.shown, "is_running": is_running, "notices": said_about, "caption": facts, "findings": findings}



def waiting(ahead: int, seconds: float | None) -> dict[str, str]:
    """The status of a run that waits: how many are before it, and for how long where that is known."""
    if seconds is None:
        return said("in_line", "busy", ahead=ahead)
    return said("in_line_for", "busy", ahead=ahead, seconds=round(seconds))
