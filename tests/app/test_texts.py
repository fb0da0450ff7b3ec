"""What the page says about a model and an answer, and how the app is started."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import copy, remarks
from app.chinese import TEXTS
from app.chinese_messages import MESSAGES
from app.chinese_views import VIEWS
from app.settings import Settings
from latentomni.events import ClipRecord, Finished, Moments, Started
from latentomni.trace import Trace
from latentomni.truth import Truth


@pytest.fixture
def trace():
    nothing = Moments(np.zeros(0), np.zeros(0), np.zeros((0, 4)), np.zeros((0, 4), np.float32))
    clip = ClipRecord("a.mp4", "ab" * 32, 2.0, (), np.zeros(0), None, ("This clip has no sound track.",))
    spec = {"instants": 1, "rows": 1, "columns": 1}
    started = Started("Why?", "direct", "open", "nano", "nano", spec, {}, clip, nothing, nothing, 9, False)
    return Trace.from_events(
        [started, Finished("length", "So.", 3, 0.1, 0.4, ("The answer was cut at the token limit.",))]
    )


def test_what_is_missing_or_was_cut_is_said_with_the_answer(trace):
    assert remarks.notices(trace, is_foreign=False) == ["This clip has no sound track."]
    assert copy.caption(trace).endswith(". The answer was cut at the token limit.")


def test_nano_says_that_it_knows_av_world_only(trace):
    can, cannot = copy.about("nano")
    assert "AV World only" in can and "24 coloured shapes and 6 sounds" in can and "Real videos" in cannot
    assert "AV World only" in remarks.notices(trace, is_foreign=True)[-1]
    assert not any("AV World" in text for text in remarks.notices(replace(trace, model="other"), is_foreign=True))


def test_random_weights_are_called_random(trace):
    assert "random weights" in remarks.notices(replace(trace, weights="random"), is_foreign=False)[-1]


def test_the_caption_names_model_mode_and_cost(trace):
    assert copy.caption(replace(trace, reason="stop")) == "nano, direct answer, 3 tokens, 0.4 s, 8 tokens/s"
    assert copy.caption(replace(trace, reason="running", tokens=0)) == "nano, direct answer"
    assert copy.caption(replace(trace, reason="running", tokens=0, quantization="nf4")) == "nano in nf4, direct answer"
    known = replace(trace, reason="stop", truth=Truth("B. blue", False))
    assert copy.caption(known).endswith(" tokens/s. True answer: B. blue") and copy.caption(known, "red").endswith(". True answer: red")


def test_arguments_come_before_the_environment(monkeypatch):
    monkeypatch.setenv("LATENTOMNI_MODEL", "folder")
    monkeypatch.setenv("LATENTOMNI_PORT", "7001")
    monkeypatch.setenv("LATENTOMNI_QUANTIZATION", "nf4")
    monkeypatch.setenv("LATENTOMNI_CACHE", "cache")
    assert Settings.read([]) == Settings("folder", None, 7001, "cache", "nf4")
    given = ["--model", "nano", "--quantization", "int8", "--port", "7002", "--host", "0.0.0.0"]
    assert Settings.read(given) == Settings("nano", "0.0.0.0", 7002, "cache", "int8")


@pytest.mark.parametrize(
    ("model", "variables", "expected"),
    [("nano", {"SPACE_ID": "a/b"}, None), ("Qwen/Qwen2.5-Omni-7B", {"SPACE_ID": "a/b"}, "nf4"), ("Qwen/Qwen2.5-Omni-7B", {}, None),
     ("Qwen/Qwen2.5-Omni-7B", {"SPACE_ID": "a/b", "SPACES_ZERO_GPU": "true"}, None),
     ("Qwen/Qwen2.5-Omni-7B", {"SPACE_ID": "a/b", "LATENTOMNI_QUANTIZATION": "none"}, "none")],
)  # fmt: skip
def test_a_copied_space_needs_one_variable(monkeypatch, model, variables, expected):
    for name, value in {"LATENTOMNI_MODEL": model, **variables}.items():
        monkeypatch.setenv(name, value)
    assert (Settings.read([]).model, Settings.read([]).quantization) == (model, expected)


def test_bad_use_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        Settings.read(["--quantization", "nf3"])
    assert ended.value.code == 2 and "nf3" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("RUN_S", "soon"), ("QUEUE", "0"), ("KEEP_H", "-1"), ("RUNS_MIB", "inf"), ("LOG", "xml")])
def test_a_variable_that_makes_no_sense_is_named(capsys, monkeypatch, name, value):
    monkeypatch.setenv(f"LATENTOMNI_{name}", value)
    with pytest.raises(SystemExit) as ended:
        Settings.read([])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"LATENTOMNI_{name} is '{value}'" in said


def test_every_text_of_the_page_has_its_chinese():
    cards = [words for group in copy.arms() for words in (group["title"], *(c[k] for c in group["arms"] for k in ("title", "text")))]
    choices = [words for named in copy.CHOICES.values() for words in named.values()]
    said = [*copy.LABELS.values(), *copy.STATUS.values(), *copy.ERRORS.values(), *choices, *cards, *copy.GUIDE]
    assert [text for text in said if text not in TEXTS] == []


def test_a_translated_pattern_uses_the_places_of_its_text():
    for english, chinese in (TEXTS | VIEWS | MESSAGES).items():
        places = len(re.findall(r"\{\w*\}", english))
        assert set(re.findall(r"\{(\w*)\}", chinese)) == {str(n + 1) for n in range(places)}, english


_REACHED = ("latentomni/media.py", "latentomni/processing.py", "latentomni/bundle.py", "latentomni/trace.py", "latentomni/replays.py",
            "latentomni/runtime.py", "latentomni/variants.py", "latentomni/reruns.py", "visualizers/reel.py", "app/remarks.py")  # fmt: skip


def test_what_the_library_says_to_a_visitor_has_its_chinese():
    root = Path(__file__).parents[2]
    said = {text for name in _REACHED for text in _sentences(ast.parse((root / name).read_text(encoding="utf-8")))}
    assert len(said) > 60
    assert sorted(said - {re.sub(r"\{\w*\}", "{}", english) for english in TEXTS | MESSAGES}) == []


def _sentences(module):
    """What is raised or appended to a list of notices, with {} for each value."""
    for call in (node for node in ast.walk(module) if isinstance(node, ast.Call) and node.args):
        name = ast.unparse(call.func)
        if name.endswith(("MediaError", "RequestError", "TraceError", "notices.append", "said.append")):
            parts = getattr(call.args[0], "values", [call.args[0]])
            if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)
