"""Events that ask the model: Ask, Retry and Stop, the streamed answer, and the files made of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app import copy
from app.clips import LIMITS, player_of_file, player_of_trace
from app.page import AnswerPage, Page, calm, failed, idle, running, said
from app.session import LazyRuntime, Session, Talks, Tickets, Turn
from latentomni.config import SamplingSpec
from latentomni.errors import MediaError, RequestError
from latentomni.events import Event
from latentomni.trace import Trace
from visualizers.page import html_page
from visualizers.view import view

__all__ = ["abandon", "answer", "begin", "export", "retry", "showing", "stop"]

UPDATE_S = 0.1
runtime, tickets, talks = LazyRuntime("nano", LIMITS), Tickets(), Talks()


@calm
def begin(session: Session, question: str, request: gr.Request) -> Page:
    """Ask was pressed: take a ticket and show that something happens, before the queue has its say."""
    if not question.strip():
        raise RequestError(copy.ERRORS["no_question"])
    return _begun(replace(session, asked=question.strip(), has_answer=False), request)._replace(question="")


@calm
def retry(session: Session, request: gr.Request) -> Page:
    """Retry was pressed: the last question again, in place of its answer."""
    if not session.asked:
        raise RequestError(copy.ERRORS["nothing_to_retry"])
    return _begun(session, request)


def _begun(session: Session, request: gr.Request) -> Page:
    if not session.clip:
        raise RequestError(copy.ERRORS["no_clip_in_trace" if session.turns else "no_clip"])
    ticket = tickets.take(request.session_hash)
    if ticket is None:
        raise RequestError(copy.ERRORS["busy"])
    before, turns = session.turns, session.turns
    if session.has_answer:
        turns = turns[:-1]
        if before[-1].is_live:
            talks.step_back(request.session_hash)
    session = replace(session, ticket=ticket, turns=turns, shown=len(turns), has_answer=False)
    page = Page(
        session, status=said("waiting", "busy"), conversation=_conversation(session), downloads=gr.update(visible=False)
    )
    if before:  # the clip's clock stays in sight, without the answer that is no longer meant
        page = page._replace(
            inspector=view(replace(Trace.load(before[-1].trace), deltas=(), blocks=(), reason="running"), media=False)
        )
    return running(page)


@calm
def stop(request: gr.Request) -> Page:
    """Stop was pressed: the run ends between two steps and keeps what it has."""
    return Page(status=said("stopping", "busy")) if tickets.stop(request.session_hash) else Page()


def abandon(visitor: str) -> None:
    """Nobody waits for this visitor's answer any more, and the conversation is over."""
    tickets.give_back(visitor)
    talks.forget(visitor)


def answer(
    session: Session, mode: str, temperature: float, seed: float, max_tokens: float, request: gr.Request
) -> Iterator[AnswerPage]:
    """Stream the answer that `begin` or `retry` announced; any other call changes nothing."""
    visitor, ticket = request.session_hash, session.ticket
    stop_sign = tickets.claim(visitor, ticket)
    if stop_sign is not None:
        try:
            for page in _answered(session, (mode, temperature, seed, max_tokens), visitor, stop_sign.is_set):
                if not tickets.is_current(visitor, ticket):
                    break
                yield page
            else:
                return
        finally:
            tickets.give_back(visitor, ticket)
    yield AnswerPage()  # gradio sends the last value twice; it must not bring back what was cleared meanwhile


def _answered(session: Session, settings: tuple, visitor: str, cancelled: Callable[[], bool]) -> Iterator[AnswerPage]:
    try:
        yield from _streamed(session, settings, visitor, cancelled)
    except Exception as error:
        is_stopped = cancelled() and isinstance(error, MediaError)
        ended = replace(session, shown=len(session.turns) - 1)
        status = said("stopped") if is_stopped else failed(error)
        yield idle(AnswerPage(status=status, **showing(ended)), ended)


