"""Do latents point at the right moment? Rankings of a clip's moments by a block's latents, against the true window and cheaper guesses.

Dimensions: K latents of a modality in a block, T distinct times of a clip in it, L layers, Q steps of an answer, D hidden.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from latentomni.attention import MAX_TOKENS, AttentionRecord, attention_record
from latentomni.attention_flow import Kind
from latentomni.clip_evidence import Evidence
from latentomni.clock import Window
from latentomni.config import Mode, SamplingSpec
from latentomni.errors import require
from latentomni.evaluation.cases import Case
from latentomni.evidence import EvidenceBank
from latentomni.generation import generate, read_on
from latentomni.modeling import Thinker
from latentomni.processing import add_question, new_sequence
from latentomni.runtime import Runtime
from latentomni.sequence import Sequence
from latentomni.trace import Trace

__all__ = ["BASELINES", "Guesses", "Ranking", "evaluate_evidence"]

BASELINES = ("uniform", "centre", "question", "attention")
_BATCH = 24
_TOP = 5


@dataclass(frozen=True)
class Ranking:
    """Where the right moments stand: is_right (T,) of the moments, best first."""

    is_right: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, times_s: np.ndarray, window: Window) -> "Ranking":
        """scores: (T,), the higher the better; of equal ones the earlier moment goes first. times_s: (T, 2) starts and ends. A
        moment is right where its middle lies in the window."""
        inside = np.array([window.contains(float(middle)) for middle in times_s.mean(axis=1)], bool)
        return cls(inside[np.argsort(-scores, kind="stable")])

    def hit(self, top: int) -> float:
        return float(self.is_right[:top].any())

    @property
    def reciprocal_rank(self) -> float:
        return float(1 / (1 + self.is_right.argmax())) if self.is_right.any() else 0.0

    @classmethod
    def of_trace(cls, trace: Trace, modality: str, window: Window) -> "Ranking | None":
        """By the latents of all of a run's blocks: a time's score is that of the block whose latents are most similar to it, on average. None
        where the run has no such latents."""
        scored = [[z.scores for z in block.latents if z.modality == modality and z.scores is not None] for block in trace.blocks]
        blocks = [np.stack(scores) for scores in scored if scores]
        moments = trace.moments(modality)
        times_s = np.unique(np.stack([moments.start_s, moments.end_s], axis=1), axis=0)
        return cls.of(np.max([block.astype(np.float32).mean(0) for block in blocks], axis=0), times_s, window) if blocks else None

    def chance(self) -> dict[str, float]:
        """The same of a ranking at random, exactly: moments are drawn without putting them back."""
        n, right = len(self.is_right), int(self.is_right.sum())
        first = _first_at(n, right)  # (n,) how likely the first right one stands there
        return {"hit_at_1": float(first[:1].sum()), "hit_at_5": float(first[:_TOP].sum()), "mrr": float((first / np.arange(1, n + 1)).sum())}


def _first_at(n: int, right: int) -> np.ndarray:
    missed, chances = 1.0, np.zeros(n)
    for k in range(n):
        p = right / (n - k) if n - k >= right else 1.0
        chances[k], missed = missed * p, missed * (1 - p)
        if missed <= 0:
            break
    return chances


@dataclass
class _Told:
    """Figures of one modality, an entry a block."""

    rankings: list[Ranking] = field(default_factory=list)
    baselines: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in BASELINES})


def evaluate_evidence(runtime: Runtime, cases: list[Case], seed: int = 0, progress: Callable = lambda items, _: items) -> dict:
    """Answer every case whose windows are known and hold its blocks against them; keys as in the command line's contract.

    A block's moments are ranked by the mean score of its latents of a modality over time. Baselines guess a moment without latents:
    any one (uniform), the middle of the clip (centre), the one most similar to the question as the language model reads it
    (question), the one on which the attention of the block's latents falls most, over all layers and heads (attention; not of very long runs). A block that
    was due and not written is a miss of the latents, and of no baseline. Raises RequestError where no case has a window.
    """
    cases = [case for case in cases if case.windows]
    require(bool(cases), "The evidence of latents is held against true windows, and this data has none; give questions with segments.")
    told = {"visual": _Told(), "audio": _Told()}
    ious, due, written, right = [], 0, 0, 0
    for case, row, prompt, text in _answered(runtime.thinker, cases, seed, progress):
        due, written, right = due + len(case.windows), written + min(len(row.windows), len(case.windows)), right + (case.parse(text) == case.answer)
        ious += [own.iou(true) for own, true in zip(row.windows, case.windows, strict=False)]
        ious += [0.0] * max(len(case.windows) - len(row.windows), 0)
        _score(runtime, case, row, prompt, told)
    everything = _Told([r for t in told.values() for r in t.rankings], {n: [v for t in told.values() for v in t.baselines[n]] for n in BASELINES})
    return {"n": len(cases), "blocks": due, "blocks_written": written, "accuracy": right / len(cases), **_figures(everything),
            "window_iou": float(np.mean(ious)), "modalities": {name: _figures(t) for name, t in told.items() if t.rankings}}  # fmt: skip


def _answered(thinker: Thinker, cases: list[Case], seed: int, progress: Callable) -> Iterator[tuple[Case, Sequence, int, str]]:
    """Every case with its finished row, where in it the answer begins, and its text."""
    sampling = SamplingSpec(seed=seed, max_new_tokens=96, max_blocks=max(len(case.windows) for case in cases))
    for start in progress(range(0, len(cases), _BATCH), "answers"):
        chosen = cases[start : start + _BATCH]
        rows = [new_sequence(case.features, thinker.spec, thinker.ids, thinker.cached_text) for case in chosen]
        for case, row in zip(chosen, rows, strict=True):
            add_question(row, case.question, Mode.LATENT, thinker.cached_text)
        prompts, texts = [len(row) for row in rows], [""] * len(rows)
        for b, event in generate(thinker, rows, [Mode.LATENT] * len(rows), sampling):
            texts[b] = getattr(event, "answer", texts[b])
        yield from zip(chosen, rows, prompts, texts, strict=True)


def _score(runtime: Runtime, case: Case, row: Sequence, prompt: int, told: dict[str, _Told]) -> None:
    thinker, guesses = runtime.thinker, Guesses(runtime, row, prompt)
    latents = torch.stack(row.latents).float().cpu().numpy().reshape(len(row.windows), -1, thinker.hidden_size) if row.windows else []
    n_visual = thinker.spec.n_visual
    for number, window in enumerate(case.windows):
        for modality, slots in (("visual", slice(0, n_visual)), ("audio", slice(n_visual, None))):
            bank = guesses.banks[modality]
            present = thinker.spec.visual if modality == "visual" else thinker.spec.audio
            if not len(bank.times_s) or not present:
                continue
            times_s, kept = bank.times_s, told[modality]
            is_written = number < len(row.windows)
            scores = bank.by_time(bank.nearest(latents[number][slots])).mean(0) if is_written else None
            kept.rankings.append(Ranking.of(scores, times_s, window) if is_written else _missed(times_s, window))
            for name, value in guesses.hits(modality, window, [number] if is_written else []).items():
                kept.baselines[name].append(value)


class Guesses:
    """Moments that cheaper guesses than a run's latents name, by the names of BASELINES. row: the finished run, whose answer begins
    at `prompt`."""

    def __init__(self, runtime: Runtime, row: Sequence, prompt: int) -> None:
        self.banks, self._duration_s = Evidence(row.clip, runtime.donors).banks, row.clip.duration_s
        self._asked = _question_vector(runtime, row, prompt)
        self._attended = attention_record(runtime.thinker, row, prompt) if row.windows and len(row) <= MAX_TOKENS else None

    def hits(self, modality: str, window: Window, blocks: list[int]) -> dict[str, float]:
        """Whether the first moment of each is right; of uniform, how likely. blocks: those whose attention is asked, the best of them
        at each time; without any there is no such guess."""
        bank = self.banks[modality]
        times_s = bank.times_s
        found = {
            "uniform": Ranking.of(np.zeros(len(times_s)), times_s, window).chance()["hit_at_1"],
            "centre": Ranking.of(-abs(times_s.mean(axis=1) - self._duration_s / 2), times_s, window).hit(1),
            "question": Ranking.of(bank.by_time(bank.nearest(self._asked[None]))[0], times_s, window).hit(1),
        }
        if blocks and self._attended:
            fallen = np.max([_attention_over(self._attended, block, modality, bank) for block in blocks], axis=0)
            found["attention"] = Ranking.of(fallen, times_s, window).hit(1)
        return found


def _missed(times_s: np.ndarray, window: Window) -> Ranking:
    """The worst there can be: no moment is right first."""
    inside = Ranking.of(np.zeros(len(times_s)), times_s, window).is_right
    return Ranking(np.sort(inside))


@torch.no_grad()
def _question_vector(runtime: Runtime, row: Sequence, prompt: int) -> np.ndarray:
    """(D,) mean over the question's words of what the model would say as a latent behind each. The clip is not read again where it is kept."""
    before = row.up_to(prompt)
    prefix = runtime.opening([before])
    hidden = read_on(runtime.thinker, [before], prefix)[0]
    start = len(before) - len(hidden)
    kinds = zip(before.kinds[start:], before.turns[start:], strict=True)
    places = [i for i, (kind, turn) in enumerate(kinds) if kind == Kind.TEXT and turn == row.turn]
    return runtime.thinker.latent(hidden[places]).float().mean(0).cpu().numpy()


