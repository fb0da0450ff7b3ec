"""Asking without a browser: the handlers are called as gradio calls them, with a tiny random model and a real sound file."""

import pickle
from pathlib import Path

import gradio as gr

from app import asking, copy, downloads, handlers
from app.page import AnswerPage, Page
from app.session import Session
from app.shared import runtime
from latentomni.trace import Trace

SETTINGS = ("latent", 0.0, 1.0, 0, 24)
SAME = Page()


def test_an_answer_streams_and_ends_as_a_turn_with_a_trace(visitor, clip, asked, brought):
    first, *pages = asked(brought(clip, visitor), "What is seen?", visitor)
    assert (first.question, first.stop["interactive"], first.ask["interactive"]) == ("", True, False)
    assert first.conversation["turns"] == [{"question": "What is seen?", "answer": None, "is_live": True}]
    last = pages[-1]
    (turn,) = last.session.turns
    trace = Trace.load(turn.trace)
    assert (turn.question, turn.answer, turn.is_live) == ("What is seen?", trace.answer, True)
    assert [len(block["latents"]) for block in last.inspector["blocks"]] == [
        len(block.latents) for block in trace.blocks
    ]
    assert last.inspector["blocks"] and last.inspector["running"] is False
    assert (last.status["kind"], last.ask["interactive"], last.stop["interactive"]) == ("done", True, False)
    assert "This clip has no picture." in last.conversation["notices"]


def test_pictures_and_sound_travel_once(visitor, clip, asked, brought):
    pages = asked(brought(clip, visitor), "What is seen?", visitor)
    assert all("media" not in page.inspector for page in pages if page.inspector != SAME.inspector)
    players = [page.player for page in pages if page.player != SAME.player]
    assert [player["kind"] for player in players] == ["audio"]
    assert players[0]["media"]["envelope"] and players[0]["key"] == pages[-1].inspector["clip"]["key"]


def test_a_follow_up_reads_on_and_retry_goes_one_step_back(visitor, clip, asked, brought):
    session = asked(brought(clip, visitor), "What is seen?", visitor)[-1].session
    session = asked(session, "And then?", visitor)[-1].session
    first, second = (Trace.load(turn.trace) for turn in session.turns)
    assert second.prompt_tokens > first.prompt_tokens + first.tokens
    again = asking.retry(session, visitor)
    assert [turn["question"] for turn in again.conversation["turns"]] == ["What is seen?", "And then?"]
    session = list(asking.answer(again.session, visitor, *SETTINGS))[-1].session
    repeated = Trace.load(session.turns[-1].trace)
    assert len(session.turns) == 2
    assert (repeated.prompt_tokens, repeated.text) == (second.prompt_tokens, second.text)


def test_a_stopped_answer_is_kept_on_the_page_but_not_in_the_conversation(visitor, clip, asked, brought):
    session = asked(brought(clip, visitor), "What is seen?", visitor)[-1].session
    first = asking.begin(session, "And then?", visitor)
    pages = []
    for page in asking.answer(first.session, visitor, "latent", 0.0, 1.0, 0, 400):
        pages.append(page)
        if page.inspector != SAME.inspector:
            assert asking.stop(visitor).status["kind"] == "busy"
    stopped = pages[-1].session
    assert Trace.load(stopped.turns[-1].trace).reason == "cancelled"
    assert [turn.is_live for turn in stopped.turns] == [True, False]
    again = asked(stopped, "And then?", visitor)[-1].session
    stopped_trace, again_trace = (Trace.load(turn.trace) for turn in again.turns[-2:])
    assert again_trace.prompt_tokens == stopped_trace.prompt_tokens


def test_one_answer_at_a_time(visitor, clip, asked, brought):
    first = asking.begin(brought(clip, visitor), "What is seen?", visitor)
    second = asking.begin(first.session, "Quick!", visitor)
    assert second == SAME._replace(status={"text": copy.ERRORS["busy"], "kind": "error"})
    assert len(list(asking.answer(first.session, visitor, *SETTINGS))) > 1
    assert list(asking.answer(first.session, visitor, *SETTINGS)) == [AnswerPage()]


def test_what_was_cleared_does_not_come_back(visitor, clip, asked, brought):
    first = asking.begin(brought(clip, visitor), "What is seen?", visitor)
    pages = asking.answer(first.session, visitor, *SETTINGS)
    next(pages)
    cleared = handlers.clear(first.session, visitor)
    assert (cleared.session, cleared.inspector, cleared.conversation) == (Session(), None, None)
    assert list(pages) == [AnswerPage()]
    assert asking.begin(Session(), "What is seen?", visitor).status["text"] == copy.ERRORS["no_clip"]


def test_errors_are_one_sentence_and_change_nothing_else(visitor, clip, asked, brought, tmp_path, caplog):
    session = brought(clip, visitor)
    assert asking.begin(session, "  ", visitor) == SAME._replace(
        status={"text": copy.ERRORS["no_question"], "kind": "error"}
    )
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nonsense" * 100)
    refused = handlers.bring(session, str(broken), visitor)
    assert refused.session == SAME.session and refused.file is None
    assert "broken.mp4 is not a video or sound file" in refused.status["text"]
    assert not caplog.records
    (tmp_path / "latentomni-runs").write_text("where runs would go")
    last = asked(session, "What is seen?", visitor)[-1]
    assert last.status == {"text": copy.ERRORS["unexpected"], "kind": "error"}
    assert (last.session.turns, last.ask["interactive"]) == ((), True)
    assert "a handler failed" in caplog.text


def test_a_saved_answer_opens_without_the_model(visitor, clip, asked, brought):
    saved = asked(brought(clip, visitor), "What is seen?", visitor)[-1]
    _, trace, report, _ = downloads.export(saved.session)
    assert "What is seen?" in Path(report).read_text(encoding="utf-8")
    runtime.use(runtime.name)
    opened = handlers.bring(Session(), trace, visitor)
    assert not runtime.is_loaded
    assert opened.inspector == saved.inspector
    assert (opened.player["kind"], opened.player["key"]) == ("audio", saved.inspector["clip"]["key"])
    assert asking.retry(opened.session, visitor).status["text"] == copy.ERRORS["no_clip_in_trace"]


def test_earlier_turns_can_be_shown_again(visitor, clip, asked, brought):
    session = asked(brought(clip, visitor), "What is seen?", visitor)[-1].session
    session = asked(session, "And then?", visitor)[-1].session
    page = handlers.choose_turn(session, gr.EventData(None, {"index": 0}))
    assert (page.session.shown, page.inspector["question"]) == (0, "What is seen?")
    assert handlers.choose_turn(session, gr.EventData(None, {"index": 7})).status["text"] == copy.ERRORS["gone"]


def test_a_session_is_plain_values(visitor, clip, asked, brought):
    session = asked(brought(clip, visitor), "What is seen?", visitor)[-1].session
    assert pickle.loads(pickle.dumps(session)) == session
