"""One direction has rank one and cosine one; orthogonal latents have full rank and cosine zero."""

import numpy as np
import pytest

from latentomni.evidence import collapse
from visualizers.spread import compute_spread


def test_the_extremes():
    same = compute_spread(np.outer([1.0, 2.0, 3.0], np.ones(8)))
    assert (same.effective_rank, same.raw_cosine) == pytest.approx((1, 1), abs=1e-2)
    apart = compute_spread(np.eye(4, 8))
    assert (apart.effective_rank, apart.raw_cosine, apart.latents) == pytest.approx((4, 0, 4), abs=1e-4)
    assert compute_spread(np.ones((1, 8))).raw_cosine is None
    assert compute_spread(np.empty((0,))) is None


def test_rank_is_the_one_that_checkpoints_are_measured_by():
    blocks = np.random.default_rng(0).normal(size=(2, 5, 32))
    mean = np.mean([compute_spread(block).effective_rank for block in blocks])
    assert mean == pytest.approx(collapse(blocks).effective_rank, rel=1e-3)
