"""The map as data: planted clusters come back, latents lie on the moments they equal, and a kept plane is used again."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from latentomni.errors import RequestError
from latentomni.events import Moments
from latentomni.trace import Plane, Trace
from visualizers.trajectory import compute_trajectory, map_view, plot_trajectory

CENTRES = 3


def planted(trace, seed=0, each=8):
    """The trace over moments of three kinds, of which the latents of block b are of kind b; and the kind of every point."""
    rng = np.random.default_rng(seed)
    centres = 6 * np.linalg.qr(rng.normal(size=(16, 16)))[0][:CENTRES]
    kinds = np.repeat(np.arange(CENTRES), each)

    def near(kinds):
        return (centres[kinds] + 0.3 * rng.normal(size=(len(kinds), 16))).astype(np.float16)

    def moments(seconds):
        start_s = np.arange(len(kinds), dtype=np.float32) * seconds
        return Moments(start_s, start_s + np.float32(seconds), np.tile(np.float32([0, 0, 1, 1]), (len(kinds), 1)), near(kinds))

    blocks = tuple(
        replace(block, latents=tuple(replace(z, vector=near([b])[0], matches=(), scores=None) for z in block.latents)) for b, block in enumerate(trace.blocks)
    )
    of_latents = [b for b, block in enumerate(trace.blocks) for _ in block.latents]
    return replace(trace, visual=moments(0.2), audio=moments(0.2), blocks=blocks), np.concatenate([kinds, kinds, of_latents])


def purity(points, kinds):
    """Share of points whose nearest other point is of their own kind."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return (kinds[distances.argmin(axis=1)] == kinds).mean()


def test_planted_clusters_are_recovered_by_pca(trace):
    run, kinds = planted(trace)
    found = compute_trajectory([run])
    assert purity(found.plane.points, kinds) == 1
    assert found.explained.sum() > 0.9
    middles = np.stack([found.plane.points[kinds == k].mean(axis=0) for k in range(CENTRES)])
    spread = max(np.linalg.norm(found.plane.points[kinds == k] - middles[k], axis=1).max() for k in range(CENTRES))
    assert min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 4 * spread


@pytest.mark.slow  # the first fit of a process compiles for about 20 seconds
def test_planted_clusters_are_recovered_by_umap_and_kept(trace, tmp_path):
    run, kinds = planted(trace)
    told = []
    found = compute_trajectory([run], "umap", lambda share, what: told.append(share))
    assert purity(found.plane.points, kinds) == 1
    assert told == sorted(told) and told[-1] == 1
    run.with_plane(found.plane).save(tmp_path / "t.zip")
    again = compute_trajectory([Trace.load(tmp_path / "t.zip")], "umap", lambda share, what: pytest.fail("computed twice"))
    assert np.array_equal(again.plane.points, found.plane.points)


def test_a_kept_plane_is_used_only_for_the_points_it_was_computed_from(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # importing it fails
    pca = compute_trajectory([trace])
    kept = Plane("umap", pca.plane.key, np.arange(2 * len(pca.slot), dtype=np.float32).reshape(-1, 2))
    assert np.array_equal(compute_trajectory([trace.with_plane(kept)], "umap").plane.points, kept.points)
    with pytest.raises(ImportError):
        compute_trajectory([trace.with_plane(replace(kept, key="of other points"))], "umap")


def test_a_latent_that_equals_a_moment_lies_on_it(trace):
    found = compute_trajectory([trace])
    view = map_view([trace])
    assert len(view["moments"]) == (~found.is_latent).sum() == 18 and len(view["latents"]) == found.is_latent.sum() == 12
    for latent in view["latents"]:
        near = view["moments"][latent["near"]]
        assert (latent["x"], latent["y"]) == pytest.approx((near["x"], near["y"]), abs=2e-3)
        assert (latent["span_s"], latent["modality"]) == (near["span_s"], near["modality"])
    assert [(z["block"], z["slot"]) for z in view["latents"]] == [(b, k) for b in range(2) for k in range(6)]


def test_a_clip_stands_once_among_several_runs(trace):
    points = compute_trajectory([trace]).plane.points
    twice = compute_trajectory([trace, trace])
    assert np.array_equal(points, compute_trajectory([trace]).plane.points)
    assert twice.run[twice.is_latent].tolist() == [0] * 12 + [1] * 12
    first, second = twice.plane.points[twice.is_latent][:12], twice.plane.points[twice.is_latent][12:]
    assert np.array_equal(first, second)
    assert (~twice.is_latent).sum() == 18  # the moments of one clip stand there once


@pytest.mark.parametrize("settings", [{}, {"blocks": 0}, {"null": False}, {"sound": False}, {"picture": False}])
def test_views_are_plain_json_and_figures_are_drawn(events, settings):
    run = Trace.from_events(events(**settings))
    view = map_view([run])
    assert json.loads(json.dumps(view, allow_nan=False)) == json.loads(json.dumps(view))
    figure = plot_trajectory(compute_trajectory([run]))
    assert sum(len(part.x) for part in figure.data) == len(view["moments"]) + len(view["latents"])


def test_what_cannot_be_drawn_is_refused_in_a_sentence(trace, events):
    nothing = Trace.from_events(events(blocks=0, picture=False, sound=False))
    with pytest.raises(RequestError, match="neither"):
        compute_trajectory([nothing])
    with pytest.raises(RequestError, match="one model"):
        compute_trajectory([trace, replace(trace, model="other")])
    with pytest.raises(RequestError, match="at least 10 points, and there are 6"):
        compute_trajectory([Trace.from_events(events(blocks=0, picture=False))], "umap")
    with pytest.raises(RequestError, match="tsne"):
        compute_trajectory([trace], "tsne")
