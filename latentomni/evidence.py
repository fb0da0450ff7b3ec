"""Nearest evidence of a latent in its own clip, how sure one can be of it, and whether latents have collapsed.

A latent is compared with the clip's own features (`events.Moments`), never with positions or the stated window.

Scoring. Latents and moments are centred on one background, the mean of donor latents (of other clips), or the clip's
own mean without donors, and compared by d = 1 - cosine. Centring alone removes hubs near the mean (Suzuki et al.
2013). With donors each moment's distance is also scaled by how near it lies to its 10 nearest donors (one-sided local
scaling):

    score(latent, moment) = 1 - d(latent, moment) * mean_m(r_m) / r_moment,    r = mean distance to the nearest donors

A moment that is near to everybody's latents (a hub) has a small r and must be matched more closely. Unlike CSLS, which
subtracts similarities, this keeps an exact promise: a latent equal to a moment scores 1, the maximum, so it finds that
moment at rank 1 whatever hubs there are. Hubness is measured against donors only: the frames of a still scene are near
each other, which is redundancy and no fault.

Dimensions: K latents, N moments, T distinct times, M donors, C clips, D width.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from latentomni.errors import CheckpointError
from latentomni.events import Match, Moments

__all__ = ["Collapse", "DonorBank", "EvidenceBank", "Null", "benjamini_hochberg", "block_moment", "collapse"]

_NEIGHBOURS = 10
_SCALE_LIMIT = 2.0  # no moment's distance is scaled by more than this: hubness corrects a ranking, it must not make one
_BACKGROUND_ROWS = 1024
_CHUNK_ROWS = 1024
_MIN_DONORS = 199
_SCHEMA = "latentomni.donors/1"
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length one; rows of zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)


def _centred_units(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """`_unit(vectors - centre)`, some rows at a time: the moments of a long clip fill gigabytes."""
    units = np.empty(vectors.shape, np.float32)
    for first in range(0, len(vectors), _CHUNK_ROWS):
        rows = slice(first, first + _CHUNK_ROWS)
        units[rows] = _unit(vectors[rows] - centre)
    return units


class EvidenceBank:
    """The moments of one modality of one clip, ready to be searched. Any N >= 0 works.

    times_s: (T, 2) seconds, the distinct (start, end) of the moments in time order.
    """

    def __init__(self, moments: Moments, background: np.ndarray | None = None) -> None:
        """`background`: (B, D) latents of other clips (`DonorBank.background`), or None."""
        features = np.asarray(moments.features, dtype=np.float32)
        centred_on = features if background is None else np.asarray(background, dtype=np.float32)
        self.moments = moments
        self._centre = centred_on.mean(axis=0) if len(centred_on) else np.zeros(features.shape[1:], np.float32)
        self._units = _centred_units(features, self._centre)
        self._scale = np.ones(len(features), np.float32)
        if background is not None and len(features):
            self._scale = _hub_scale(self._units, _unit(centred_on - self._centre))
        spans = np.stack([moments.start_s, moments.end_s], axis=1)
        self.times_s, time_of_row = np.unique(spans, axis=0, return_inverse=True)
        in_order = bool((np.diff(time_of_row) >= 0).all())  # as moments are made; then nothing need be copied to group them
        self._by_time = slice(None) if in_order else np.argsort(time_of_row, kind="stable")
        self._time_edges = np.searchsorted(np.sort(time_of_row), np.arange(len(self.times_s)))

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """Score (K, D) vectors against every moment: (K, N), at most 1, higher is more similar."""
        units = np.ascontiguousarray(_unit(np.asarray(vectors, dtype=np.float32) - self._centre).T)
        scores = np.empty((len(vectors), len(self._units)), np.float32)
        for first in range(0, len(self._units), _CHUNK_ROWS):  # few moments at a time stay in the processor's cache
            rows = slice(first, first + _CHUNK_ROWS)
            scores[:, rows] = 1.0 - (1.0 - (self._units[rows] @ units).T) * self._scale[rows]
        return scores

    def matches(self, vector: np.ndarray, top: int = 5) -> tuple[Match, ...]:
        """The `top` moments (a time, for pictures also a cell) that a (D,) vector is most similar to, best first."""
        return self.ranked(self.nearest(vector[None])[0], top)

    def ranked(self, scores: np.ndarray, top: int = 5) -> tuple[Match, ...]:
        """The `top` of one vector's scores (N,), best first; of equal ones the earlier moment."""
        distances = -scores
        found = np.arange(len(scores))
        if len(scores) > top:  # only what can be among the best is sorted
            found = np.flatnonzero(~(distances > np.partition(distances, top - 1)[top - 1]))
        best = found[np.argsort(distances[found], kind="stable")][:top]
        m = self.moments
        return tuple(
            Match(int(i), float(m.start_s[i]), float(m.end_s[i]), tuple(map(float, m.cells[i])), float(scores[i]), rank)
            for rank, i in enumerate(best, start=1)
        )

    def beside(self, moment: int) -> np.ndarray:
        """The moments of one time, for pictures all cells of a frame, in their own order: (G,) places."""
        m = self.moments
        return np.flatnonzero((m.start_s == m.start_s[moment]) & (m.end_s == m.end_s[moment]))

    def by_time(self, scores: np.ndarray) -> np.ndarray:
        """(K, N) scores to (K, T): the best row of every distinct time."""
        if not len(self.times_s):
            return np.empty((len(scores), 0), np.float32)
        return np.maximum.reduceat(scores[:, self._by_time], self._time_edges, axis=1)


