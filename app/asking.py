"""Events that ask the model: Ask, Retry and Stop, the streamed answer, and the files made of it."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app import copy
from app.choices import Choices
from app.clips import player_of_file, player_of_trace
from app.lanes import in_turn, take_ticket
from app.lent import IS_LENT, stream_answer
from app.page import AnswerPage, Page, calm, idle, running, said
from app.session import Session, Turn
from app.shared import line, runs, runtime, talks, tickets
from app.showing import conversation, showing
from latentomni.errors import RequestError
from latentomni.events import Event
from latentomni.trace import Trace
from visualizers.view import view

__all__ = ["abandon", "answer", "begin", "folded", "retry", "stop", "streamed"]

UPDATE_S = 0.1


@calm
def begin(session: Session, question: str, request: gr.Request) -> Page:
    """Ask was pressed: take a ticket and show that something happens, before the queue has its say."""
    if not (question or "").strip():
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
    session = take_ticket(session, request.session_hash)
    before, turns = session.turns, session.turns
    if session.has_answer:
        turns = turns[:-1]
        if before[-1].is_live:
            talks.step_back(request.session_hash)
    session = replace(session, turns=turns, shown=len(turns), has_answer=False)
    page = Page(
        session, status=said("waiting", "busy"), conversation=conversation(session), downloads=gr.update(visible=False),
        tabs=gr.Tabs(selected="latents"),
    )  # fmt: skip
    if before:  # the clip's clock stays in sight, without the answer that is no longer meant
        page = page._replace(
            inspector=view(replace(Trace.load(before[-1].trace), deltas=(), blocks=(), reason="running", truth=None), media=False)
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


def _unanswered(session: Session) -> tuple[Session, dict[str, Any]]:
    """Where an error leaves a question without an answer, the one before is shown."""
    ended = replace(session, shown=len(session.turns) - 1)
    return ended, showing(ended)


@in_turn(AnswerPage, "question", _unanswered)
def answer(session: Session, visitor: str, cancelled: Callable[[], bool], *values: Any) -> Iterator[AnswerPage]:
    """Stream the answer that `begin` or `retry` announced, with the controls' values."""
    yield from streamed(session, visitor, cancelled, Choices(*values))


def streamed(session: Session, visitor: str, cancelled: Callable[[], bool], choices: Choices) -> Iterator[AnswerPage]:
    """The pages of one answer; the last holds the session with the answer as its newest turn."""
    if IS_LENT:
        yield from _alone(session, cancelled, choices)
        return
    sampling, reading = choices.sampling(), choices.reading()
    if not runtime.is_loaded:
        yield AnswerPage(status=said("loading", "busy", model=Path(runtime.name).name))
    model = runtime.get()
    yield AnswerPage(status=said("reading", "busy", name=Path(session.clip).name))
    clip = runtime.read(session.clip, cancelled, reading)
    yield AnswerPage(status=said("encoding", "busy"))
    talk = f"{clip.sha256} {choices.latent()}"
    before = talks.find(visitor, talk)
    if before is None:
        session = _begun_anew(session)
        before = model.conversation(clip, choices.latent(), cancelled)
    row = talks.copied(before)
    with closing(
        model.stream(clip, session.asked, choices.mode or None, sampling, row, cancelled, choices.latent())
    ) as events:
        trace = yield from _shown(session, events)
    is_kept = trace.reason != "cancelled"
    if is_kept:
        talks.keep(visitor, talk, before, row)
    yield _ended(session, trace, is_kept)


def _alone(session: Session, cancelled: Callable[[], bool], choices: Choices) -> Iterator[AnswerPage]:
    """On a lent GPU, whose process remembers no conversation: every question is asked behind the clip alone."""
    session = _begun_anew(session)
    yield AnswerPage(status=said("encoding", "busy"))
    with closing(
        stream_answer(session.clip, session.asked, choices.mode or None, choices.sampling(), choices.reading(), cancelled, choices.latent())
    ) as events:
        trace = yield from _shown(session, events)
    yield _ended(session, trace, trace.reason != "cancelled")


def _begun_anew(session: Session) -> Session:
    return replace(session, turns=tuple(replace(turn, is_live=False) for turn in session.turns))


def _shown(session: Session, events: Iterator[Event]) -> Generator[AnswerPage, None, Trace]:
    """Pages while an answer streams; returns its trace."""
    for trace in folded(events):
        shown = view(trace, media=False)
        if not trace.deltas and not trace.blocks:
            player = _player(session, trace)
            yield AnswerPage(
                player=player,
                conversation=conversation(session, trace),
                inspector=shown,
                status=said("answering", "busy"),
            )
        elif trace.reason == "running":
            yield AnswerPage(inspector=shown)
    return trace


def folded(events: Iterator[Event]) -> Iterator[Trace]:
    """The trace after each event, but not more often than the page can draw."""
    trace, shown_s = Trace.from_events([next(events)]), time.monotonic()
    yield trace
    for event in events:
        line.note_first()
        trace = trace.after(event)
        if trace.reason != "running" or time.monotonic() - shown_s >= UPDATE_S:
            shown_s = time.monotonic()
            yield trace


def _player(session: Session, trace: Trace) -> dict[str, Any]:
    media, key = view(trace)["media"], trace.clip.sha256
    player = player_of_file(session.clip, media, key, (trace.reading or {}).get("start_s", 0.0))
    return player_of_trace(trace, session.folder, media) if player["kind"] == "unplayable" else player


def _ended(session: Session, trace: Trace, is_kept: bool) -> AnswerPage:
    run, path = runs.keep(trace, Path(session.clip).stem, session.clip)
    turn = Turn(trace.question, trace.answer, path, is_kept, run=run)
    session = replace(session, turns=(*session.turns, turn), has_answer=True)
    status = said("done", seconds=f"{trace.elapsed_s:.1f}") if is_kept else said("stopped")
    return idle(AnswerPage(status=status, **showing(session, trace)), session)
