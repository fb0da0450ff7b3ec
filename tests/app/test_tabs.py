"""The tabs without a browser: their handlers are called as gradio calls them, with the tiny random model and a real sound file."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from app import attention_tab, choices, compare_tab, copy, handlers, map_tab, matter_tab, runs_tab
from app.choices import Choices
from app.gallery import gallery
from app.lanes import TabPage
from app.session import Session
from app.shared import runs, runtime
from latentomni.config import Mode
from latentomni.trace import Trace

SETTINGS = ("latent", 0.0, 1.0, 0, 24)


@pytest.fixture
def answered(visitor, clip, asked, brought):
    """A session with one answer that has latent blocks."""
    return asked(brought(clip, visitor), "What is seen?", visitor, SETTINGS)[-1].session


def run_task(begin, task, session, visitor, *values):
    """Click, then the task of the model's lane: all its pages."""
    first = begin(session, visitor)
    return [first, *task(first.session, visitor, *values)]


def matter(session, visitor, data, *controls):
    first = matter_tab.begin(session, gr.EventData(None, data), visitor)
    page, wanted = matter_tab.MatterPage(*first[:-1]), first[-1]
    return [page, *matter_tab.answer_again(page.session, visitor, wanted, *controls)]


CONTROLS = ("all", 0, "both", 0.0, 1.0, 0.5)


@pytest.mark.parametrize("arm", ["zero", "shuffled", "mute"])
def test_a_change_shows_both_answers(answered, visitor, arm):
    *_, last = matter(answered, visitor, {"arm": arm, "chosen": None}, *CONTROLS)
    trace = Trace.load(answered.turns[0].trace)
    assert (last.status["kind"], last.ask["interactive"], last.stop["interactive"]) == ("done", True, False)
    assert last.result["change"]["arm"] == arm
    assert last.result["before"]["text"] == trace.text
    assert last.of == answered.turns[0].trace and last.after["question"] == trace.question
    assert last.session.turns == answered.turns


def test_one_latent_is_the_one_chosen_in_the_inspector(answered, visitor):
    controls = ("latent", *CONTROLS[1:])
    *_, last = matter(answered, visitor, {"arm": "zero", "chosen": {"block": 0, "slot": 2}}, *controls)
    assert (last.result["change"]["block"], last.result["change"]["latent"]) == (0, 2)
    *_, refused = matter(answered, visitor, {"arm": "zero", "chosen": None}, *controls)
    assert refused.status == {"text": copy.ERRORS["no_latent"], "kind": "error"}
    assert refused.ask["interactive"] is True


def test_a_window_that_ends_before_it_begins_is_refused(answered, visitor):
    *_, refused = matter(answered, visitor, {"arm": "mute", "chosen": None}, "all", 0, "both", 2.0, 1.0, 0.5)
    assert refused.status == {"text": copy.ERRORS["no_window"], "kind": "error"}


def test_tabs_need_an_answer_and_its_clip(visitor, answered):
    for begin in (lambda s: matter_tab.begin(s, gr.EventData(None, {}), visitor)[:-1],):
        assert matter_tab.MatterPage(*begin(Session())).status["text"] == copy.ERRORS["no_answer"]
        gone = Session(**{**vars(answered), "clip": None})
        assert matter_tab.MatterPage(*begin(gone)).status["text"] == copy.ERRORS["no_clip_in_trace"]
    assert map_tab.draw(Session(), "shown")[1]["text"] == copy.ERRORS["no_answer"]


def test_targets_follow_the_shown_answer(answered):
    blocks, start_s, end_s, of, result, _ = matter_tab.show_targets(answered, "")
    trace = Trace.load(answered.turns[0].trace)
    assert len(blocks["choices"]) == len(trace.blocks)
    assert (start_s, end_s) == (trace.blocks[0].window.start_s, trace.blocks[0].window.end_s) == matter_tab.choose_target(answered, 0)
    assert (of, result) == ("", None)
    assert matter_tab.show_targets(answered, answered.turns[0].trace) == (gr.skip(),) * 6


def test_three_ways_stream_side_by_side(answered, visitor):
    begin = compare_tab.announce(TabPage)
    pages = run_task(begin, compare_tab.answer_each_way, answered, visitor, *SETTINGS)
    shown = [page.result for page in pages if "runs" in (page.result or {})]
    counts = [len(value["runs"]) for value in shown]
    assert counts == sorted(counts) and {1, 2, 3} == set(counts)
    assert [run["mode"] for run in shown[-1]["runs"]] == [str(mode) for mode in Mode]
    assert shown[-1]["runs"][0]["text"] == Trace.load(answered.turns[0].trace).text
    assert pages[-1].session.turns == answered.turns


def test_two_runs_are_compared_and_the_same_run_is_refused(answered, visitor, asked):
    after = asked(answered, "And then?", visitor, SETTINGS)[-1].session
    first, second = (turn.run for turn in after.turns)
    status, value = compare_tab.pair(first, second)
    assert status["kind"] == "done" and [run["question"] for run in value["runs"]] == ["What is seen?", "And then?"]
    assert compare_tab.pair(first, first)[0]["text"] == copy.ERRORS["no_pair"]
    assert compare_tab.pair(first, "x" * 22)[0]["text"] == copy.ERRORS["no_run"]
    offered, _ = compare_tab.offer(after, [{"run": first, "question": "?", "answer": "", "clip": "a"}])
    assert [run for _, run in offered["choices"]] == [second, first]


