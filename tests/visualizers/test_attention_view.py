"""The attention view as data: curves of a layer or the mean, steps that name their latent, heat that unpacks to what was packed."""

import base64
import json
import subprocess
import sys

import numpy as np
import pytest

from latentomni.attention import AttentionRecord
from latentomni.errors import RequestError
from visualizers.attention import attention_view, compute_attention, plot_attention


def make_record(layers=3, patches=6, halves=12):
    """A record of: word, open, window, six latents of block 0, close, word, end."""
    rng = np.random.default_rng(0)
    texts = (" see", "<Unified_Latent>", "2", *[""] * 6, "</Unified_Latent>", " red", "<|im_end|>")
    groups = ("text", "window", "window", *["latent"] * 6, "text", "text", "text")
    blocks = np.array([-1, 0, 0, *[0] * 6, -1, -1, -1])
    steps = len(texts)
    frames, sounds = rng.random((layers, steps, patches)) / 20, rng.random((layers, steps, halves)) / 30
    starts = np.arange(patches), np.arange(halves) / 2
    return AttentionRecord(
        texts, groups, blocks, frames.sum(-1) + sounds.sum(-1), rng.random((layers, steps)) / 4, rng.random(steps), rng.random(steps) / 4, frames, sounds,
        {group: rng.random((layers, patches, 1, 2)) / 50 for group in ("text", "window", "latent")},
        np.stack([starts[0], starts[0] + 1.0], 1), np.stack([starts[1], starts[1] + 0.5], 1),
    )  # fmt: skip


def unpacked(packed):
    numbers = np.frombuffer(base64.b64decode(packed["data"]), "<u2").reshape(packed["shape"])
    return numbers / 65_535 * packed["top"]


def test_curves_are_a_layer_s_or_the_mean():
    record = make_record()
    np.testing.assert_array_equal(compute_attention(record, 1).direct, record.direct[1])
    np.testing.assert_allclose(compute_attention(record).via_latents, record.via_latents.mean(0))
    words = [0, 9, 10, 11]
    np.testing.assert_allclose(compute_attention(record, 2).frames, record.frames[2, words].mean(0))
    assert compute_attention(record).is_latent.sum() == 6
    with pytest.raises(RequestError, match="layers 0 to 2, got 3"):
        compute_attention(record, 3)


def test_view_is_plain_json_and_keeps_the_numbers(trace):
    record = make_record()
    view = attention_view(record, trace)
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    np.testing.assert_allclose(view["direct"], record.direct, atol=1e-4)
    np.testing.assert_allclose(unpacked(view["frames"]), record.frames, atol=1e-5)
    np.testing.assert_allclose(unpacked(view["cells"]["latent"]), record.cells["latent"], atol=1e-5)


def test_steps_name_their_latent_and_its_moment(trace):
    steps = attention_view(make_record(), trace)["steps"]
    assert [step["text"] for step in steps if step["group"] != "latent"] == [" see", "open", "2", "close", " red", "end"]
    assert [(step["block"], step["slot"], step["start_s"]) for step in steps if step["group"] == "latent"] == [(0, k, float(k)) for k in range(6)]


def test_clips_that_lack_something_pack_nothing(trace):
    view = attention_view(make_record(patches=0), trace)
    assert not view["clip"]["has_picture"] and view["frames"] == {"shape": [3, 12, 0], "top": 0.0, "data": ""}


def test_figure_shows_two_shares_and_never_their_sum():
    curves = compute_attention(make_record())
    figure = plot_attention(curves)
    assert [line.name for line in figure.data] == ["direct", "direct, were it even", "via latents", "via latents, were it even"]
    np.testing.assert_array_equal(figure.data[0].y, curves.direct)
    assert figure.data[0].yaxis != figure.data[2].yaxis


def test_needs_no_torch():
    code = "import sys; sys.modules.update(torch=None, plotly=None, moviepy=None, PIL=None); import visualizers.attention, visualizers.compare"
    subprocess.run([sys.executable, "-c", code + ", visualizers.trajectory, visualizers.reel"], check=True)