def _attention_over(record: AttentionRecord, block: int, modality: str, bank: EvidenceBank) -> np.ndarray:
    """(T,) attention of a block's latents on each time, mean over layers and latents."""
    steps = np.array([group == "latent" and b == block for group, b in zip(record.groups, record.blocks, strict=True)])
    fallen, spans = (record.frames, record.frame_spans_s) if modality == "visual" else (record.sounds, record.sound_spans_s)
    shares = fallen[:, steps].mean(axis=(0, 1))
    middles = spans.mean(axis=1)
    return np.array([shares[(middles >= start) & (middles < end)].sum() for start, end in bank.times_s])


def _figures(told: _Told) -> dict:
    chances = [ranking.chance() for ranking in told.rankings]
    return {
        "hit_at_1": _mean(r.hit(1) for r in told.rankings),
        "hit_at_5": _mean(r.hit(_TOP) for r in told.rankings),
        "mrr": _mean(r.reciprocal_rank for r in told.rankings),
        "baselines": {name: _mean(values) for name, values in told.baselines.items()},
        "chance": {name: _mean(c[name] for c in chances) for name in ("hit_at_1", "hit_at_5", "mrr")},
    }


def _mean(values) -> float | None:
    values = list(values)
    return round(float(np.mean(values)), 4) if values else None
