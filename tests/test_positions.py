"""OSPE: whatever happens at one second shares one t, in every modality; media stand as in the stock library."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from latentomni.clock import Window
from latentomni.config import LatentSpec, Mode, PositionVariant
from latentomni.positions import PositionBuilder, latent_places
from latentomni.processing import add_question, new_sequence

SPEC = LatentSpec(instants=2, rows=2, columns=1)
GRID = (4, 6)


def with_media(seconds=6):
    """A builder after 5 words and a clip with a picture a second on a 4 x 6 grid; second 0 has id 5."""
    cells = np.array([(r, c) for r in range(GRID[0]) for c in range(GRID[1])])
    _, builder = PositionBuilder().text(5)
    times = np.concatenate([np.repeat(np.arange(seconds), len(cells)), np.arange(25 * seconds) / 25])
    places = np.concatenate([np.tile(cells, (seconds, 1)), np.full((25 * seconds, 2), -1)])
    ids, builder = builder.media(times, places, GRID)
    return times, places, ids, builder


def test_same_second_same_t_in_every_modality():
    times, places, ids, builder = with_media()
    latents, _ = builder.latents(Window(2.0, 4.0), SPEC)  # instants 2-3 and 3-4 s, midpoints 2.5 and 3.5 s
    latents_at_3, _ = builder.latents(Window(2.5, 4.5), SPEC)  # midpoints 3.0 and 4.0 s
    is_audio = places[:, 0] < 0
    at = {name: set(ids[0, mask & (times == 3.0)]) for name, mask in (("visual", ~is_audio), ("audio", is_audio))}
    assert at == {"visual": {builder.media_start + 75}, "audio": {builder.media_start + 75}}
    assert latents_at_3[0].tolist() == [80, 80, 105, 105, 80, 105]
    assert latents[0].tolist() == [5 + 63, 5 + 63, 5 + 88, 5 + 88, 5 + 63, 5 + 88]


def test_latents_stand_at_their_cells_and_sound_has_one_id():
    _, _, _, builder = with_media()
    ids, after = builder.latents(Window(0.0, 2.0), SPEC)
    assert ids[1, :4].tolist() == [5 + 1, 5 + 3, 5 + 1, 5 + 3]  # centres of the upper and lower half of 4 rows
    assert ids[2, :4].tolist() == [5 + 3] * 4  # centre of 6 columns
    assert (ids[:, 4:] == ids[0, 4:]).all()
    assert after == builder  # every id used lies before the text
    places = latent_places(Window(0.0, 2.0), SPEC)
    assert [(p.modality, p.time_s, p.cell) for p in places] == [
        ("visual", 0.5, (0, 0)), ("visual", 0.5, (1, 0)), ("visual", 1.5, (0, 0)), ("visual", 1.5, (1, 0)),
        ("audio", 0.5, None), ("audio", 1.5, None),
    ]  # fmt: skip


@pytest.mark.parametrize("variant", PositionVariant)
@pytest.mark.parametrize("window", [Window(0.0, 2.0), Window(3.0, 6.0), Window(5.5, 600.0)])
def test_later_text_stands_behind_every_id_used(variant, window):
    _, _, media, builder = with_media()
    ids, after = builder.latents(window, replace(SPEC, positions=variant))
    text, _ = after.text(2)
    used = np.concatenate([media, ids], axis=1)
    assert ids.shape == (3, SPEC.n_latents)
    assert text[0, 0] > used.max()
    assert text.tolist() == [[text[0, 0], text[0, 0] + 1]] * 3


def test_variants_differ_as_they_say():
    _, _, _, builder = with_media()
    ids = {v: builder.latents(Window(3.0, 5.0), replace(SPEC, positions=v))[0] for v in PositionVariant}
    start, absolute = builder.next_id, ids[PositionVariant.ABSOLUTE]
    assert ids[PositionVariant.SEQUENTIAL].tolist() == [list(range(start, start + 6))] * 3
    relative = ids[PositionVariant.RELATIVE]
    assert relative[0].tolist() == [start + 13, start + 13, start + 38, start + 38, start + 13, start + 38]
    assert (relative[1:, :4] - start == absolute[1:, :4] - 5).all()
    upstream = ids[PositionVariant.UPSTREAM]
    assert upstream[0].tolist() == [start, start + 1, start + 2, start + 3, start, start + 4]
    assert upstream[1:, 4:].tolist() == [[0, 0], [0, 0]]


def test_without_media_latents_stand_as_text():
    _, builder = PositionBuilder().text(3)
    ids, after = builder.latents(Window(0.0, 2.0), SPEC)
    assert ids.tolist() == [[3, 4, 5, 6, 7, 8]] * 3
    assert after.next_id == 9


@pytest.mark.parametrize("seconds", [0.2, 1.0, 3.0, 4.0, 5.4])
@pytest.mark.parametrize("picture, sound", [(True, True), (True, False), (False, True)])
def test_a_clip_stands_where_the_library_puts_it(tiny, make_clip, seconds, picture, sound):
    """Chunks of 2 s, nested brackets, ids of every token: equal to `get_rope_index` of the stock class."""
    features = tiny.encode_clip(make_clip(0, seconds, picture=picture, sound=sound))
    row = new_sequence(features, tiny.spec, tiny.ids, tiny.encode_text)
    add_question(row, "What is seen?", Mode.LATENT, tiny.encode_text)
    ids = torch.tensor([row.token_ids])
    grid = torch.tensor([[len(features.visual_times_s), 2 * features.grid[0], 2 * features.grid[1]]])
    positions, _ = tiny.model.get_rope_index(
        ids, None, grid if picture else None, torch.ones_like(ids), use_audio_in_video=picture and sound,
        audio_seqlens=torch.tensor([round(seconds * 100)]) if sound else None, second_per_grids=torch.ones(1),
    )  # fmt: skip
    assert positions[:, 0].tolist() == list(row.positions)


def test_both_brackets_of_a_side_share_one_id(tiny, make_clip):
    row = new_sequence(tiny.encode_clip(make_clip(0, 2.0)), tiny.spec, tiny.ids, tiny.encode_text)
    where = {
        name: row.token_ids.index(getattr(tiny.ids, name))
        for name in ("vision_bos", "audio_bos", "audio_eos", "vision_eos")
    }
    t = {name: row.positions[0][i] for name, i in where.items()}
    assert t["vision_bos"] == t["audio_bos"] == row.builder.media_start - 1
    assert t["vision_eos"] == t["audio_eos"] == row.builder.next_id - 1
    assert list(where.values()) == sorted(where.values())
