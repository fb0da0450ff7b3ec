"""A GPU that is lent for each run: with a module `spaces` on the path that runs functions as ZeroGPU does, in a forked process, with
everything pickled on the way; without it, nothing of this happens."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from app import lent
from latentomni.config import SamplingSpec
from latentomni.runtime import Runtime

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]

# Of the same interface as the package: GPU(duration=number or function of the same arguments), generators, errors by their class's name.
SPACES = '''
import functools, json, multiprocessing, os, pickle

fork = multiprocessing.get_context("fork")
gradio_auto_wrap = lambda task: task
lending = {"pid": os.getpid(), "calls": []}


def packed(value):
    data = pickle.dumps(value)
    assert b"torch" not in data, value
    return data


def GPU(task=None, *, duration=60, size=None):
    if task is None:
        return functools.partial(GPU, duration=duration, size=size)

    @functools.wraps(task)
    def lent(*args, **named):
        seconds = duration(*args, **named) if callable(duration) else duration
        data, results = packed((args, named)), fork.SimpleQueue()

        def work():
            given, also = pickle.loads(data)
            try:
                for value in task(*given, **also):
                    results.put(packed(("value", value)))
                results.put(packed(("end", os.getpid())))
            except Exception as error:
                results.put(packed(("error", type(error).__name__ + ": " + str(error))))

        process = fork.Process(target=work, daemon=True)
        process.start()
        call = {"job": args[0], "seconds": seconds, "pid": process.pid, "values": 0}
        lending["calls"].append(call)
        try:
            while True:
                kind, what = pickle.loads(results.get())
                if kind == "error":
                    raise RuntimeError(what)
                if kind == "end":
                    return
                call["values"] += 1
                yield what
        finally:
            process.kill()
            process.join()

    return lent
'''

SCRIPT = '''
import json, sys
from types import SimpleNamespace
import gradio as gr
import spaces
from app import api, asking, attention_tab, compare_tab, handlers, matter_tab
from app.session import Session
from app.settings import Settings
from app.shared import runtime
from app.ui import build

model, clip, question = sys.argv[1:]
build(Settings(model))
told = {"loaded_first": runtime.is_loaded and not spaces.lending["calls"]}
visitor = SimpleNamespace(session_hash="a")
SETTINGS = ("latent", 0.0, 1.0, 0, 24)


def ask(session, question, *settings, until=None):
    pages = []
    begun = asking.begin(session, question, visitor)
    for page in asking.answer(begun.session, visitor, *(settings or SETTINGS)):
        pages.append(page)
        if until and until(page):
            asking.stop(visitor)
    return pages


brought = handlers.bring(Session(), clip, visitor).session
first = ask(brought, question)
session = first[-1].session
told["answer"], told["status"] = session.turns[0].answer, first[-1].status["text"]
told["latents"] = sum(len(block["latents"]) for block in first[-1].inspector["blocks"])
second = ask(session, question)[-1].session
told["turns"] = [[turn.answer, turn.is_live] for turn in second.turns]
stopped = ask(second, question, "direct", 0.0, 1.0, 0, 8000, until=lambda page: isinstance(page.inspector, dict))[-1]
told["stopped"] = [stopped.status["text"], stopped.session.turns[-1].is_live]
refused = ask(second, question, "latent", 0.0, 1.0, 0, 24, 4, 0, 0, 100.0)[-1]
told["refused"] = refused.status
data = gr.EventData(None, {"arm": "zero", "chosen": None})
page, wanted = matter_tab.begin(second, data, visitor)[:-1], {"arm": "zero", "chosen": None}
changed = list(matter_tab.answer_again(page[0], visitor, wanted, "all", 0, "both", 0.0, 1.0, 0.5))[-1]
told["changed"] = [changed.status["kind"], changed.result["before"]["text"]]
page = attention_tab.announce(attention_tab.TabPage)(second, visitor)
told["attention"] = "clip" in list(attention_tab.compute(page.session, visitor))[-1].result
told["calls"], told["pid"] = spaces.lending["calls"], spaces.lending["pid"]
print(json.dumps(told))
'''


@pytest.fixture(scope="module")
def told(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lent")
    (folder / "spaces.py").write_text(SPACES)
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(range(256)) * 375)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", SCRIPT, str(model_folder), str(folder / "tone.wav"), "What is seen?"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    model = Runtime.load(str(model_folder))
    expected = model.answer(model.read(folder / "tone.wav"), "What is seen?", "latent", SamplingSpec(max_new_tokens=24))
    return json.loads(done.stdout.splitlines()[-1]) | {"expected": expected}


def test_every_job_is_done_in_a_process_of_its_own_for_a_planned_time(told):
    calls = told["calls"]
    assert told["loaded_first"]
    assert [call["job"] for call in calls] == ["answer"] * 4 + ["change", "attention"]
    assert len({call["pid"] for call in calls} | {told["pid"]}) == len(calls) + 1
    assert calls[0]["seconds"] == 60  # nothing is known of the pace yet
    assert all(15 <= call["seconds"] <= 120 for call in calls[1:]) and calls[1]["seconds"] < 60


def test_answers_are_those_of_the_model_here(told):
    expected = told["expected"]
    assert told["answer"] == expected.answer and told["status"].startswith("Done in")
    assert told["latents"] == sum(len(block.latents) for block in expected.blocks) > 0
    assert told["turns"] == [[expected.answer, False], [expected.answer, True]]  # no conversation outlives the process
    assert told["changed"] == ["done", expected.text] and told["attention"]


def test_stop_ends_the_process_and_keeps_what_there_is(told):
    assert told["stopped"] == ["Stopped. What had been computed is kept.", False]
    assert told["calls"][2]["values"] < 2000


def test_a_refusal_keeps_its_sentence(told):
    assert told["refused"]["kind"] == "error" and "nothing of it is left from 100" in told["refused"]["text"]


def test_without_the_package_nothing_is_lent():
    assert not lent.IS_LENT and lent._lent is lent._on_lent_gpu
