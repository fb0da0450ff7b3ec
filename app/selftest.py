"""The self test: draw a fresh clip of AV World whose events are known, ask about it, and say what was right."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr

from app import asking, remarks
from app.choices import Choices
from app.clips import player_of_file
from app.lanes import in_turn, take_ticket
from app.library import library
from app.page import AnswerPage, Page, failed, idle, running, said
from app.session import Session, new_folder
from app.showing import conversation, showing
from latentomni.trace import Trace

__all__ = ["draw", "take"]


def draw(session: Session, request: gr.Request) -> Iterator[Page]:
    """Draw a clip as a file that plays, and show it with its question."""
    yield Page(status=said("drawing", "busy"))
    try:
        asking.abandon(request.session_hash)
        seed = secrets.randbelow(2**31)
        trial = library().draw_trial(seed)
        folder = session.folder or new_folder()
        path = str(Path(folder) / f"self-test-{seed}.mp4")
        library().write_clip(trial.world, path)
        drawn = take_ticket(Session(path, False, folder, asked=trial.question.text, trial=seed), request.session_hash)
        drawn = replace(drawn, shown=0)
        page = Page(drawn, intake=gr.update(visible=False), stage=gr.update(visible=True), player=player_of_file(path), suggestions=[])
        page = page._replace(inspector=None, conversation=conversation(drawn), downloads=gr.update(visible=False))
        yield running(page._replace(tabs=gr.Tabs(selected="latents"), status=said("waiting", "busy")))
    except Exception as error:
        yield Page(status=failed(error))


@in_turn(AnswerPage, "question")
def take(session: Session, visitor: str, cancelled: Callable[[], bool]) -> Iterator[AnswerPage]:
    """Answer with latents and plain settings, then judge the answer."""
    if session.trial is None:
        return
    for page in asking.streamed(session, visitor, cancelled, Choices()):
        yield page
    after = page.session
    (turn,) = after.turns
    trial, trace = library().draw_trial(session.trial), Trace.load(turn.trace)
    verdict = library().judge(trace, trial)
    replace(trace, truth=library().question_truth(trial.question, trace.answer)).save(turn.trace)
    findings = remarks.findings(verdict)
    after = replace(after, turns=(replace(turn, true_answer=str(verdict.true_answer), findings=findings),))
    yield idle(AnswerPage(status=said("tested"), **showing(after)), after)
