"""What of a clip a latent is most similar to: the clip's moments, the evidence banks over them, and the null of every slot.

Dimensions: K latents, N moments, D hidden.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from latentomni.events import Event, LatentClosed, LatentStep, Moments
from latentomni.evidence import DonorBank, EvidenceBank, Null, benjamini_hochberg
from latentomni.sequence import ClipFeatures

__all__ = ["Evidence", "audio_moments", "visual_moments"]

_AUDIO_MOMENT_S = 0.5
_MAX_VISUAL_MOMENTS = 24_576  # ten minutes on an 8 x 8 grid


def visual_moments(features: ClipFeatures) -> Moments:
    """One moment per temporal patch and grid cell. Where a long clip on a fine grid has more than can be searched at once,
    neighbouring cells are averaged, 2 x 2, 3 x 3 ..., with squared-norm weights, as anchors are."""
    (rows, columns), times, factor = features.grid, len(features.visual_times_s), 1
    while times * -(-rows // factor) * -(-columns // factor) > _MAX_VISUAL_MOMENTS and factor < max(rows, columns):
        factor += 1
    top, left = np.arange(0, rows, factor), np.arange(0, columns, factor)
    bottom, right = np.minimum(top + factor, rows), np.minimum(left + factor, columns)
    cells = np.array([(a / rows, b / columns, c / rows, d / columns) for a, c in zip(top, bottom, strict=True)
                      for b, d in zip(left, right, strict=True)])  # fmt: skip
    vectors = _array(features.visual)
    if factor > 1:
        grids = vectors.reshape(times, rows, columns, -1)
        vectors = np.concatenate([_averaged_cells(grid, top, left) for grid in grids])
    starts_s, ends_s = (np.repeat(edges, len(cells)) for edges in (features.visual_times_s, features.visual_end_s))
    return Moments(starts_s, ends_s, np.tile(cells, (times, 1)), vectors)


def _averaged_cells(grid: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    """(rows, columns, D) to one row per group of cells, which begin at rows `top` and columns `left`."""
    weights = np.square(grid).sum(axis=2, keepdims=True) + 1e-12
    sums, norms = (np.add.reduceat(np.add.reduceat(x, top, axis=0), left, axis=1) for x in (grid * weights, weights))
    return (sums / norms).reshape(-1, grid.shape[2])


def audio_moments(features: ClipFeatures) -> Moments:
    """One moment per half second, tokens averaged with squared-norm weights, as anchors are."""
    tokens, times = _array(features.audio), features.audio_times_s
    edges = np.arange(0, len(tokens) / 25, _AUDIO_MOMENT_S)
    vectors = [_energy_mean(tokens[(times >= s - 1e-6) & (times < s + _AUDIO_MOMENT_S - 1e-6)]) for s in edges]
    stacked = np.stack(vectors) if vectors else np.zeros((0, tokens.shape[1]), np.float32)
    ends = np.minimum(edges + _AUDIO_MOMENT_S, len(tokens) / 25)
    return Moments(edges, ends, np.tile([0.0, 0.0, 1.0, 1.0], (len(edges), 1)), stacked)


def _array(tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _energy_mean(tokens: np.ndarray) -> np.ndarray:
    weights = np.square(tokens).sum(axis=1, keepdims=True) + 1e-12
    return (tokens * weights).sum(axis=0) / weights.sum()


class Evidence:
    """The clip's two evidence banks and, with donors, the null of every slot (computed once, when a slot is first asked for)."""

    def __init__(self, features: ClipFeatures, donors: DonorBank | None) -> None:
        self.donors = donors
        self._nulls: dict[int, Null] = {}
        self.moments = {"visual": visual_moments(features), "audio": audio_moments(features)}
        self.banks = {m: EvidenceBank(v, donors and donors.background(m)) for m, v in self.moments.items()}

    def _null(self, modality: str, slot: int) -> Null | None:
        if self.donors is None:
            return None
        if slot not in self._nulls:
            self._nulls[slot] = self.donors.null(self.banks[modality], slot)
        return self._nulls[slot]

    def of(self, step: LatentStep, *, has_null: bool = True) -> LatentStep:
        """The step with its nearest moments, its scores over time and, where the donors' slots are its own, its p-value."""
        bank = self.banks[step.modality]
        scores = bank.nearest(step.vector[None])
        matches = bank.ranked(scores[0])
        step = replace(step, matches=matches, scores=bank.by_time(scores)[0])
        if not matches:
            return step
        null = self._null(step.modality, step.index) if has_null else None
        p, level = (null.p(matches[0].score), null.level()) if null else (None, None)
        return replace(step, cell_scores=scores[0, bank.beside(matches[0].moment)], p=p, null_level=level)

    def found(self, events: Iterable[Event], *, has_null: bool = True) -> Iterator[Event]:
        """The events of an answer, latents with their evidence and blocks with their corrected p-values."""
        block_p: list[float | None] = []
        for event in events:
            if isinstance(event, LatentStep):
                event = self.of(event, has_null=has_null)
                block_p.append(event.p)
            elif isinstance(event, LatentClosed):
                event, block_p = replace(event, p=_corrected(block_p)), []
            yield event


def _corrected(p: list[float | None]) -> tuple[float | None, ...] | None:
    """Benjamini-Hochberg over the latents that have a p-value; None where there is no null at all."""
    known = [v for v in p if v is not None]
    if not known:
        return None
    corrected = iter(benjamini_hochberg(known))
    return tuple(None if v is None else float(next(corrected)) for v in p)
