"""Events that choose what is shown: a clip, an example, a saved answer, an earlier turn, or nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from app import asking, copy
from app.clips import is_trace_file, player_of_file, player_of_trace
from app.gallery import gallery
from app.page import Page, calm, failed, idle, said
from app.session import Session, Turn, new_folder, remove_folder
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.view import view

__all__ = ["bring", "choose_example", "choose_turn", "clear", "leave", "suggest"]


def bring(session: Session, path: str | None, request: gr.Request) -> Page:
    """A visitor's file arrives: a clip to ask about, or a saved answer to look at."""
    if not path:  # the input was emptied
        return Page()
    try:
        return _brought(session, path, request.session_hash)
    except Exception as error:
        return Page(status=failed(error), file=None, webcam=None, microphone=None)


def _brought(session: Session, path: str, visitor: str) -> Page:
    if is_trace_file(path):
        trace = Trace.load(path)
        after = _with_answer(None, path, trace, session)
        player = player_of_trace(trace, after.folder, view(trace)["media"])
        page = _opened(after, trace, player)._replace(status=said("opened"))
    else:
        player = player_of_file(path)
        after = Session(clip=path, is_foreign=True, folder=session.folder or new_folder())
        page = _opened(after, None, player)._replace(status=said("ready", name=player["name"]))
    asking.abandon(visitor)
    return page


@calm
def choose_example(session: Session, event: gr.EventData, request: gr.Request) -> Page:
    """Open a recorded answer with its clip, without running the model."""
    example = _chosen(gallery(), event)
    trace = Trace.load(example.trace)
    after = _with_answer(example.clip, example.trace, trace, session, example.true_answer)
    player = player_of_file(example.clip, view(trace)["media"], trace.clip.sha256)
    page = _opened(after, trace, player)._replace(suggestions=list(example.questions), status=said("recorded"))
    asking.abandon(request.session_hash)
    return page


def _with_answer(clip: str | None, path: str, trace: Trace, before: Session, true_answer: str = "") -> Session:
    turn = Turn(trace.question, trace.answer, path, False, true_answer)
    return Session(clip, clip is None, before.folder or new_folder(), (turn,), 0, trace.question, has_answer=True)


def _opened(session: Session, trace: Trace | None, player: dict[str, Any]) -> Page:
    page = Page(intake=gr.update(visible=False), stage=gr.update(visible=True), player=player, suggestions=[])
    return idle(page._replace(**asking.showing(session, trace)), session)


@calm
def choose_turn(session: Session, event: gr.EventData) -> Page:
    """Show an earlier answer about the same clip."""
    _chosen(session.turns, event)
    session = replace(session, shown=event.index)
    return Page(session, **asking.showing(session))


@calm
def suggest(suggestions: list[str], event: gr.EventData) -> Page:
    """Put a suggested question into the box."""
    return Page(question=_chosen(suggestions, event))


@calm
def clear(session: Session, request: gr.Request) -> Page:
    """Back to an empty page; a running answer ends."""
    asking.abandon(request.session_hash)
    remove_folder(session)
    page = Page(
        intake=gr.update(visible=True), stage=gr.update(visible=False), status=said("idle"), suggestions=[], question=""
    )
    page = page._replace(file=None, webcam=None, microphone=None, player=None, **asking.showing(Session()))
    return idle(page, Session())


def leave(request: gr.Request) -> None:
    """The page was closed."""
    asking.abandon(request.session_hash)


def _chosen(items: Sequence[Any], event: gr.EventData) -> Any:
    """What a click of an own component means; it names an item by its place."""
    place = event._data.get("index")
    if not (isinstance(place, int) and 0 <= place < len(items)):
        raise RequestError(copy.ERRORS["gone"])
    return items[place]
