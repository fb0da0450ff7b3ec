"""OSPE in seconds: one builder of 3-D position ids (t, h, w) for text, media and latents, used by training and inference.

Media and latents stand at `media start + round(25 * seconds)`, so whatever happens at one moment shares one t (paper
eq. 3; TMRoPE of Qwen2.5-Omni). Text runs on past every id used.
"""

from dataclasses import dataclass, replace

import numpy as np

from latentomni.clock import Window, position_offset
from latentomni.config import LatentSpec, PositionVariant

__all__ = ["LatentPlace", "PositionBuilder", "latent_places"]

_UPSTREAM_AUDIO_STRIDE = 4


@dataclass(frozen=True)
class LatentPlace:
    """Where one latent of a block belongs: modality, instant, its time (seconds) and its cell (row, column), None for audio."""

    modality: str
    instant: int
    time_s: float
    cell: tuple[int, int] | None


def latent_places(window: Window, spec: LatentSpec) -> tuple[LatentPlace, ...]:
    """The K latents of a block in decoding order: visual (instant, row, column), then audio (instant)."""
    times = [instant.midpoint_s for instant in window.instants(spec.instants)]
    cells = [(r, c) for r in range(spec.rows) for c in range(spec.columns)] if spec.visual else []
    visual = [LatentPlace("visual", i, t, cell) for i, t in enumerate(times) for cell in cells]
    return (*visual, *(LatentPlace("audio", i, t, None) for i, t in enumerate(times if spec.audio else [])))


@dataclass(frozen=True)
class PositionBuilder:
    """Ids given out so far. `next_id`: where text goes on; `media_start`: the id of second 0, None without media;
    `grid`: rows and columns of the media's visual grid. Each method returns (3, n) int64 ids and the builder after them.
    """

    next_id: int = 0
    media_start: int | None = None
    grid: tuple[int, int] = (1, 1)

    def text(self, count: int) -> tuple[np.ndarray, "PositionBuilder"]:
        ids = np.arange(self.next_id, self.next_id + count, dtype=np.int64)
        return np.broadcast_to(ids, (3, count)).copy(), replace(self, next_id=self.next_id + count)

    def media(self, times_s: np.ndarray, cells: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, "PositionBuilder"]:
        """Ids of media tokens. times_s: (N,) seconds. cells: (N, 2) row and column, -1 for sound (then h = w = t)."""
        start = self.next_id
        t = start + np.array([position_offset(float(s)) for s in times_s], dtype=np.int64)
        ids = np.stack([t, *(np.where(cells[:, axis] < 0, t, start + cells[:, axis]) for axis in (0, 1))])
        return ids, PositionBuilder(int(ids.max(initial=start - 1)) + 1, start, grid)

    def latents(self, window: Window, spec: LatentSpec) -> tuple[np.ndarray, "PositionBuilder"]:
        """Ids of one block's latents under `spec.positions`; without media they stand as text does."""
        places = latent_places(window, spec)
        if spec.positions is PositionVariant.UPSTREAM:
            ids = np.array([self._upstream(i, spec) for i in range(len(places))], dtype=np.int64).T
            return ids, replace(self, next_id=self.next_id + len(places))
        if spec.positions is PositionVariant.SEQUENTIAL or self.media_start is None:
            return self.text(len(places))
        relative = spec.positions is PositionVariant.RELATIVE
        base, origin_s = (self.next_id, window.start_s) if relative else (self.media_start, 0.0)
        ids = np.array([self._placed(p, base, origin_s, spec) for p in places], dtype=np.int64).T
        return ids, replace(self, next_id=max(self.next_id, int(ids.max()) + 1))

    def _placed(self, place: LatentPlace, base: int, origin_s: float, spec: LatentSpec) -> tuple[int, int, int]:
        t = base + position_offset(place.time_s - origin_s)
        if place.cell is None:
            return t, t, t
        row, column = place.cell
        h = base + (2 * row + 1) * self.grid[0] // (2 * spec.rows)
        w = base + (2 * column + 1) * self.grid[1] // (2 * spec.columns)
        return t, h, w

    def _upstream(self, index: int, spec: LatentSpec) -> tuple[int, int, int]:
        if index < spec.n_visual:
            return (self.next_id + index,) * 3
        return self.next_id + _UPSTREAM_AUDIO_STRIDE * (index - spec.n_visual), 0, 0
