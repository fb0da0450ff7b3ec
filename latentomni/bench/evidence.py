"""How long evidence takes for a clip of ten minutes: scores, ranks and p-values of a whole block of 40 latents."""

import logging
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from latentomni.clock import POSITIONS_PER_SECOND, SAMPLE_RATE_HZ, Window
from latentomni.config import LatentSpec, VideoSpec
from latentomni.events import ClipRecord, Finished, LatentClosed, LatentOpened, LatentStep, Match, Moments, Started
from latentomni.evidence import DonorBank, EvidenceBank, benjamini_hochberg
from latentomni.positions import latent_places
from latentomni.processing import resized_size
from latentomni.trace import Trace

__all__ = ["bench_evidence"]

_DURATION_S, _DONORS, _AUDIO_MOMENT_S = 600, 199, 0.5
_SPEC = LatentSpec()
_NANO = {"width": 256, "video": VideoSpec(max_pixels=56 * 56, max_frames=_DURATION_S * 2), "sounds_hz": POSITIONS_PER_SECOND}
_WIDE = {"width": 3584, "video": VideoSpec(), "sounds_hz": 1 / _AUDIO_MOMENT_S}
_log = logging.getLogger(__name__)


class _Case:
    """Random latents and a random clip of one width, with banks and nulls built; what building took is kept apart.

    has_donors: without them there is no null and no correction of hubs.
    """

    def __init__(self, width: int, video: VideoSpec, sounds_hz: float, seed: int, *, has_donors: bool) -> None:
        rng = np.random.default_rng(seed)
        self.visual, self.audio = _visual_moments(rng, width, video), _audio_moments(rng, width, sounds_hz)
        self.latents = rng.standard_normal((_SPEC.n_latents, width), dtype=np.float32)
        drawn = rng.standard_normal((_SPEC.n_latents, _DONORS, width), dtype=np.float32) if has_donors else None
        self.donors = None if drawn is None else DonorBank(drawn, _SPEC.n_visual)
        begun_s = time.perf_counter()
        self.banks = [(m, EvidenceBank(x, self.background(m))) for m, x in (("visual", self.visual), ("audio", self.audio))]
        self.bank_s, begun_s = time.perf_counter() - begun_s, time.perf_counter()
        self.nulls = [self.donors.null(bank, slot) for slots, bank in self.parts() for slot in slots] if has_donors else []
        self.nulls_s = time.perf_counter() - begun_s

    def background(self, modality: str) -> np.ndarray | None:
        return None if self.donors is None else self.donors.background(modality)

    def parts(self) -> list[tuple[range, EvidenceBank]]:
        (_, visual), (_, audio) = self.banks
        return [(range(_SPEC.n_visual), visual), (range(_SPEC.n_visual, _SPEC.n_latents), audio)]

    def ours(self) -> tuple[list[tuple[Match, ...]], list[np.ndarray], np.ndarray]:
        """Matches, scores over time, and corrected p-values (none without nulls) of a block."""
        matches, by_time = [], []
        for slots, bank in self.parts():
            scores = bank.nearest(self.latents[slots.start : slots.stop])
            matches += [bank.ranked(row) for row in scores]
            by_time += list(bank.by_time(scores))
        return matches, by_time, benjamini_hochberg([null.p(found[0].score) for null, found in zip(self.nulls, matches, strict=False)])

    def peer(self) -> Callable[[], tuple[list[np.ndarray], list[float]]]:
        """The same by a loop over latents in plain numpy, on moments scaled to length one beforehand: the five best
        moments' numbers and p, from what the formulas of `evidence` say."""
        ready = [(slots, *_scaled(moments, self.background(m))) for (slots, _), (m, moments) in
                 zip(self.parts(), (("visual", self.visual), ("audio", self.audio)), strict=True)]  # fmt: skip

        def run() -> tuple[list[np.ndarray], list[float]]:
            best, p = [], []
            for slots, units, centre, scale in ready:
                for slot in slots:
                    unit = (self.latents[slot] - centre) / np.linalg.norm(self.latents[slot] - centre)
                    scores = 1 - (1 - units @ unit) * scale
                    best.append(np.argsort(-scores, kind="stable")[:5])
                    if self.nulls:
                        p.append((1 + int((self.nulls[slot].statistics >= scores.max()).sum())) / (1 + _DONORS))
            return best, p

        return run