def test_attention_is_computed_on_demand_and_goes_with_its_answer(answered, visitor):
    pages = run_task(attention_tab.announce(TabPage), attention_tab.compute, answered, visitor)
    value = pages[-1].result
    assert len(value["steps"]) == len(value["direct"][0]) > 0
    path = answered.turns[0].trace
    assert attention_tab.show(answered, path) == (gr.skip(), gr.skip())
    assert attention_tab.show(answered, "another") == (None, "")


def test_a_map_is_drawn_at_once(answered):
    value, status = map_tab.draw(answered, "all")
    assert value["method"] == "pca" and status["kind"] == "quiet"


def test_an_answer_is_remembered_and_opens_again(answered, visitor):
    history = runs_tab.keep(answered, [])
    (entry,) = history
    assert (entry["run"], entry["question"]) == (answered.turns[0].run, "What is seen?")
    assert runs_tab.keep(answered, history) == gr.skip()
    opened = runs_tab.act(Session(), history, gr.EventData(None, {"run": entry["run"], "action": "open"}), visitor)
    session = opened[0]
    assert session.turns[0].trace == answered.turns[0].trace and Path(session.clip).name == Path(answered.clip).name
    *_, left, listed = runs_tab.act(Session(), history, gr.EventData(None, {"run": entry["run"], "action": "forget"}), visitor)
    assert (left, listed) == ([], {"runs": []})
    again = runs_tab.act(Session(), history, gr.EventData(None, {"run": entry["run"], "action": "open"}), visitor)
    assert {"text": copy.ERRORS["no_run"], "kind": "error"} in again


def test_a_link_opens_a_run_an_example_or_says_that_it_is_gone(answered, visitor):
    def opened(run):
        visitor.query_params = {"run": run} if run else {}
        return runs_tab.open_link(Session(), visitor)

    assert opened(answered.turns[0].run).session.turns[0].question == "What is seen?"
    example = gallery()[0]
    assert opened("1-colour").session.clip == example.clip
    assert opened("").session == gr.skip()
    for wrong in ("../../etc/passwd", "x" * 22, "*" * 22, ".."):
        assert opened(wrong).status == {"text": copy.ERRORS["no_run"], "kind": "error"}


def test_runs_are_deleted_after_a_week(answered):
    kept = runs.find(answered.turns[0].run)
    runs.sweep()
    assert runs.find(answered.turns[0].run) == kept
    runs.sweep(now_s=2**33)
    assert not runs.folder.joinpath(answered.turns[0].run).exists()


def test_settings_come_back_but_nonsense_does_not(monkeypatch):
    monkeypatch.setattr(runtime, "name", "nano")
    plain = choices.restored(None)
    assert plain == list(vars(Choices()).values())
    changed = Choices(temperature=0.7, seed=5, fps=4, start_s=1.0, sound=False, instants=4, positions="relative")
    kept = choices.remembered(*vars(changed).values())
    assert choices.restored(kept) == list(vars(Choices(**{**vars(changed), "start_s": None})).values())
    for broken in ({"temperature": 99}, {"seed": "x"}, {"mode": "aloud"}, {"flow": "up"}, {"picture": False, "sound": False}, {"nobody": 1}):
        assert choices.restored(broken) == plain


def test_nano_is_asked_in_latents_and_another_model_in_its_own_way(visitor, clip, asked, brought, monkeypatch):
    values = tuple(vars(choices.usual()).values())
    for is_trained, mode in ((True, "latent"), (False, "direct")):
        model = runtime.get()
        monkeypatch.setattr(model, "thinker", replace(model.thinker, spec=replace(model.spec, is_trained=is_trained)))
        session = asked(brought(clip, visitor), "What is seen?", visitor, values)[-1].session
        assert Trace.load(session.turns[-1].trace).mode == mode
    monkeypatch.setattr(runtime, "name", "nano")
    assert choices.usual() == Choices() and choices.restored({"mode": ""})[0] == "latent"


def test_settings_mean_something_to_the_model(visitor, clip, asked, brought):
    def trace(**changes):
        values = tuple(vars(Choices(max_new_tokens=24, **changes)).values())
        return Trace.load(asked(brought(clip, visitor), "What is seen?", visitor, values)[-1].session.turns[-1].trace)

    plain = trace()
    assert trace(max_blocks=1).blocks != plain.blocks and len(trace(max_blocks=1).blocks) == 1
    assert trace(instants=4).spec["instants"] == 4 != plain.spec["instants"]
    assert trace(positions="relative").spec["positions"] == "relative"
    cut = trace(start_s=1.0, end_s=2.0)
    assert (cut.clip.duration_s, cut.reading["start_s"]) == (1.0, 1.0)
    page = handlers.open_trace(Session(), runs.find(runs.keep(cut, "cut")[0]), visitor.session_hash, "")
    assert page.player["start_s"] == 0.0  # what the trace itself keeps begins with the cut


def test_the_plan_follows_the_settings(visitor, clip, brought):
    session = brought(clip, visitor)
    plain = choices.plan(session, *choices.restored(None))
    shorter = choices.plan(session, *choices.restored(None)[:9], 1.0, *choices.restored(None)[10:])
    assert plain["problem"] == "" and plain["tokens"]["audio"] > shorter["tokens"]["audio"] > 0
    assert "picture and sound" in choices.plan(session, *vars(Choices(picture=False, sound=False)).values())["problem"]
    assert choices.plan(Session(), *choices.restored(None)) is None