def _streamed(session: Session, settings: tuple, visitor: str, cancelled: Callable[[], bool]) -> Iterator[AnswerPage]:
    mode, temperature, seed, max_tokens = settings
    sampling = SamplingSpec(temperature=temperature, seed=int(seed), max_new_tokens=int(max_tokens))
    if not runtime.is_loaded:
        yield AnswerPage(status=said("loading", "busy", model=Path(runtime.name).name))
    model = runtime.get()
    yield AnswerPage(status=said("reading", "busy", name=Path(session.clip).name))
    clip = runtime.read(session.clip, cancelled)
    yield AnswerPage(status=said("encoding", "busy"))
    before = talks.find(visitor, clip.sha256)
    if before is None:
        session = replace(session, turns=tuple(replace(turn, is_live=False) for turn in session.turns))
        before = model.conversation(clip)
    row = talks.copied(before)
    with closing(model.stream(clip, session.asked, mode, sampling, row, cancelled)) as events:
        for trace in _folded(events):
            shown = view(trace, media=False)
            if not trace.deltas and not trace.blocks:
                player = _player(session, trace)
                yield AnswerPage(
                    player=player,
                    conversation=_conversation(session, trace),
                    inspector=shown,
                    status=said("answering", "busy"),
                )
            elif trace.reason == "running":
                yield AnswerPage(inspector=shown)
    is_kept = trace.reason != "cancelled"
    if is_kept:
        talks.keep(visitor, clip.sha256, before, row)
    yield _ended(session, trace, is_kept)


def _folded(events: Iterator[Event]) -> Iterator[Trace]:
    """The trace after each event, but not more often than the page can draw."""
    trace, shown_s = Trace.from_events([next(events)]), time.monotonic()
    yield trace
    for event in events:
        trace = trace.after(event)
        if trace.reason != "running" or time.monotonic() - shown_s >= UPDATE_S:
            shown_s = time.monotonic()
            yield trace


def _player(session: Session, trace: Trace) -> dict[str, Any]:
    media, key = view(trace)["media"], trace.clip.sha256
    player = player_of_file(session.clip, media, key)
    return player_of_trace(trace, session.folder, media) if player["kind"] == "unplayable" else player


def _ended(session: Session, trace: Trace, is_kept: bool) -> AnswerPage:
    path = Path(session.folder) / f"{Path(session.clip).stem}-{len(session.turns) + 1}-{session.ticket[:6]}.trace.zip"
    trace.save(path)
    turn = Turn(trace.question, trace.answer, str(path), is_kept)
    session = replace(session, turns=(*session.turns, turn), has_answer=True)
    status = said("done", seconds=trace.elapsed_s) if is_kept else said("stopped")
    return idle(AnswerPage(status=status, **showing(session, trace)), session)


def showing(session: Session, trace: Trace | None = None) -> dict[str, Any]:
    """The components that show the chosen turn (`trace` is read from its file where it is not at hand)."""
    if not session.turns:
        return {"inspector": None, "conversation": None, "downloads": gr.update(visible=False)}
    trace = trace or Trace.load(session.turns[session.shown].trace)
    return {
        "inspector": view(trace, media=False),
        "conversation": _conversation(session, trace),
        "downloads": gr.update(visible=True),
    }


def _conversation(session: Session, trace: Trace | None = None) -> dict[str, Any]:
    """Questions and answers so far, the one shown, and what must be said about it; a turn without an answer is under way."""
    turns = [{"question": turn.question, "answer": turn.answer, "is_live": turn.is_live} for turn in session.turns]
    is_running = session.shown == len(turns)
    if is_running:
        turns.append({"question": session.asked, "answer": None, "is_live": True})
    said_about = copy.notices(trace, session.is_foreign) if trace else []
    facts = copy.caption(trace, "" if is_running else session.turns[session.shown].true_answer) if trace else ""
    return {"turns": turns, "shown": session.shown, "is_running": is_running, "notices": said_about, "caption": facts}


def export(session: Session) -> tuple[Any, Any]:
    """Make the shown answer ready for download: its trace, and a page that needs nothing else."""
    if not session.turns or session.shown >= len(session.turns):
        return gr.skip(), gr.skip()
    source = Path(session.turns[session.shown].trace)
    report = Path(session.folder) / f"{source.name.split('.')[0]}.html"
    if not report.is_file():
        report.write_text(html_page(Trace.load(source)), encoding="utf-8")
    return str(source), str(report)
