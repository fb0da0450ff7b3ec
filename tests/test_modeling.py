"""The thinker driven from outside equals the stock class called as its authors call it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from latentomni import checkpoints, modeling
from latentomni.attention_flow import Kind, attention_mask, causal_length
from latentomni.config import LatentSpec, Mode
from latentomni.modeling import LATENT_TOKENS
from latentomni.processing import add_question, new_sequence, patchify
from latentomni.sequence import collate


def asked(thinker, features, question="What is seen?", mode=Mode.DIRECT):
    row = new_sequence(features, thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, question, mode, thinker.encode_text)
    return row


@torch.no_grad()
@pytest.mark.parametrize("picture, sound", [(True, True), (True, False)])
def test_logits_equal_the_stock_forward_under_the_open_flow(tiny64, make_clip, picture, sound):
    """Same towers, same scatter, same positions, same mask: the stock class gets nothing but ids, pixels and mel."""
    clip = make_clip(1, 3.0, picture=picture, sound=sound)
    row = asked(tiny64, tiny64.encode_clip(clip))
    ids = torch.tensor([row.token_ids])
    patches, grid = patchify(clip.frames, tiny64.video)
    media = {
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([grid]),
        "video_second_per_grid": torch.ones(1),
    }
    if sound:
        mel = tiny64.mel(
            clip.waveform, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt"
        )  # padded to 30 s
        media |= {
            "input_features": mel["input_features"],
            "feature_attention_mask": mel["attention_mask"],
            "use_audio_in_video": True,
        }
    stock = tiny64.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **media).logits
    ours = tiny64.logits(tiny64.full([row]))
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-6)
    assert (ours - stock.roll(1, 1)).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("patches", [1, 8 * 3, 8 * 8])
def test_frames_that_go_through_the_tower_in_parts_have_the_same_features(tiny64, make_clip, monkeypatch, patches):
    """An odd frame at the end is still the last one's pair."""
    clip = make_clip(3, 7.5)
    whole, seen, tower = tiny64.encode_clip(clip), [], tiny64.model.get_video_features
    monkeypatch.setattr(modeling, "_PATCHES_AT_ONCE", patches)
    monkeypatch.setattr(tiny64.model, "get_video_features", lambda patches, grid: (seen.append(len(patches)), tower(patches, grid))[1])
    parts = tiny64.encode_clip(clip)
    torch.testing.assert_close(parts.visual, whole.visual, rtol=0, atol=1e-12)
    assert (len(seen), max(seen)) == {1: (8, 8), 24: (3, 24), 64: (1, 64)}[patches]
    assert parts.grid == whole.grid
    assert np.array_equal(parts.visual_times_s, whole.visual_times_s)
    assert np.array_equal(parts.visual_end_s, whole.visual_end_s)


@torch.no_grad()
def test_rows_of_a_padded_batch_equal_each_alone(tiny64, make_clip):
    clips = [make_clip(0, 2.0), make_clip(1, 4.0, sound=False), make_clip(2, 3.0, picture=False)]
    rows = [
        asked(tiny64, tiny64.encode_clip(clip), mode=mode)
        for clip, mode in zip(clips, [Mode.DIRECT, Mode.LATENT, Mode.LATENT], strict=True)
    ]
    together = tiny64.full(rows)
    for b, row in enumerate(rows):
        torch.testing.assert_close(together[b, : len(row)], tiny64.full([row])[0], rtol=0, atol=1e-9)


