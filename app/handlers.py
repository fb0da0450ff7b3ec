"""Events that choose what is shown: a clip, an example, a saved answer, an earlier turn, or nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app import asking, copy
from app.clips import is_trace_file, player_of_file, player_of_trace
from app.gallery import gallery
from app.page import Page, calm, failed, idle, said
from app.session import Session, Turn, new_folder, remove_folder
from app.shared import runs
from app.showing import showing
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.view import view

__all__ = ["bring", "choose_example", "choose_turn", "clear", "leave", "open_trace", "suggest"]


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
        run, kept = runs.keep(Trace.load(path), Path(path).name.split(".")[0])
        return open_trace(session, kept, visitor, run)._replace(status=said("opened"))
    player = player_of_file(path)
    after = Session(clip=path, is_foreign=True, folder=session.folder or new_folder())
    page = _opened(after, None, player)._replace(status=said("ready", name=player["name"]))
    asking.abandon(visitor)
    return page


def open_trace(session: Session, path: str, visitor: str, run: str, clip: str | None = None) -> Page:
    """Show a saved answer, with its clip where that is at hand: given, on the page already, or one of the examples."""
    trace = Trace.load(path)
    if clip is None and session.clip and session.turns:
        is_same = Trace.load(session.turns[-1].trace).clip.file_sha256 == trace.clip.file_sha256
        clip = session.clip if is_same else None
    example = next((one for one in gallery() if one.clip == clip or one.sha256 == trace.clip.file_sha256), None)
    clip = clip or (example and example.clip)
    true_answer = example.true_answer if example and path == example.trace else ""
    turn = Turn(trace.question, trace.answer, path, False, true_answer, run)
    folder = session.folder or new_folder()
    after = Session(clip, example is None, folder, (turn,), 0, trace.question, has_answer=True)
    media = view(trace)["media"]
    start_s = (trace.reading or {}).get("start_s", 0.0)
    player = player_of_file(clip, media, trace.clip.sha256, start_s) if clip else player_of_trace(trace, folder, media)
    page = _opened(after, trace, player)._replace(suggestions=list(example.questions) if example else [])
    asking.abandon(visitor)
    return page


@calm
def choose_example(session: Session, event: gr.EventData, request: gr.Request) -> Page:
    """Open a recorded answer with its clip, without running the model."""
    example = _chosen(gallery(), event)
    page = open_trace(session, example.trace, request.session_hash, Path(example.clip).stem, example.clip)
    return page._replace(status=said("recorded"))


def _opened(session: Session, trace: Trace | None, player: dict[str, Any]) -> Page:
    page = Page(intake=gr.update(visible=False), stage=gr.update(visible=True), player=player, suggestions=[])
    page = page._replace(tabs=gr.Tabs(selected="latents"))
    return idle(page._replace(**showing(session, trace)), session)


@calm
def choose_turn(session: Session, event: gr.EventData) -> Page:
    """Show an earlier answer about the same clip."""
    _chosen(session.turns, event)
    session = replace(session, shown=event.index)
    return Page(session, **showing(session))


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
    page = page._replace(file=None, webcam=None, microphone=None, player=None, **showing(Session()))
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