def bench_evidence(repeats: int = 9, seed: int = 0, draw: Callable[[Trace], Any] | None = None) -> dict[str, Any]:
    """Median seconds for 40 latents of a ten-minute clip beside a plain loop, in turns, at the width of nano and of the 7B layout.

    `draw`: makes the timeline figure of a trace; it is timed once it has drawn one.
    """
    nano = _compared(_Case(**_NANO, seed=seed, has_donors=True), repeats)
    wide = _compared(_Case(**_WIDE, seed=seed, has_donors=False), max(repeats // 3, 1))
    figures: dict[str, Any] = {**nano, "wide": wide, "threads": os.environ.get("OMP_NUM_THREADS"), "repeats": repeats}
    if draw is not None:
        trace = _trace(_Case(**_NANO, seed=seed, has_donors=False))
        figures["timeline_figure_s"] = statistics.median([_seconds(lambda: draw(trace))[0] for _ in range(repeats + 1)][1:])
    return figures


def _compared(case: _Case, repeats: int) -> dict[str, Any]:
    peer = case.peer()
    _check(case, case.ours(), peer())
    ours_s, peer_s = [], []
    for repeat in range(repeats):
        ours_s.append(_seconds(case.ours)[0])
        peer_s.append(_seconds(peer)[0])
        _log.info("evidence %d/%d: ours %.4f s, peer %.4f s", repeat + 1, repeats, ours_s[-1], peer_s[-1])
    ours, theirs = statistics.median(ours_s), statistics.median(peer_s)
    n_visual, n_audio, width = len(case.visual.features), len(case.audio.features), case.latents.shape[1]
    null = f"p against {_DONORS} donors a slot" if case.nulls else "ranks without a null"
    return {
        "ours": ours,
        "peer": theirs,
        "ratio": ours / theirs,
        "fastest_s": min(ours_s),
        "bank_s": case.bank_s,
        "nulls_s": case.nulls_s if case.nulls else None,
        "shape": f"{_DURATION_S} s; {_SPEC.n_visual} visual latents against {n_visual} moments, {_SPEC.n_audio} audio latents against "
        f"{n_audio}, width {width}, {null}; peer: a loop in plain numpy",
    }  # fmt: skip


def _check(case: _Case, ours: tuple, peer: tuple) -> None:
    """Equal work: the same moments in the same order, the same p-values."""
    matches, _, corrected = ours
    best, p = peer
    for found, expected in zip(matches, best, strict=True):
        assert [m.moment for m in found] == expected.tolist(), "ours and the plain loop rank other moments"
    np.testing.assert_allclose(corrected, benjamini_hochberg(p), err_msg="ours and the plain loop disagree about p")


def _scaled(moments: Moments, background: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit moments, their centre, and each moment's hub factor, from the formulas, without chunks."""
    centre = (moments.features if background is None else background).mean(axis=0)
    units = moments.features - centre
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    if background is None:
        return units, centre, np.ones(len(units), np.float32)
    others = background - centre
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    near = 1 - np.sort(units @ others.T, axis=1)[:, -10:].mean(axis=1)
    return units, centre, (near.mean() / near).clip(0.5, 2.0).astype(np.float32)


def _visual_moments(rng: np.random.Generator, width: int, video: VideoSpec) -> Moments:
    """As the runtime makes them: one per temporal patch and grid cell."""
    height_px, width_px = resized_size(720, 1280, video)
    rows, columns = height_px // video.factor_px, width_px // video.factor_px
    frames = min(round(_DURATION_S * video.fps), video.max_frames)
    times = math.ceil(frames / video.temporal_patch)
    edges = np.linspace(0, _DURATION_S, times + 1)
    r, c = np.divmod(np.arange(rows * columns), columns)
    cells = np.stack([r / rows, c / columns, (r + 1) / rows, (c + 1) / columns], axis=1)
    start_s, end_s = (np.repeat(e, len(cells)) for e in (edges[:-1], edges[1:]))
    return Moments(start_s, end_s, np.tile(cells, (times, 1)), rng.standard_normal((times * len(cells), width), dtype=np.float32))


def _audio_moments(rng: np.random.Generator, width: int, rate_hz: float) -> Moments:
    n = round(_DURATION_S * rate_hz)
    start_s = np.arange(n) / rate_hz
    cells = np.tile([0.0, 0.0, 1.0, 1.0], (n, 1))
    return Moments(start_s, start_s + 1 / rate_hz, cells, rng.standard_normal((n, width), dtype=np.float32))


def _trace(case: _Case) -> Trace:
    """The trace of one block about the clip, with its sound."""
    sound = (np.sin(np.arange(_DURATION_S * SAMPLE_RATE_HZ) / 20) * 9000).astype(np.int16)
    clip = ClipRecord("ten minutes", "0" * 64, float(_DURATION_S), (), np.zeros(0), sound)
    window = Window(2.0, 4.0)
    events: list[Any] = [Started("?", "latent", "strict", "random", "random", _SPEC.to_dict(), {}, clip, case.visual, case.audio, 0, False)]
    events.append(LatentOpened(0, window, "model", 0.0))
    for k, (place, vector, found) in enumerate(zip(latent_places(window, _SPEC), case.latents, case.ours()[0], strict=True)):
        events.append(LatentStep(0, k, place.modality, place.instant, place.cell, place.time_s, vector, found))
    return Trace.from_events([*events, LatentClosed(0, None, 0.0), Finished("stop", "", 1, 0.0, 0.0)])


def _seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    begun_s = time.perf_counter()
    result = run()
    return time.perf_counter() - begun_s, result
