"""Comparisons as data: windows, moments and cosines of two runs, and an outcome before and after."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from latentomni.clock import Window
from latentomni.errors import RequestError
from latentomni.events import TextDelta
from latentomni.trace import Trace
from visualizers.compare import compare_view, compute_difference, plot_difference, stated_windows, whatif_view


def spoken(trace, text):
    """A run in words about the clip of `trace`."""
    return replace(trace, mode="text-cot", deltas=(TextDelta(text, (1,), 0.1),), blocks=(), answer=text)


def test_a_run_differs_from_itself_in_nothing(trace):
    difference = compute_difference(trace, trace)
    assert (difference.is_same_answer, difference.is_same_ending, difference.iou, difference.same_moment) == (True, True, (1.0, 1.0), 1.0)
    np.testing.assert_allclose(difference.cosine, np.ones((2, 6)), atol=1e-6)


def test_differences_are_those_that_were_made(trace):
    first = trace.blocks[0]
    turned = replace(first.latents[0], vector=-first.latents[0].vector)
    far = replace(first.latents[1], matches=(replace(first.latents[1].matches[0], start_s=5.0),))
    other = replace(trace, answer="at 5 s", blocks=(replace(first, window=Window(2.0, 4.0), latents=(turned, far, *first.latents[2:])),))
    difference = compute_difference(trace, other)
    assert not difference.is_same_answer
    assert difference.windows == ((Window(1, 3), Window(2, 4)), (Window(3, 5), None))
    assert difference.iou == (pytest.approx(1 / 3),)
    assert difference.cosine[0].tolist() == pytest.approx([-1, 1, 1, 1, 1, 1])
    assert difference.moments[0, 1].tolist() == [1, 5]
    assert difference.same_moment == pytest.approx(5 / 6)
    assert plot_difference(difference).data[0].z.shape == (1, 6)


def test_words_state_their_windows_and_a_direct_answer_states_none(trace):
    said = spoken(trace, "I listen. [0.5-2.0 s] a bell. [9.0-9.5 s] beyond the clip, [2.0-2.0 s] empty. At 3 s.")
    assert stated_windows(trace) == (Window(1, 3), Window(3, 5))
    assert stated_windows(said) == (Window(0.5, 2.0),)
    assert stated_windows(spoken(trace, "At 3 s.")) == ()
    assert compute_difference(said, spoken(trace, "At 3 s.")).is_same_ending
    view = compare_view({"latent": trace, "text-cot": said, "direct": spoken(trace, "At 3 s.")})
    assert [run["windows_from"] for run in view["runs"]] == ["blocks", "text", None]
    assert [run["windows"] for run in view["runs"]] == [[[1, 3], [3, 5]], [[0.5, 2.0]], []]
    assert [run["latents"] for run in view["runs"]] == [12, 0, 0]
    assert [(d["a"], d["b"]) for d in view["differences"]] == [("latent", "text-cot"), ("latent", "direct")]
    assert json.loads(json.dumps(view, allow_nan=False)) == json.loads(json.dumps(view))


def test_models_of_two_spaces_have_no_cosine(trace):
    difference = compute_difference(trace, replace(trace, model="other"))
    assert np.isnan(difference.cosine).all()
    assert difference.same_moment == 1


def test_runs_about_two_clips_are_not_compared(trace):
    other = replace(trace, clip=replace(trace.clip, sha256="cd" * 32, name="other.mp4"))
    with pytest.raises(RequestError, match=r"got 2 \(beep.mp4, other.mp4\)"):
        compare_view({"a": trace, "b": other})
    with pytest.raises(RequestError, match="at least one"):
        compare_view({})


def test_every_prefix_of_a_run_can_be_compared(events, trace):
    run = list(events())
    for end in range(1, len(run) + 1):
        json.dumps(compare_view({"done": trace, "running": Trace.from_events(run[:end])}), allow_nan=False)


def outcome(trace, **changes):
    change = SimpleNamespace(arm="black_out", block=None, latent=None, modality="", window=Window(2.0, 4.0), shift_s=0.5)
    control = SimpleNamespace(what="Another window, black.", answer="at 3 s", flipped=False, margin_change=-0.25)
    fields = {
        "change": change, "before": trace, "after": replace(trace, answer="at 5 s"), "flipped": True, "control": control, "notices": ("A note.",),
        "probabilities": {"at 3 s": (0.9, 0.2), "at 5 s": (0.05, 0.7)}, "margin_change": np.float32(-3.5), "moved": (0.5, 1.0, float("nan")),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def test_an_outcome_is_told_beside_its_control(trace):
    view = whatif_view(outcome(trace))
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    assert view["change"] == {"arm": "black_out", "block": None, "latent": None, "modality": "", "window": [2, 4], "shift_s": 0.5}
    assert (view["before"]["answer"], view["after"]["answer"], view["flipped"], view["margin_change"]) == ("at 3 s", "at 5 s", True, -3.5)
    assert view["probabilities"][1] == {"answer": "at 5 s", "before": 0.05, "after": 0.7}
    assert view["control"] == {"what": "Another window, black.", "answer": "at 3 s", "flipped": False, "margin_change": -0.25}
    assert view["moved"] == [0.5, 1.0, None] and view["is_visual"] == [True, True, True]
    assert whatif_view(outcome(trace, control=None))["control"] is None
