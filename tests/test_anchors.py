"""Anchors: means over an instant and a cell, weighted by squared norm, shared time and shared area."""

import numpy as np
import pytest
import torch

from latentomni.anchors import pool_anchors
from latentomni.clock import Window
from latentomni.config import LatentSpec
from latentomni.positions import latent_places
from latentomni.sequence import ClipFeatures


def clip_of(visual, grid, audio, step_s=1.0):
    """visual: (T, rows * columns, D), one patch every `step_s`; audio: (A, D), one token every 40 ms."""
    times = np.arange(len(visual)) * step_s
    visual = torch.as_tensor(visual, dtype=torch.float64).reshape(-1, audio.shape[1])
    audio = torch.as_tensor(audio, dtype=torch.float64)
    return ClipFeatures(
        visual,
        times,
        times + step_s,
        grid,
        audio,
        np.arange(len(audio)) / 25,
        max(len(times) * step_s, len(audio) / 25),
    )


def noise(rng, seconds=6, grid=(2, 3), d=5):
    return clip_of(rng.normal(size=(seconds, grid[0] * grid[1], d)), grid, rng.normal(size=(25 * seconds, d)))


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (8, 6)])
@pytest.mark.parametrize("window", [Window(0.0, 6.0), Window(1.5, 2.0), Window(5.5, 6.0)])
@pytest.mark.parametrize("spec", [LatentSpec(instants=3, rows=2, columns=1), LatentSpec(instants=8, rows=3, columns=4)])
def test_constant_features_pool_to_the_constant(grid, window, spec):
    """Grids finer and coarser than the block's, windows longer and shorter than the media's steps."""
    visual, audio = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.0, 4.0])
    clip = clip_of(np.tile(visual, (6, grid[0] * grid[1], 1)), grid, np.tile(audio, (150, 1)))
    anchors, exists = pool_anchors(clip, window, spec)
    assert exists.all()
    expected = torch.tensor(np.concatenate([np.tile(visual, (spec.n_visual, 1)), np.tile(audio, (spec.n_audio, 1))]))
    torch.testing.assert_close(anchors, expected)


def test_a_case_by_hand():
    """Two patches of a 1 x 2 grid, one instant, one cell a column; the window covers half of the first patch."""
    first, second = [[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [2.0, 0.0]]
    audio = np.zeros((50, 2))
    audio[10], audio[20] = [1.0, 0.0], [0.0, 2.0]
    clip = clip_of(np.array([first, second]), (1, 2), audio)
    anchors, exists = pool_anchors(clip, Window(0.5, 2.0), LatentSpec(instants=1, rows=1, columns=2))
    assert exists.tolist() == [True, True, True]
    left = (0.5 * 1 * np.array([1.0, 0.0]) + 1.0 * 9 * np.array([0.0, 3.0])) / 9.5
    right = (0.5 * 4 * np.array([0.0, 2.0]) + 1.0 * 4 * np.array([2.0, 0.0])) / 6
    sound = np.array([0.0, 2.0])  # token 10 (0.40 s) lies before the window
    np.testing.assert_allclose(anchors, [left, right, sound])


def test_a_coarse_grid_is_shared_and_a_fine_one_is_averaged_by_area():
    spec = LatentSpec(instants=1, rows=2, columns=1)
    coarse = clip_of(np.array([[[3.0, 4.0]]]), (1, 1), np.zeros((0, 2)))
    anchors, _ = pool_anchors(coarse, Window(0.0, 1.0), spec)
    assert anchors[:2].tolist() == [[3.0, 4.0], [3.0, 4.0]]
    fine = clip_of(
        np.array([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]]), (3, 1), np.zeros((0, 2))
    )  # the middle row lies in both halves
    anchors, _ = pool_anchors(fine, Window(0.0, 1.0), spec)
    np.testing.assert_allclose(anchors[:2], [[2 / 3, 1 / 3], [-2 / 3, 1 / 3]])


def test_each_anchor_is_the_feature_at_its_own_place_and_time():
    """Where instants are patches and cells are the grid's, anchors are features: time, row, column in order."""
    rng = np.random.default_rng(0)
    clip, spec, window = noise(rng), LatentSpec(instants=3, rows=2, columns=3), Window(2.0, 5.0)
    anchors, _ = pool_anchors(clip, window, spec)
    features = clip.visual.view(6, 2, 3, -1)
    for anchor, place in zip(anchors, latent_places(window, spec), strict=True):
        if place.modality == "visual":
            torch.testing.assert_close(anchor, features[int(place.time_s)][place.cell])
        else:
            tokens = clip.audio[25 * int(place.time_s) :][:25]
            weights = tokens.square().sum(1, keepdim=True)
            torch.testing.assert_close(anchor, (weights * tokens).sum(0) / weights.sum())


def test_what_lies_outside_the_window_does_not_matter():
    rng = np.random.default_rng(1)
    clip, other, spec = noise(rng), noise(rng), LatentSpec(instants=2, rows=1, columns=1)
    before, _ = pool_anchors(clip, Window(2.0, 4.0), spec)
    clip.visual[:12], clip.visual[24:] = other.visual[:12], other.visual[24:]
    clip.audio[:50], clip.audio[100:] = other.audio[:50], other.audio[100:]
    after, _ = pool_anchors(clip, Window(2.0, 4.0), spec)
    assert torch.equal(before, after)
    clip.visual[12:24], clip.audio[50:100] = other.visual[12:24], other.audio[50:100]
    assert (pool_anchors(clip, Window(2.0, 4.0), spec)[0] != after).all()


def test_a_missing_modality_has_no_anchors():
    rng = np.random.default_rng(2)
    spec = LatentSpec(instants=2, rows=2, columns=1)
    sound_only = clip_of(np.zeros((0, 1, 5)), (1, 1), rng.normal(size=(150, 5)))
    anchors, exists = pool_anchors(sound_only, Window(0.0, 2.0), spec)
    assert exists.tolist() == [False] * 4 + [True] * 2
    assert not anchors[:4].any() and anchors[4:].all()
    silent = clip_of(rng.normal(size=(6, 4, 5)), (2, 2), np.zeros((0, 5)))
    anchors, exists = pool_anchors(silent, Window(0.0, 2.0), spec)
    assert exists.tolist() == [True] * 4 + [False] * 2
    assert anchors[:4].all() and not anchors[4:].any()


def test_a_window_behind_the_last_sample_takes_the_nearest():
    clip = noise(np.random.default_rng(3))
    anchors, exists = pool_anchors(clip, Window(8.0, 9.0), LatentSpec(instants=1, rows=2, columns=3))
    assert exists.all()
    torch.testing.assert_close(anchors, torch.cat([clip.visual[-6:], clip.audio[-1:]]))
