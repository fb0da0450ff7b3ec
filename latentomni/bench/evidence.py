"""How long evidence takes for a clip of ten minutes: scores, ranks and p-values of a whole block of 40 latents."""

import logging
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from latentomni.clip_evidence import audio_moments, visual_moments
from latentomni.clock import POSITIONS_PER_SECOND, SAMPLE_RATE_HZ, Window
from latentomni.config import LatentSpec, VideoSpec
from latentomni.events import ClipRecord, Finished, LatentClosed, LatentOpened, LatentStep, Match, Moments, Started
from latentomni.evidence import DonorBank, EvidenceBank, benjamini_hochberg
from latentomni.positions import latent_places
from latentomni.processing import resized_size
from latentomni.sequence import ClipFeatures
from latentomni.trace import Trace

__all__ = ["bench_evidence"]

_DONORS = 199
_SPEC = LatentSpec()
_NANO = (256, VideoSpec(max_pixels=56 * 56, max_frames=1200))  # of ten minutes, no frame left out
_WIDE = (3584, VideoSpec())
_log = logging.getLogger(__name__)


class _Case:
    """Random latents and a random clip, with banks and nulls built; what building took is kept apart.

    has_donors: without them there is no null and no correction of hubs.
    """

    def __init__(self, visual: Moments, audio: Moments, seed: int, *, has_donors: bool) -> None:
        rng, width = np.random.default_rng(seed), visual.features.shape[1]
        self.visual, self.audio = visual, audio
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

    def ours(self) -> tuple[list[tuple[Match, ...]], list[float]]:
        """Matches of a block and, with nulls, p-values; scores over time and corrected p-values are made on the way, as in a run."""
        matches: list[tuple[Match, ...]] = []
        for slots, bank in self.parts():
            scores = bank.nearest(self.latents[slots.start : slots.stop])
            matches += [bank.ranked(row) for row in scores]
            bank.by_time(scores)
        p = [null.p(found[0].score) for null, found in zip(self.nulls, matches, strict=False)]
        benjamini_hochberg(p)
        return matches, p

    def peer(self) -> Callable[[], tuple[list[np.ndarray], list[float]]]:
        """The same by a loop over latents in plain numpy, on moments scaled to length one beforehand: the five best
        scores and p, from what the formulas of `evidence` say."""
        ready = [(slots, *_scaled(moments, self.background(m))) for (slots, _), (m, moments) in
                 zip(self.parts(), (("visual", self.visual), ("audio", self.audio)), strict=True)]  # fmt: skip

        def run() -> tuple[list[np.ndarray], list[float]]:
            best, p = [], []
            for slots, units, centre, scale in ready:
                for slot in slots:
                    unit = (self.latents[slot] - centre) / np.linalg.norm(self.latents[slot] - centre)
                    scores = 1 - (1 - units @ unit) * scale
                    best.append(np.sort(scores)[:-6:-1])
                    if self.nulls:
                        p.append((1 + int((self.nulls[slot].statistics >= scores.max()).sum())) / (1 + _DONORS))
            return best, p

        return run


def bench_evidence(repeats: int = 9, seed: int = 0, draw: Callable[[Trace], Any] | None = None, duration_s: int = 600) -> dict[str, Any]:
    """Median seconds for 40 latents of a long clip beside a plain loop, in turns, at the width of nano and of the 7B layout.

    `draw`: makes the timeline figure of a trace; it is timed once it has drawn one.
    """
    features = _features(*_NANO, seed, duration_s)
    every = (visual_moments(features), _every_token(features))
    nano = _compared(_Case(*every, seed, has_donors=True), repeats)
    wide_features = _features(*_WIDE, seed, duration_s)
    moments = (visual_moments(wide_features), audio_moments(wide_features))
    del wide_features  # 1.6 GB
    wide = _compared(_Case(*moments, seed, has_donors=False), repeats)
    figures: dict[str, Any] = {**nano, "wide": wide, "threads": os.environ.get("OMP_NUM_THREADS"), "repeats": repeats}
    if draw is not None:
        trace = _trace(_Case(*every, seed, has_donors=False), duration_s)
        figures["timeline_figure_s"] = statistics.median([_seconds(lambda: draw(trace)) for _ in range(repeats + 1)][1:])
    return figures


