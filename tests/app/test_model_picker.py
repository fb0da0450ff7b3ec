"""Another model in place of the one that answers: the former is freed, and stays where the new one cannot be loaded."""

import gc
import weakref

import pytest

from app import model_picker
from app.choices import Choices
from app.settings import Settings
from app.shared import line, runs, runtime
from app.ui import build
from latentomni.trace import Trace

VALUES = tuple(vars(Choices(max_new_tokens=24)).values())


def test_another_model_answers_and_the_former_is_freed(visitor, clip, asked, brought):
    first = asked(brought(clip, visitor), "What is seen?", visitor, VALUES)[-1].session
    former, name = weakref.ref(runtime.get().thinker.model), runtime.name
    try:
        (busy, *_), (done, header, mode) = model_picker.load("nano", "")
        assert (busy["kind"], done["text"]) == ("busy", "nano is loaded and answers from now on.")
        assert "AV World only" in header and mode["value"] == "latent" and len(mode["choices"]) == 3
        gc.collect()
        assert former() is None
        second = asked(first, "And then?", visitor, VALUES)[-1].session
        assert Trace.load(second.turns[-1].trace).model == "nano" != Trace.load(first.turns[-1].trace).model
        assert [turn.is_live for turn in second.turns] == [False, True]
    finally:
        runtime.use(name)


@pytest.mark.parametrize(("wanted", "quantization"), [("no-such-model", ""), ("", "nf4")])
def test_a_model_that_cannot_be_loaded_leaves_the_former(visitor, clip, asked, brought, monkeypatch, wanted, quantization):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = runtime.name
    try:
        *_, (status, header, _) = model_picker.load(wanted, quantization)
        if wanted:
            assert status["kind"] == "error" and wanted in status["text"] and runtime.name == name and not isinstance(header, str)
            assert asked(brought(clip, visitor), "What is seen?", visitor, VALUES)[-1].session.has_answer
        else:  # an emptied field is nano
            assert (runtime.name, runtime.quantization, runtime.get().thinker.model.is_quantized) == ("nano", "nf4", True)
            pages = asked(brought(clip, visitor), "What is seen?", visitor, VALUES)
            assert pages[-1].session.has_answer and len(pages) > 3
            assert Trace.load(pages[-1].session.turns[-1].trace).answerer == "nano in nf4"
    finally:
        runtime.use(name)


@pytest.mark.parametrize("is_public", [True, False])
def test_in_public_nobody_can_load_another_model(is_public):
    name, limits = runtime.name, line.limits
    try:
        demo = build(Settings(name, is_public=is_public))
        assert any(block.elem_id == "load-model" for block in demo.blocks.values()) != is_public
        assert any(function.fn is model_picker.load for function in demo.fns.values()) != is_public
    finally:
        runtime.use(name)
        line.limits = runs.limits = limits
