"""Do the two kinds of latent share a clock? Per instant, what they state and what they are most similar to.

Dimensions: R instants of all blocks, in order.
"""

from dataclasses import dataclass

import numpy as np

from latentomni.trace import Block, Latent, Trace

__all__ = ["SyncLane", "compute_sync"]


@dataclass(frozen=True, eq=False)
class SyncLane:
    """All times in seconds from clip start, NaN where there is none.

    block, instant: (R,). stated_s: (R, 2) of the visual, then of the audio latents (OSPE). evidence_s: (R, 2) the median
    middle of their best moments, of those that stand out from the null (of all without a null). gap_s: (R,) visual minus
    audio evidence. resolution_s: (R,) half the length of the longer of the two moments: a smaller gap means nothing.
    """

    block: np.ndarray
    instant: np.ndarray
    stated_s: np.ndarray
    evidence_s: np.ndarray
    resolution_s: np.ndarray

    @property
    def gap_s(self) -> np.ndarray:
        return self.evidence_s[:, 0] - self.evidence_s[:, 1]

    def median_gap_s(self, block: int) -> float | None:
        """The median over a block's instants that have a gap; None where no instant has one."""
        gaps = self.gap_s[(self.block == block) & np.isfinite(self.gap_s)]
        return float(np.median(gaps)) if len(gaps) else None


def compute_sync(trace: Trace) -> SyncLane:
    """The lane of a trace, of an unfinished one too."""
    rows = [
        (b, i, *_instant(block, i)) for b, block in enumerate(trace.blocks) for i in range(trace.spec["instants"])
    ]
    block, instant, stated_s, evidence_s, length_s = zip(*rows, strict=True) if rows else ((),) * 5
    return SyncLane(
        block=np.array(block, dtype=int),
        instant=np.array(instant, dtype=int),
        stated_s=np.array(stated_s, dtype=float).reshape(-1, 2),
        evidence_s=np.array(evidence_s, dtype=float).reshape(-1, 2),
        resolution_s=np.array(length_s, dtype=float).reshape(-1, 2).max(axis=1, initial=0) / 2,
    )


def _instant(block: Block, instant: int) -> tuple[list[float], list[float], list[float]]:
    """Stated time, evidence time and length of the moment, each of the visual and of the audio latents."""
    own = [[z for z in block.latents if (z.instant, z.modality) == (instant, name)] for name in ("visual", "audio")]
    stated_s = [latents[0].time_s if latents else np.nan for latents in own]
    best = [[z.matches[0] for z in latents if _counts(z)] for latents in own]
    evidence_s = [float(np.median([(m.start_s + m.end_s) / 2 for m in found])) if found else np.nan for found in best]
    length_s = [max((m.end_s - m.start_s for m in found), default=0.0) for found in best]
    return stated_s, evidence_s, length_s


def _counts(latent: Latent) -> bool:
    return bool(latent.matches) and latent.is_evidence is not False