@torch.no_grad()
def test_media_that_go_ahead_without_a_mask_leave_states_whole(tiny64, make_clip):
    rows = [asked(tiny64, tiny64.encode_clip(make_clip(0, 2.0)), mode=mode) for mode in (Mode.LATENT, Mode.DIRECT)]
    plain = [i for i in range(len(rows[0])) if rows[0].turns[i] == 0]  # a latent turn's question is blind to media
    for row, n in zip(rows, (len(plain), len(rows[1])), strict=True):
        layout = collate([row])[2]
        assert causal_length(attention_mask(layout, layout)) == n
        with tiny64.layer_states() as states:
            hidden = tiny64.full([row])
        assert [x.shape for x in states] == [hidden.shape] * len(tiny64.text_model.layers)
        torch.testing.assert_close(tiny64.text_model.norm(states[-1]), hidden, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_clips_hidden_states_do_not_depend_on_what_is_asked(tiny64, make_clip):
    features = tiny64.encode_clip(make_clip(0, 2.0))
    rows = [asked(tiny64, features, question) for question in ("What is seen?", "When does the bell ring, and why?")]
    media = [i for i, kind in enumerate(rows[0].kinds) if kind == Kind.MEDIA]
    hidden = [tiny64.full([row])[0, media] for row in rows]
    torch.testing.assert_close(*hidden, rtol=0, atol=1e-9)
    assert rows[0].positions[0][: media[-1]] == rows[1].positions[0][: media[-1]]


@pytest.mark.parametrize("n_samples", [1600, 1759, 31_999, 32_000, 32_160, 32_320, 32_480, 64_160, 96_001])
def test_sound_of_any_length_becomes_25_tokens_a_second(tiny, make_clip, n_samples):
    clip = replace(make_clip(0, 7.0), waveform=np.full(n_samples, 0.1, np.float32))
    features = tiny.encode_clip(clip)
    frames = n_samples // 160
    assert len(features.audio) == ((frames - 1) // 2 + 1 - 2) // 2 + 1
    assert features.audio_times_s.tolist() == [i / 25 for i in range(len(features.audio))]
    assert abs(len(features.audio) - n_samples / 640) < 1


def test_sound_within_a_chunk_of_two_seconds_does_not_depend_on_what_follows(tiny, make_clip):
    clip = make_clip(0, 6.0)
    whole = tiny.encode_clip(clip).audio
    beginning = tiny.encode_clip(replace(clip, waveform=clip.waveform[: 4 * 16_000])).audio
    torch.testing.assert_close(beginning[:95], whole[:95], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "count, fps, starts, last_end",
    [(8, 2.0, [0, 1, 2, 3], 4.5), (5, 2.0, [0, 1, 2], 4.5), (1, 2.0, [0], 4.5), (6, 4.0, [0, 0.5, 1], 4.5)],
)
def test_pictures_stand_at_their_true_times(tiny, make_clip, count, fps, starts, last_end):
    clip = make_clip(0, 4.5)
    clip = replace(clip, frames=clip.frames[:1].repeat(count, 0), frame_times_s=np.arange(count) / fps, sample_fps=fps)
    features = tiny.encode_clip(clip)
    assert features.visual_times_s.tolist() == starts
    assert features.visual_end_s.tolist() == [*starts[1:], last_end]
    assert features.visual.shape == (len(starts) * features.grid[0] * features.grid[1], tiny.hidden_size)


def test_a_clip_with_nothing_to_see_or_hear_can_be_asked_about(tiny, make_clip):
    """A sound of 50 ms makes no token."""
    clip = replace(make_clip(0, 0.05, picture=False), duration_s=0.05)
    features = tiny.encode_clip(clip)
    assert features.vectors.shape == (0, tiny.hidden_size)
    row = asked(tiny, features)
    assert Kind.MEDIA not in row.kinds
    assert row.clip is features


def test_the_latent_is_the_hidden_state_or_its_linear_image(tiny):
    hidden = torch.randn(3, tiny.hidden_size, generator=torch.Generator().manual_seed(0))
    plain = replace(tiny, spec=LatentSpec(), head=None)
    assert plain.latent(hidden) is hidden
    torch.testing.assert_close(tiny.latent(hidden), hidden @ tiny.head.weight.T + tiny.head.bias)
    assert tiny.latent(hidden.bfloat16()).dtype == torch.bfloat16


def test_special_tokens_are_one_id_each_and_all_different(tiny):
    ids = vars(tiny.ids)
    assert len(set(ids.values())) == len(ids)
    assert [tiny.encode_text(token) for token in LATENT_TOKENS] == [
        [ids["trigger"]],
        [ids["close"]],
        [ids["latent_pad"]],
    ]


@pytest.mark.parametrize(
    "text", ["What is seen?", "né \N{BELL} 何", "[2.0-4.0 s]\n\ttab  two spaces", "\N{ZERO WIDTH JOINER}\x7f"]
)
def test_any_text_encodes_and_reads_back(tiny, text):
    assert tiny.tokenizer.decode(tiny.encode_text(text)) == text
    assert tiny.cached_text(text) == tiny.cached_text(text) == tiny.encode_text(text)


@torch.no_grad()
def test_int8_gives_memory_back_after_every_layer_of_a_long_prompt_only(monkeypatch):
    thinker, trims = checkpoints.load("nano", device="cpu", quantization="int8"), []
    monkeypatch.setattr(checkpoints, "trim", lambda: trims.append(1))
    for tokens, expected in ((1, 0), (255, 0), (256, len(thinker.text_model.layers))):
        thinker.forward(torch.zeros(1, tokens, thinker.hidden_size), torch.arange(tokens).expand(3, 1, -1), None)
        assert len(trims) == expected, tokens