def _compared(case: _Case, repeats: int) -> dict[str, Any]:
    peer = case.peer()
    _check(case.ours(), peer())
    ours_s, peer_s, cpu_s = [], [], []
    for repeat in range(repeats):
        busy_s = time.process_time()
        ours_s.append(_seconds(case.ours))
        cpu_s.append(time.process_time() - busy_s)
        peer_s.append(_seconds(peer))
        _log.info("evidence %d/%d: ours %.4f s, peer %.4f s", repeat + 1, repeats, ours_s[-1], peer_s[-1])
    ours, theirs = statistics.median(ours_s), statistics.median(peer_s)
    n_visual, n_audio, width = len(case.visual.features), len(case.audio.features), case.latents.shape[1]
    null = f"p against {_DONORS} donors a slot" if case.nulls else "ranks without a null"
    return {
        "ours": ours,
        "peer": theirs,
        "ratio": ours / theirs,
        "fastest_s": min(ours_s),
        "cpu_s": statistics.median(cpu_s),  # of all cores together; what is left to trust where others use them too
        "bank_s": case.bank_s,
        "nulls_s": case.nulls_s if case.nulls else None,
        "shape": f"{case.audio.end_s[-1]:.0f} s; {_SPEC.n_visual} visual latents against {n_visual} moments, {_SPEC.n_audio} audio latents against "
        f"{n_audio}, width {width}, {null}; peer: a loop in plain numpy",
    }  # fmt: skip


def _check(ours: tuple, peer: tuple) -> None:
    """The same scores, and the same p but for a donor whose score is the latent's own to the last digit."""
    scores = [[m.score for m in found] for found in ours[0]]
    np.testing.assert_allclose(scores, peer[0], atol=1e-5, err_msg="ours and the plain loop disagree about scores")
    np.testing.assert_allclose(ours[1], peer[1], atol=1.5 / (1 + _DONORS), err_msg="ours and the plain loop disagree about p")


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


def _features(width: int, video: VideoSpec, seed: int, duration_s: int) -> ClipFeatures:
    """Random features of a clip, laid out as the towers lay them."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = (side // video.factor_px for side in resized_size(448, 448, video))
    times = math.ceil(min(round(duration_s * video.fps), video.max_frames) / video.temporal_patch)
    edges_s, n_audio = np.linspace(0, duration_s, times + 1), duration_s * POSITIONS_PER_SECOND
    visual, audio = (torch.randn(n, width, generator=random) for n in (times * rows * columns, n_audio))
    return ClipFeatures(visual, edges_s[:-1], edges_s[1:], (rows, columns), audio, np.arange(n_audio) / POSITIONS_PER_SECOND, duration_s)


def _every_token(features: ClipFeatures) -> Moments:
    """The sound unaveraged."""
    start_s = features.audio_times_s
    cells = np.tile([0.0, 0.0, 1.0, 1.0], (len(start_s), 1))
    return Moments(start_s, start_s + 1 / POSITIONS_PER_SECOND, cells, features.audio.numpy())


def _trace(case: _Case, duration_s: int) -> Trace:
    """The trace of one block about the clip, with its sound."""
    sound = (np.sin(np.arange(duration_s * SAMPLE_RATE_HZ) / 20) * 9000).astype(np.int16)
    clip = ClipRecord("ten minutes", "0" * 64, float(duration_s), (), np.zeros(0), sound)
    window = Window(2.0, 4.0)
    events: list[Any] = [Started("?", "latent", "strict", "random", "random", _SPEC.to_dict(), {}, clip, case.visual, case.audio, 0, False)]
    events.append(LatentOpened(0, window, "model", 0.0))
    for k, (place, vector, found) in enumerate(zip(latent_places(window, _SPEC), case.latents, case.ours()[0], strict=True)):
        events.append(LatentStep(0, k, place.modality, place.instant, place.cell, place.time_s, vector, found))
    return Trace.from_events([*events, LatentClosed(0, None, 0.0), Finished("stop", "", 1, 0.0, 0.0)])


def _seconds(run: Callable[[], Any]) -> float:
    begun_s = time.perf_counter()
    run()
    return time.perf_counter() - begun_s
