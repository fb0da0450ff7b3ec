"""How events run: at once, in the background, or one after the other in the model's lane."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr

from app import copy
from app.page import calm, failed, idle, running, said
from app.session import Session
from app.shared import line, tickets
from app.showing import waiting
from latentomni.errors import MediaError, RequestError

__all__ = ["AT_ONCE", "BACKGROUND", "MODEL", "TabPage", "announce", "in_turn", "take_ticket"]

BACKGROUND = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE = {**BACKGROUND, "queue": False}
MODEL = {**BACKGROUND, "concurrency_id": "model", "concurrency_limit": None}  # they wait in a line of their own


class TabPage(NamedTuple):
    """What a task of another tab changes; `result` is that tab's own component."""

    session: Any = gr.skip()
    ask: Any = gr.skip()
    stop: Any = gr.skip()
    retry: Any = gr.skip()
    status: Any = gr.skip()
    result: Any = gr.skip()


def take_ticket(session: Session, visitor: str) -> Session:
    """The session with a ticket for one task in the model's lane. RequestError while another is under way, or the line takes no more."""
    line.check(visitor)
    ticket = tickets.take(visitor)
    if ticket is None:
        raise RequestError(copy.ERRORS["busy"])
    return replace(session, ticket=ticket)


def announce(page: type) -> Callable[[Session, gr.Request], Any]:
    """The handler that answers a click on a task about the shown answer at once, before the lane is free; the task itself is
    made by `in_turn`."""

    def begin(session: Session, request: gr.Request) -> Any:
        if not session.turns:
            raise RequestError(copy.ERRORS["no_answer"])
        if not session.clip:
            raise RequestError(copy.ERRORS["no_clip_in_trace"])
        return running(page(take_ticket(session, request.session_hash), status=said("waiting", "busy")))

    return calm(begin, page)


def in_turn(page: type, kind: str, unanswered: Callable[[Session], tuple[Session, dict]] = lambda session: (session, {})) -> Callable:
    """Make of `task(session, visitor, cancelled, *values)`, which yields pages, a handler `(session, request, *values)`: it runs
    once for the ticket in the session, when the line has come to it, tells its place until then, ends when nobody waits for it any more,
    and says errors in a sentence. kind: what it is called in logs. unanswered: the session and the components that show it where an
    error leaves the task without an answer."""

    def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def turn(session: Session, request: gr.Request, *values: Any) -> Iterator[Any]:
            visitor, ticket = request.session_hash, session.ticket
            stop_sign = tickets.claim(visitor, ticket)
            if stop_sign is not None:
                try:
                    with closing(_in_line(task, page, kind, unanswered, session, visitor, stop_sign, values)) as pages:
                        for shown in pages:
                            if not tickets.is_current(visitor, ticket):
                                break
                            yield shown
                        else:
                            return
                finally:
                    tickets.give_back(visitor, ticket)
            yield page()  # gradio sends the last value twice; it must not bring back what was cleared meanwhile

        turn.__name__, turn.__doc__ = task.__name__, task.__doc__
        return turn

    return decorate


def _in_line(task: Callable, page: type, kind: str, unanswered: Callable, session: Session, visitor: str,
             stop_sign: threading.Event, values: tuple) -> Iterator[Any]:  # fmt: skip
    place = None
    try:
        with line.place(kind, visitor, stop_sign) as place:
            for ahead, seconds in place.waits():
                yield page(status=waiting(ahead, seconds))
            yield from task(session, visitor, place.cancelled, *values)
        if place.ending in ("limit", "cut"):
            yield page(status=said(place.ending))
    except Exception as error:
        is_ended = place is not None and place.ending and isinstance(error, MediaError)
        session, shown = unanswered(session)
        yield idle(page(status=said(place.ending) if is_ended else failed(error), **shown), session)
