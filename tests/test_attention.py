"""Attention shares: against a count by hand, and against the weights of a model's own layers."""

import numpy as np
import pytest
import torch

from latentomni import attention
from latentomni.attention import attention_record, attention_shares, heat, shares
from latentomni.attention_flow import Kind, attention_mask
from latentomni.config import Mode, SamplingSpec
from latentomni.errors import RequestError
from latentomni.generation import generate
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import collate


def test_shares_of_toy_attention_are_those_counted_by_hand():
    kinds = np.array([Kind.TEXT, Kind.MEDIA, Kind.MEDIA, Kind.LATENT, Kind.TEXT])
    weights = np.array([[[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 0.5, 0.25, 0.25]], [[0.3, 0.4, 0.1, 0.0, 0.2], [1.0, 0.0, 0.0, 0.0, 0.0]]])
    direct, via_latents = shares(weights, kinds)
    np.testing.assert_allclose(direct, [(0.5 + 0.5) / 2, (0.5 + 0.0) / 2])
    np.testing.assert_allclose(via_latents, [(0.4 + 0.0) / 2, (0.25 + 0.0) / 2])


def test_heat_of_toy_attention_is_that_counted_by_hand():
    bins = np.array([-1, 0, 2, 0, -1])
    weights = np.array([[[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 0.5, 0.25, 0.25]], [[0.3, 0.4, 0.1, 0.0, 0.2], [1.0, 0.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(heat(weights, bins, 3), [[(0.6 + 0.4) / 2, 0, (0.3 + 0.1) / 2], [(0.25 + 0.0) / 2, 0, (0.5 + 0.0) / 2]])


def answered(thinker, clip, mode):
    """A finished row, with a block whose window is given in latent mode, and where its answer begins."""
    row = new_sequence(thinker.encode_clip(clip), thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, "What is seen?", mode, thinker.encode_text)
    prompt = len(row)
    if mode is Mode.LATENT:
        row.open_block()
        row.add_window_tokens(thinker.encode_text("[0.0-2.0 s]"))
    list(generate(thinker, [row], [mode], SamplingSpec(max_new_tokens=6, max_blocks=1)))
    return row, prompt


@pytest.mark.parametrize("mode", [Mode.LATENT, Mode.DIRECT])
def test_under_the_strict_flow_text_sees_media_by_way_of_latents_alone(tiny64, make_clip, mode):
    row, prompt = answered(tiny64, make_clip(0), mode)
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


@torch.no_grad()
def whole_weights(thinker, row):
    """(L, H, T, T) of one forward over the whole row, as numpy."""
    ids, positions, layout = collate([row])
    told = []
    with attention._watched(thinker, lambda weights: told.append(weights[0].float().numpy())):
        thinker._run(thinker.embed_rows([row], ids), positions, attention_mask(layout, layout))
    return np.stack(told)


@pytest.mark.parametrize("mode", [Mode.LATENT, Mode.DIRECT])
def test_a_record_holds_what_a_count_over_the_whole_row_finds(tiny64, make_clip, mode):
    row, prompt = answered(tiny64, make_clip(0), mode)
    record, told = attention_record(tiny64, row, prompt), attention_shares(tiny64, row, prompt)
    weights, kinds, clip = whole_weights(tiny64, row).mean(1), np.array(row.kinds), row.clip
    steps = [i for i in range(prompt, len(row)) if kinds[i] != Kind.ECHO]
    assert len(record.groups) == len(record.texts) == len(steps)
    assert [group == "latent" for group in record.groups] == [kinds[i] == Kind.LATENT for i in steps]
    near = {"atol": 2e-6}  # the stock softmax is in float32
    np.testing.assert_allclose(record.direct, weights[:, steps][..., kinds == Kind.MEDIA].sum(-1), **near)
    np.testing.assert_allclose(record.via_latents, weights[:, steps][..., kinds == Kind.LATENT].sum(-1), **near)
    kept = np.isin(steps, told.tokens)
    np.testing.assert_array_equal(record.direct[:, kept], told.direct)
    np.testing.assert_array_equal(record.even_direct[kept], told.expected)

    cells = clip.grid[0] * clip.grid[1]
    for patch in range(len(clip.visual_times_s)):
        of_patch = [i for i, source in enumerate(row.sources) if kinds[i] == Kind.MEDIA and patch * cells <= source < (patch + 1) * cells]
        np.testing.assert_allclose(record.frames[..., patch], weights[:, steps][..., of_patch].sum(-1), **near)
        for cell, token in enumerate(sorted(of_patch, key=lambda i: row.sources[i])):
            for group, values in record.cells.items():
                members = [i for i, name in zip(steps, record.groups, strict=True) if name == group]
                found = values[:, patch].reshape(len(values), -1)[:, cell]
                np.testing.assert_allclose(found, weights[:, members, token].mean(1), **near)
    for half in range(len(record.sound_spans_s)):
        start, end = record.sound_spans_s[half]
        heard = [len(clip.visual) + k for k, at in enumerate(clip.audio_times_s) if start <= at + 1e-6 < end]
        of_half = [i for i, source in enumerate(row.sources) if kinds[i] == Kind.MEDIA and source in heard]
        np.testing.assert_allclose(record.sounds[..., half], weights[:, steps][..., of_half].sum(-1), **near)
    brackets = (kinds == Kind.MEDIA) & (np.array(row.sources) < 0)
    rest = record.direct - record.frames.sum(-1) - record.sounds.sum(-1)
    np.testing.assert_allclose(rest, weights[:, steps][..., brackets].sum(-1), atol=1e-5)


@pytest.mark.parametrize("kept", ["picture", "sound"])
def test_a_record_of_half_a_clip(tiny64, make_clip, kept):
    row, prompt = answered(tiny64, make_clip(0, picture=kept == "picture", sound=kept == "sound"), Mode.LATENT)
    record = attention_record(tiny64, row, prompt)
    assert (len(record.frame_spans_s) > 0, len(record.sound_spans_s) > 0) == (kept == "picture", kept == "sound")
    assert record.direct[:, np.array(record.groups) == "latent"].min() > 0


def test_rows_too_long_to_look_into_are_refused(tiny64, make_clip, monkeypatch):
    row, prompt = answered(tiny64, make_clip(0), Mode.DIRECT)
    monkeypatch.setattr("latentomni.attention.MAX_TOKENS", len(row) - 1)
    with pytest.raises(RequestError, match=f"this one has {len(row)}"):
        attention_record(tiny64, row, prompt)
