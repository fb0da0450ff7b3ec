"""The line before the model: order, limits, place and wait, and what ends a run from outside."""

import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from app import asking, copy
from app.journal import Journal
from app.line import Line
from app.settings import Limits
from app.shared import line
from latentomni.errors import MediaError, RequestError

SETTINGS = ("latent", 0.0, 1.0, 0, 24)


def make_line(**limits):
    made = Line(Journal())
    made.limits = Limits(**limits)
    return made


def test_first_come_first_served():
    made, order, inside = make_line(), [], threading.Lock()

    def run(number, stands):
        with made.place("question", str(number)) as place:
            stands.set()
            list(place.waits())
            assert inside.acquire(blocking=False)  # alone
            order.append(number)
            inside.release()

    with made.place("question", "first") as first:
        assert list(first.waits()) == []
        threads = []
        for number in range(5):
            stands = threading.Event()
            threads.append(threading.Thread(target=run, args=(number, stands)))
            threads[-1].start()
            assert stands.wait(60)
        assert (made.running, made.waiting) == (1, 5)
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3, 4]
    assert made.journal.runs["question", "finished"] == 6 and not made.running + made.waiting


def test_a_place_is_told_with_the_time_that_runs_took():
    made = make_line()
    with made.place("question", "a") as first, made.place("question", "b") as second:
        assert list(first.waits()) == []
        assert next(second.waits()) == (1, None)
    with made.place("question", "a") as first, made.place("question", "b") as second:
        list(first.waits())
        ahead, seconds = next(second.waits())
        assert ahead == 1 and seconds > 0


def test_limits_are_refused_in_a_sentence():
    made = make_line(queue=2, per_user=2)
    with made.place("question", "a") as running:
        list(running.waits())
        with made.place("question", "a"), pytest.raises(RequestError, match="2 runs of yours"):
            made.check("a")
        with made.place("question", "b"), made.place("question", "c"), pytest.raises(RequestError, match="2 runs are waiting"):
            made.check("d")
        made.check("d")
    assert made.close(0.001)
    with pytest.raises(RequestError, match="server is stopping"), made.place("question", "a"):
        pass
    assert made.journal.runs["question", "refused"] == 1


def test_who_stops_while_waiting_never_runs():
    made, stop = make_line(), threading.Event()
    with made.place("question", "a") as first:
        list(first.waits())
        with made.place("question", "b", stop) as second:
            waits = second.waits()
            assert next(waits)[0] == 1
            stop.set()
            with pytest.raises(MediaError, match="Stopped"):
                next(waits)
        assert second.begun_s is None and made.waiting == 0
    assert made.journal.runs["question", "stopped"] == 1


def test_a_run_ends_at_its_limit_and_at_the_servers_end():
    made = make_line(run_s=1e-6)
    with made.place("question", "a") as place:
        assert not place.cancelled()  # waiting does not count
        list(place.waits())
        assert place.cancelled() and place.ending == "limit" and not made.is_stuck
        place.begun_s -= 1000  # in one step that cannot be left
        assert made.is_stuck
    made = make_line()
    with made.place("question", "a") as place:
        list(place.waits())
        assert not made.close(0.001, 0.001)
        assert place.cancelled() and place.ending == "cut"
    assert made.journal.runs["question", "cut"] == 1


def test_an_error_is_told_by_type_and_place_alone(caplog):
    made = make_line()
    caplog.set_level("INFO", "app")
    with pytest.raises(ValueError, match="private"), made.place("question", "a"):
        raise ValueError("private words")
    assert re.search(r"question failed request=\w{12} .*error=ValueError where=test_line\.py:\d+", caplog.text)
    assert "private" not in caplog.text


def test_a_visitor_behind_another_sees_the_place_and_may_leave(visitor, clip, asked, brought):
    session = brought(clip, visitor)
    with line.place("question", "somebody else") as other:
        list(other.waits())
        first = asking.begin(session, "What is seen?", visitor)
        pages = asking.answer(first.session, visitor, *SETTINGS)
        assert next(pages).status["text"].startswith("Waiting for the model, 1 before you")
        assert asking.stop(visitor).status["kind"] == "busy"
        *_, last = pages
        assert last.status["text"] == copy.STATUS["stopped"] and last.session.turns == ()
    assert asked(last.session, "What is seen?", visitor, SETTINGS)[-1].session.has_answer


def test_a_visitor_is_told_what_ended_the_run(visitor, clip, asked, brought, monkeypatch):
    session = brought(clip, visitor)
    asked(session, "What is seen?", visitor, SETTINGS)
    monkeypatch.setattr(line, "limits", replace(line.limits, run_s=1e-6))
    last = asked(session, "What is seen?", visitor, SETTINGS)[-1]
    assert last.status["text"] == copy.STATUS["limit"]
    monkeypatch.setattr(line, "limits", Limits(queue=1))
    with line.place("question", "one") as one:
        list(one.waits())
        with line.place("question", "two"):
            refused = asking.begin(session, "What is seen?", SimpleNamespace(session_hash="three"))
        assert "are waiting already" in refused.status["text"]
