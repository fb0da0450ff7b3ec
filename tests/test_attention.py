"""Attention shares: against a count by hand, and against the weights of a model's own layers."""

import numpy as np
import pytest
import torch

from latentomni.attention import attention_shares, shares
from latentomni.attention_flow import Kind
from latentomni.config import Mode, SamplingSpec
from latentomni.generation import generate
from latentomni.processing import add_question, new_sequence


def test_shares_of_toy_attention_are_those_counted_by_hand():
    kinds = np.array([Kind.TEXT, Kind.MEDIA, Kind.MEDIA, Kind.LATENT, Kind.TEXT])
    weights = np.array([[[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 0.5, 0.25, 0.25]], [[0.3, 0.4, 0.1, 0.0, 0.2], [1.0, 0.0, 0.0, 0.0, 0.0]]])
    direct, via_latents = shares(weights, kinds)
    np.testing.assert_allclose(direct, [(0.5 + 0.5) / 2, (0.5 + 0.0) / 2])
    np.testing.assert_allclose(via_latents, [(0.4 + 0.0) / 2, (0.25 + 0.0) / 2])


@pytest.mark.parametrize("mode", [Mode.LATENT, Mode.DIRECT])
def test_under_the_strict_flow_text_sees_media_by_way_of_latents_alone(tiny64, make_clip, mode):
    row = new_sequence(tiny64.encode_clip(make_clip(0)), tiny64.spec, tiny64.ids, tiny64.encode_text)
    add_question(row, "What is seen?", mode, tiny64.encode_text)
    prompt = len(row)
    if mode is Mode.LATENT:
        row.open_block()
        row.add_window_tokens(tiny64.encode_text("[0.0-2.0 s]"))
    list(generate(tiny64, [row], [mode], SamplingSpec(max_new_tokens=6, max_blocks=1)))
    told = attention_shares(tiny64, row, prompt)
    depth = len(tiny64.text_model.layers)
    assert told.direct.shape == told.via_latents.shape == (depth, len(told.tokens)) and told.expected.shape == told.tokens.shape
    text = told.direct[:, ~told.is_latent]
    if mode is Mode.LATENT:
        assert text.max() == 0 and told.expected[~told.is_latent].max() == 0
        assert told.via_latents[:, ~told.is_latent].max() > 0 and told.direct[:, told.is_latent].min() > 0
    else:
        assert text.min() > 0 and told.via_latents.max() == 0 and 0 < told.expected.min() < 1
    assert (told.direct + told.via_latents).max() <= 1 + 1e-9


@torch.no_grad()
def test_queries_of_zero_spread_their_attention_evenly_over_what_they_see(tiny64, make_clip, monkeypatch):
    row = new_sequence(tiny64.encode_clip(make_clip(0)), tiny64.spec, tiny64.ids, tiny64.encode_text)
    add_question(row, "What?", Mode.DIRECT, tiny64.encode_text)
    prompt = len(row)
    row.add_text(tiny64.encode_text(" red"))
    before = tiny64.full([row])
    attention_shares(tiny64, row, prompt)
    assert torch.equal(before, tiny64.full([row]))  # looking leaves nothing behind
    for layer in tiny64.text_model.layers:
        for p in layer.self_attn.q_proj.parameters():
            monkeypatch.setattr(p, "data", torch.zeros_like(p))
    told = attention_shares(tiny64, row, prompt)
    media = np.array(row.kinds) == Kind.MEDIA
    np.testing.assert_allclose(told.expected, [media[: i + 1].mean() for i in told.tokens])
    np.testing.assert_allclose(told.direct, np.tile(told.expected, (len(told.direct), 1)), atol=2e-6)  # the stock softmax is in float32
