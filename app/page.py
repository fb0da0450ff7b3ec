"""What a handler may change: one value per component, everything else stays as it is."""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from app.copy import ERRORS, STATUS
from app.session import Session
from app.shared import runtime
from latentomni.errors import LatentOmniError
from latentomni.memory import is_out_of_memory

__all__ = ["AnswerPage", "Page", "calm", "failed", "idle", "running", "said"]

_SAME = gr.skip()
_LOG = logging.getLogger(__name__)


class Page(NamedTuple):
    """Values for the components of these names, in the order in which `ui` lists them."""

    session: Any = _SAME
    intake: Any = _SAME
    file: Any = _SAME
    webcam: Any = _SAME
    microphone: Any = _SAME
    stage: Any = _SAME
    player: Any = _SAME
    suggestions: Any = _SAME
    question: Any = _SAME
    tabs: Any = _SAME
    ask: Any = _SAME
    stop: Any = _SAME
    retry: Any = _SAME
    status: Any = _SAME
    conversation: Any = _SAME
    inspector: Any = _SAME
    downloads: Any = _SAME


class AnswerPage(NamedTuple):
    """The part of the page that a streamed answer changes: every component named here costs the browser time ten times a second."""

    session: Any = _SAME
    player: Any = _SAME
    ask: Any = _SAME
    stop: Any = _SAME
    retry: Any = _SAME
    status: Any = _SAME
    conversation: Any = _SAME
    inspector: Any = _SAME
    downloads: Any = _SAME


def said(name: str, kind: str = "done", /, **values: Any) -> dict[str, str]:
    """A sentence of `copy.STATUS` for the status line; kind: "done" or "busy"."""
    return {"text": STATUS[name].format(**values), "kind": kind}


def failed(error: Exception) -> dict[str, str]:
    """The status line for an error: its own sentence where it was made for people, else one for all; the rest is logged. Where memory ran
    out, what can be done without is let go, so that the next question finds room."""
    if isinstance(error, LatentOmniError):
        return {"text": str(error), "kind": "error"}
    if is_out_of_memory(error):
        runtime.let_go()
        return {"text": ERRORS["memory"], "kind": "error"}
    _LOG.error("a handler failed", exc_info=error)
    return {"text": ERRORS["unexpected"], "kind": "error"}


_AnyPage = TypeVar("_AnyPage", bound=tuple)  # named, with at least a session, the three buttons and a status


def running(page: _AnyPage) -> _AnyPage:
    return page._replace(
        ask=gr.update(interactive=False), stop=gr.update(interactive=True), retry=gr.update(interactive=False)
    )


def idle(page: _AnyPage, session: Session) -> _AnyPage:
    retry = gr.update(interactive=bool(session.asked and session.clip))
    return page._replace(
        session=session, ask=gr.update(interactive=True), stop=gr.update(interactive=False), retry=retry
    )


def calm(handler: Callable[..., _AnyPage], page: type[_AnyPage] = Page) -> Callable[..., _AnyPage]:
    """Errors become one sentence in the status line, and nothing else on the page changes."""

    @functools.wraps(handler)
    def wrapped(*values: Any) -> _AnyPage:
        try:
            return handler(*values)
        except Exception as error:
            return page(status=failed(error))

    return wrapped
