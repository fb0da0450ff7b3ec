"""Are the latents of one block different from each other? What a single run can say about collapse. Needs numpy alone.

That latents differ between clips cannot be seen in one run: `latentomni.evidence.collapse` measures it for a checkpoint.
Dimensions: K latents of a block, D width.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Spread", "compute_spread"]


@dataclass(frozen=True)
class Spread:
    """effective_rank: 1 to latents, exp of the entropy of the singular values (Roy & Vetterli 2007). raw_cosine: mean
    uncentred cosine of two latents, 1 when all point the same way; None for a single one. latents: how many there are.
    """

    effective_rank: float
    raw_cosine: float | None
    latents: int


def compute_spread(vectors: np.ndarray) -> Spread | None:
    """Measure the (K, D) latents of a block; None without latents."""
    x = np.asarray(vectors, np.float32)
    if not len(x):
        return None
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(x @ x.T), 0.0))  # K is small, D need not be
    shares = singular / max(float(singular.sum()), 1e-30)
    rank = float(np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-30)))))
    units = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    pairs = len(x) * (len(x) - 1)
    sums = float(np.square(units.sum(axis=0)).sum() - np.square(units).sum())
    return Spread(rank, sums / pairs if pairs else None, len(x))