def _hub_scale(units: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """(N,) factors of distance: above 1 for moments nearer to the donors (B, D) than the clip's others on average."""
    k = min(_NEIGHBOURS, len(donors))
    distances = np.concatenate([
        1.0 - np.sort(units[first : first + _CHUNK_ROWS] @ donors.T, axis=1)[:, -k:].mean(axis=1)
        for first in range(0, len(units), _CHUNK_ROWS)
    ])  # fmt: skip
    return np.clip(distances.mean() / np.maximum(distances, 1e-6), 1 / _SCALE_LIMIT, _SCALE_LIMIT).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Null:
    """What latents of other clips score in the same slot against this clip: (M,) maxima over moments, ascending."""

    statistics: np.ndarray

    def p(self, score: float) -> float:
        """Share of donors, the latent itself counted in, that reach the score of the latent's best match."""
        at_least = len(self.statistics) - np.searchsorted(self.statistics, score, side="left")
        return float((1 + at_least) / (1 + len(self.statistics)))

    def level(self, p: float = 0.05) -> float | None:
        """The score that must be exceeded for a p of at most this; None where so few donors allow none."""
        may_reach = int(p * (1 + len(self.statistics)) + 1e-9) - 1
        return float(self.statistics[-1 - may_reach]) if 0 <= may_reach < len(self.statistics) else None


@dataclass(frozen=True, eq=False)
class DonorBank:
    """Latents of other clips, the null and the background of evidence; ships with a checkpoint.

    latents: (K, M, D) float16, slot by donor, M >= 199. The first `n_visual` slots are visual, the others audio.
    """

    latents: np.ndarray
    n_visual: int

    def __post_init__(self) -> None:
        shape = self.latents.shape
        if len(shape) != 3 or shape[1] < _MIN_DONORS or not 0 <= self.n_visual <= shape[0]:
            raise CheckpointError(
                f"A donor bank needs latents of shape (slots, donors, width) with at least {_MIN_DONORS} donors "
                f"and 0 to {shape[0] if shape else 0} visual slots, got {shape} and {self.n_visual}; build it again."
            )
        if not np.isfinite(self.latents).all():
            raise CheckpointError("The donor bank holds values that are not finite; build it again.")
        if self.latents.dtype != np.float16:
            object.__setattr__(self, "latents", self.latents.clip(-_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16))

    @classmethod
    def from_file(cls, path: str | Path) -> "DonorBank":
        """Read what `save` wrote; CheckpointError says what is wrong with anything else."""
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("schema") != _SCHEMA:
                    raise CheckpointError(f"{Path(path).name} is no donor bank of schema {_SCHEMA}; build it again.")
                return cls(file.get_tensor("latents"), int(metadata["n_visual"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{Path(path).name} cannot be read as a donor bank ({error}); build it again."
            ) from error

    def save(self, path: str | Path) -> None:
        save_file({"latents": self.latents}, path, {"schema": _SCHEMA, "n_visual": str(self.n_visual)})

    def background(self, modality: str) -> np.ndarray:
        """(B, D) float32: up to 1,024 donors of "visual" or "audio", evenly drawn from all slots."""
        slots = self.latents[: self.n_visual] if modality == "visual" else self.latents[self.n_visual :]
        rows = slots.reshape(-1, slots.shape[-1])
        return rows[np.linspace(0, len(rows) - 1, min(len(rows), _BACKGROUND_ROWS)).astype(int)].astype(np.float32)

    def null(self, evidence: EvidenceBank, slot: int) -> Null:
        """The donors of `slot` scored against a clip exactly as its own latent is; compute once per clip and slot."""
        return Null(np.sort(evidence.nearest(self.latents[slot]).max(axis=1, initial=-np.inf)))


def benjamini_hochberg(p: Sequence[float]) -> np.ndarray:
    """Corrected p-values of a family (a block): (K,); those at most 0.05 hold a false discovery rate of 0.05."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return corrected


def block_moment(matches: Iterable[Sequence[Match]]) -> tuple[float, float] | None:
    """The (start_s, end_s) that most latents of one modality match best; the higher summed score breaks a tie.

    `matches`: per latent its matches, best first. None where no latent has one.
    """
    votes: dict[tuple[float, float], list[float]] = defaultdict(list)
    for ranked in matches:
        if ranked:
            votes[ranked[0].start_s, ranked[0].end_s].append(ranked[0].score)
    return max(votes, key=lambda span: (len(votes[span]), sum(votes[span])), default=None)


@dataclass(frozen=True)
class Collapse:
    """Do latents depend on the clip? Read the four together; each alone can be fooled.

    between_clip_variance: 0 to 1, the part of all variance around the grand mean that slot means do not explain: 0 when
    a slot says the same in every clip. Variance below 1e-4 of the mean square counts as rounding, hence as 0.
    segment_retrieval_top1: share of clips whose latents are nearest to their own anchors among (up to) 100 clips; None
    without anchors.
    effective_rank: 1 to K, exp of the entropy of a block's singular values (Roy & Vetterli 2007), mean over clips.
    raw_cosine: mean uncentred cosine of one slot between two clips; 1 when nothing depends on the clip.
    """

    between_clip_variance: float
    segment_retrieval_top1: float | None
    effective_rank: float
    raw_cosine: float


def collapse(latents: np.ndarray, anchors: np.ndarray | None = None) -> Collapse:
    """Measure (C, K, D) latents of C >= 2 clips; `anchors`: (C, K, D), pooled features of each clip's own segment."""
    x = np.asarray(latents, dtype=np.float32)
    clips = len(x)
    assert clips >= 2, "collapse compares clips: at least two are needed"
    total = np.square(x - x.mean(axis=(0, 1))).sum(axis=-1).mean()
    within_slots = np.square(x - x.mean(axis=0)).sum(axis=-1).mean()
    is_rounding = total <= 1e-4 * np.square(x).sum(axis=-1).mean()
    units = _unit(x)
    pair_sums = np.square(units.sum(axis=0)).sum(axis=-1) - np.square(units).sum(axis=(0, 2))
    return Collapse(
        between_clip_variance=0.0 if is_rounding else float(within_slots / total),
        segment_retrieval_top1=None if anchors is None else _retrieval_top1(x, np.asarray(anchors, dtype=np.float32)),
        effective_rank=float(np.mean([_effective_rank(block) for block in x])),
        raw_cosine=float(pair_sums.mean() / (clips * (clips - 1))),
    )


def _effective_rank(block: np.ndarray) -> float:
    singular = np.linalg.svd(block, compute_uv=False)
    shares = singular / max(singular.sum(), 1e-30)
    return float(np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-30)))))


def _retrieval_top1(latents: np.ndarray, anchors: np.ndarray, among: int = 100) -> float:
    """Own anchors first among others, by the mean over slots of the cosine around slot means; a tie is a miss."""
    queries, targets = _unit(latents - latents.mean(axis=0)), _unit(anchors - anchors.mean(axis=0))
    hits = []
    for group in np.array_split(np.arange(len(latents)), -(-len(latents) // among)):
        q, t = queries[group].reshape(len(group), -1), targets[group].reshape(len(group), -1)
        similar = q @ t.T
        hits.extend((similar >= np.diag(similar)[:, None]).sum(axis=1) == 1)
    return float(np.mean(hits))
