"""Worlds: the same from the same seed, splits apart, sound and picture independent."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from latentomni.avworld import sample_world
from latentomni.avworld.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, SOUNDS, held_out
from latentomni.avworld.world import SPLITS
from latentomni.errors import RequestError

WORLDS = {split: [sample_world(seed, split) for seed in range(1500)] for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_world_and_another_seed_another(split: str) -> None:
    assert [sample_world(seed, split) for seed in range(20)] == WORLDS[split][:20]
    assert len({world.scenes for world in WORLDS[split]}) == 1500


def test_splits_do_not_share_worlds() -> None:
    assert all(len({WORLDS[split][seed].scenes for split in SPLITS}) == 3 for seed in range(100))


def test_unknown_split_is_refused() -> None:
    with pytest.raises(RequestError, match="no AV World split 'dev'; choose one of train, validation, test"):
        sample_world(0, "dev")


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_as_distinct_as_they_can_be(split: str) -> None:
    for world in WORLDS[split]:
        count = len(world.scenes)
        assert count in (3, 4, 5) and world.duration_s == 2 * count
        assert len({s.colour for s in world.scenes}) == len({s.sound for s in world.scenes}) == count
        assert len({s.shape for s in world.scenes}) == len({s.place for s in world.scenes}) == min(count, 4)
        played = Counter(s.repeats for s in world.scenes)
        assert set(played) == {1, 2, 3} and max(played.values()) <= 2
    assert {len(world.scenes) for world in WORLDS[split]} == {3, 4, 5}


def test_test_combinations_are_never_trained() -> None:
    everything = list(product(range(6), range(4), range(6)))
    assert sum(held_out(*triple) for triple in everything) == 36
    for split in ("train", "validation"):
        assert not any(s.held_out for world in WORLDS[split] for s in world.scenes)
    trained = {(s.colour, s.shape, s.sound) for world in WORLDS["train"] for s in world.scenes}
    tested = {(s.colour, s.shape, s.sound) for world in WORLDS["test"] for s in world.askable}
    assert len(trained) == 108 and len(tested) == 36 and not trained & tested
    assert all(len(world.askable) == 3 for world in WORLDS["test"])


def test_test_clips_pair_only_objects_and_sounds_that_could_all_be_the_answer() -> None:
    for world in WORLDS["test"]:
        assert all(scene.held_out_with(asked.sound) for scene in world.scenes for asked in world.askable)


def test_onsets_lie_inside_their_scene_and_test_onsets_in_bins_that_training_never_uses() -> None:
    parities = {}
    for split, worlds in WORLDS.items():
        scenes = [s for world in worlds for s in world.scenes]
        starts_s = np.array([s.onset_s - s.window.start_s for s in scenes])
        ends_s = np.array([s.sound_window.end_s - s.window.start_s for s in scenes])
        assert starts_s.min() >= 0.1 - 1e-9 and ends_s.max() <= 1.9 + 1e-9
        inside = starts_s[np.abs((starts_s - 0.1) % 0.05 - 0.025) < 0.0249]  # off the edges of the bins
        parities[split] = set(np.floor((inside - 0.1) / 0.05).astype(int) % 2)
    assert parities == {"train": {0}, "validation": {0}, "test": {1}}


def test_bursts_fill_the_span_of_the_sound_with_silence_between_them() -> None:
    for world in WORLDS["train"][:300]:
        for scene in world.scenes:
            bursts = scene.bursts
            assert len(bursts) == scene.repeats == COUNTS.index(scene.count) + 1
            assert bursts[0].start_s == scene.onset_s
            assert bursts[-1].end_s == pytest.approx(scene.sound_window.end_s)
            assert all(b.start_s - a.end_s == pytest.approx(0.2) for a, b in zip(bursts, bursts[1:], strict=False))
            assert all(b.duration_s == pytest.approx(bursts[0].duration_s) and b.duration_s >= 0.2 for b in bursts)


def _counts(rows: list, columns: list, pairs: list[tuple]) -> np.ndarray:
    table = np.zeros((len(rows), len(columns)))
    for row, column in pairs:
        table[rows.index(row), columns.index(column)] += 1
    return table


def _deviation(table: np.ndarray) -> float:
    """Largest distance of a cell from what independence expects, in standard deviations."""
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(np.abs((table - expected) / np.sqrt(expected)).max())


@pytest.mark.parametrize("split", SPLITS)
def test_sound_says_nothing_about_place_motion_or_time(split: str) -> None:
    scenes = [s for world in WORLDS[split] for s in world.scenes]
    assert _deviation(_counts(SOUNDS, PLACES, [(s.sound, s.place) for s in scenes])) < 4
    assert _deviation(_counts(SOUNDS, ("drift", "bob", "spin", "pulse"), [(s.sound, s.motion) for s in scenes])) < 4
    assert _deviation(_counts(SOUNDS, (0, 1, 2, 3, 4), [(s.sound, s.index) for s in scenes])) < 4


@pytest.mark.parametrize("split", SPLITS)
def test_how_often_a_sound_plays_says_nothing_else(split: str) -> None:
    scenes = [s for world in WORLDS[split] for s in world.scenes]
    others = {"sound": SOUNDS, "colour": COLOURS, "shape": SHAPES, "place": PLACES, "index": tuple(range(5))}
    for name, values in others.items():
        assert _deviation(_counts(COUNTS, values, [(s.count, getattr(s, name)) for s in scenes])) < 4
    assert _deviation(_counts(COUNTS, [False, True], [(s.count, s.sound_s > 1.2) for s in scenes])) < 4


def test_sound_and_object_depend_on_each_other_only_by_what_is_held_out() -> None:
    scenes = [s for world in WORLDS["train"] for s in world.scenes]
    assert _deviation(_counts(SOUNDS, COLOURS, [(s.sound, s.colour) for s in scenes])) < 4
    shapes = _counts(SOUNDS, SHAPES, [(s.sound, s.shape) for s in scenes])
    allowed = np.array([[sum(not held_out(c, h, s) for c in range(6)) for h in range(4)] for s in range(6)])
    assert allowed.min() == 4 and allowed.max() == 5
    assert _deviation(shapes / allowed) < 4


def test_within_a_test_clip_every_order_of_its_sounds_is_equally_likely() -> None:
    orders = []
    for world in WORLDS["test"]:
        if len(world.scenes) == 3:
            objects = sorted(world.scenes, key=lambda s: COLOURS.index(s.colour))
            orders.append([SOUNDS.index(s.sound) // 2 for s in objects])
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    expected = len(orders) / 6
    assert len(counts) == 6 and np.abs(counts - expected).max() < 4 * np.sqrt(expected)
