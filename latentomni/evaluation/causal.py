"""Do the latents matter? The causal arms on any checkpoint and data: change an answer's latents, let it answer again, compare.

Dimensions: S blocks of an answer, K latents per block, N blocks of all answers, D hidden.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from latentomni.anchors import anchors_over, pool_anchors
from latentomni.attention_flow import Kind
from latentomni.clock import Window
from latentomni.config import Mode, SamplingSpec
from latentomni.evaluation.cases import Case
from latentomni.events import Finished, LatentClosed
from latentomni.evidence import collapse
from latentomni.generation import generate, read_prefix, score
from latentomni.interventions import Arm, Material, black_out, intervene, other_window, reopen
from latentomni.modeling import Thinker
from latentomni.prefix import Prefix
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import Sequence

__all__ = ["COLLAPSE_MEASURES", "drop_interval", "evaluate_causal", "mcnemar_p"]

COLLAPSE_MEASURES = ("between_clip_variance", "segment_retrieval_top1", "raw_cosine", "effective_rank")  # fields of evidence.Collapse
_BATCH = 24
_MIN_GAIN = 0.2
_RESAMPLES = 10_000
_MAX_CLIPS = 100


@dataclass(eq=False)
class _Run:
    """A finished answer. row: as generation left it. held: its words up to the last block, which no arm changes.
    donor: number of the run whose latents it is given under `other_clip`. material: None without a block."""

    case: Case
    row: Sequence
    text: str
    held: str
    material: Material | None = None
    donor: int | None = None

    @property
    def latents(self) -> torch.Tensor:
        """(S, K, D) on the CPU."""
        return torch.stack(self.row.latents).view(len(self.row.windows), self.row.spec.n_latents, -1).cpu()


@dataclass(frozen=True)
class _Outcome:
    """What was said under an arm. log_p: of the true closing, behind the last block."""

    text: str
    answer: str | None
    right: bool
    log_p: float


def evaluate_causal(thinker: Thinker, cases: list[Case], sampling: SamplingSpec, seed: int = 0, progress: Callable = lambda items, _: items,
                    *, arms: tuple[Arm, ...] = tuple(Arm), moves_input: bool = True) -> dict:  # fmt: skip
    """The arms over `cases`; keys as in the command line's contract. `seed` decides donors, noise, orders and control windows.
    arms: with those that the summary is made of (intact, mean, another clip, and both of the markers). moves_input: whether the
    cited window is blacked out, too, for which clips are read and encoded again.

    Every arm is compared with the intact answers to the same cases: those where it is defined (another clip needs a donor,
    the oracle a true window). An answer without a block has nothing to change and counts as unchanged.
    """
    runs = list(_answer_all(thinker, cases, sampling, progress))
    _gather_material(thinker, runs, np.random.default_rng(seed))
    outcomes = _try_arms(thinker, runs, arms, sampling, seed, progress)
    compared = {arm: _compare(outcomes[Arm.INTACT], outcomes[arm]) for arm in arms}
    return {
        "n": len(runs),
        "clips": len({case.clip for case in cases}),
        "flow": str(thinker.spec.flow),
        "positions": str(thinker.spec.positions),
        "with_block": _mean(bool(run.row.windows) for run in runs),
        "intact_repeats": _mean(said.text.startswith(run.text) for said, run in zip(outcomes[Arm.INTACT], runs, strict=True)),
        "arms": {str(arm): scores for arm, scores in compared.items()},
        "follows_donor": _follows_donor(runs, outcomes[Arm.OTHER_CLIP]),
        "follows_donor_control": _follows_donor(runs, outcomes[Arm.MEAN]),
        "marker_only_share": _marker_only_share(*(compared[a]["accuracy"] for a in (Arm.INTACT, Arm.REMOVED_MARKERS_KEPT, Arm.MARKERS_REMOVED))),
        **_collapse(runs),
    } | ({"input_side": _input_side(thinker, _one_a_clip(runs)[:_MAX_CLIPS], np.random.default_rng([seed, 1]), progress)} if moves_input else {})


def _answer_all(thinker: Thinker, cases: list[Case], sampling: SamplingSpec, progress: Callable) -> Iterator[_Run]:
    for start in progress(range(0, len(cases), _BATCH), "answers"):
        chunk = cases[start : start + _BATCH]
        rows = [new_sequence(case.features, thinker.spec, thinker.ids, thinker.cached_text) for case in chunk]
        for row, case in zip(rows, chunk, strict=True):
            add_question(row, case.question, Mode.LATENT, thinker.cached_text)
        prompts = [len(row) for row in rows]
        for case, row, prompt, text in zip(chunk, rows, prompts, _write(thinker, rows, sampling), strict=True):
            yield _Run(case, row, text, _held(thinker, row, prompt))


def _write(thinker: Thinker, rows: list[Sequence], sampling: SamplingSpec, prefix: Prefix | None = None) -> list[str]:
    """The rest of each row's answer."""
    texts = [""] * len(rows)
    for b, event in generate(thinker, rows, [Mode.LATENT] * len(rows), sampling, prefix=prefix):
        if isinstance(event, Finished):
            texts[b] = event.answer
    return texts


def _held(thinker: Thinker, row: Sequence, prompt: int) -> str:
    parts: list[list[int]] = [[]]
    for token, kind in zip(row.token_ids[prompt:], row.kinds[prompt:], strict=True):
        if token == row.ids.close:
            parts.append([])
        elif kind == Kind.TEXT:
            parts[-1].append(token)
    return " ".join(thinker.tokenizer.decode(part, skip_special_tokens=True).strip() for part in parts[:-1])


def _gather_material(thinker: Thinker, runs: list[_Run], rng: np.random.Generator) -> None:
    """Give every run with a block what the arms need."""
    whole = [run for run in runs if run.row.windows]
    if not whole:
        return
    bank = torch.cat([run.latents.float() for run in whole])
    pad = thinker.embed(torch.tensor(thinker.ids.latent_pad, device=thinker.device))
    for run in whole:
        run.donor = _choose_donor(runs, run, rng)
        cited, true = run.row.windows, run.case.windows
        avoid, duration_s = [*cited, *true], run.case.features.duration_s
        others = [other_window(window, duration_s, avoid, rng) for window in cited]
        run.material = Material(
            bank, pad,
            donor=None if run.donor is None else runs[run.donor].latents,
            other_time=None if None in others else _anchors(run, others),
            oracle=_anchors(run, true) if len(true) == len(cited) else None,
        )  # fmt: skip


def _choose_donor(runs: list[_Run], run: _Run, rng: np.random.Generator) -> int | None:
    """A run about another clip, of the same family and number of blocks, whose true answer is another one and possible
    here; one that was asked the same question where there is one, so that its answer is what these latents should say."""
    case = run.case
    fits = [
        j for j, other in enumerate(runs)
        if other.case.clip != case.clip and other.case.family == case.family and len(other.row.windows) == len(run.row.windows)
        and other.case.answer != case.answer and (not case.candidates or other.case.answer in case.candidates)
    ]  # fmt: skip
    alike = [j for j in fits if runs[j].case.question == case.question]
    return int(rng.choice(alike or fits)) if fits else None


def _anchors(run: _Run, windows: Iterable[Window]) -> torch.Tensor:
    return anchors_over(run.latents, run.case.features, windows, run.row.spec)


def _try_arms(thinker: Thinker, runs: list[_Run], arms: tuple[Arm, ...], sampling: SamplingSpec, seed: int,
              progress: Callable) -> dict[Arm, list[_Outcome | None]]:  # fmt: skip
    """What each run says under each arm; None where the arm is undefined for it. What precedes the first block is read once
    for all arms."""
    unchanged = [None if run.row.windows else _judged(run, run.text, 0.0) for run in runs]
    outcomes = {arm: list(unchanged) for arm in arms}
    whole = [i for i, run in enumerate(runs) if run.row.windows]
    sampling = replace(sampling, max_blocks=0)
    for start in progress(range(0, len(whole), _BATCH), "arms"):
        chunk = whole[start : start + _BATCH]
        rows = [runs[i].row for i in chunk]
        prefix = read_prefix(thinker, rows, [row.kinds.index(Kind.TRIGGER) - 1 for row in rows])  # one token is left to go on from
        closings = [thinker.cached_text(runs[i].case.closing) for i in chunk]
        for arm in arms:
            changed = [_changed(runs[i], arm, [seed, i]) for i in chunk]
            scores = score(thinker, [copy for copy, _ in changed], closings, prefix)
            texts = _write(thinker, [_changed(runs[i], arm, [seed, i])[0] for i in chunk], sampling, prefix)
            for i, (_, defined), text, log_p in zip(chunk, changed, texts, scores, strict=True):
                outcomes[arm][i] = _judged(runs[i], f"{runs[i].held} {text}".strip(), log_p) if defined else None
    return outcomes


def _changed(run: _Run, arm: Arm, seed: list[int]) -> tuple[Sequence, bool]:
    """A fresh copy of the row under an arm; the intact one, to fill the batch, where the arm is undefined."""
    random = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**31)))
    row = intervene(run.row, arm, run.material, random)
    return (row, True) if row is not None else (intervene(run.row, Arm.INTACT, run.material, random), False)


def _judged(run: _Run, text: str, log_p: float) -> _Outcome:
    answer = run.case.parse(text)
    return _Outcome(text, answer, answer == run.case.answer, log_p)


def _compare(intact: list[_Outcome | None], changed: list[_Outcome | None]) -> dict:
    """An arm against the intact answers to the cases where it is defined."""
    pairs = [(a, b) for a, b in zip(intact, changed, strict=True) if a is not None and b is not None]
    if not pairs:
        return dict.fromkeys(("accuracy", "drop", "interval", "p", "flips", "margin_change")) | {"n": 0}
    right, still = np.array([a.right for a, _ in pairs]), np.array([b.right for _, b in pairs])
    return {
        "accuracy": _rounded(still.mean()),
        "drop": _rounded(right.mean() - still.mean()),
        "interval": [_rounded(end) for end in drop_interval(right, still)],
        "p": mcnemar_p(int((right & ~still).sum()), int((~right & still).sum())),
        "flips": _mean(a.answer != b.answer for a, b in pairs),
        "margin_change": _mean(b.log_p - a.log_p for a, b in pairs),
        "n": len(pairs),
    }


def drop_interval(right: np.ndarray, still: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % paired bootstrap interval of the drop in accuracy from `right` to `still`, (n,) bool of the same cases.

    Only how many cases lose, keep and gain matters, so resampled cases are drawn as counts.
    """
    n, lost, gained = len(right), int((right & ~still).sum()), int((~right & still).sum())
    counts = np.random.default_rng(seed).multinomial(n, [lost / n, gained / n, (n - lost - gained) / n], _RESAMPLES)
    low, high = np.percentile((counts[:, 0] - counts[:, 1]) / n, [2.5, 97.5])
    return float(low), float(high)


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test: `lost` cases turned from right to wrong, `gained` from wrong to right."""
    n, fewer = lost + gained, min(lost, gained)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def _follows_donor(runs: list[_Run], outcomes: list[_Outcome | None]) -> float | None:
    """Share of answers that are the donor's true one."""
    given = [(runs[run.donor].case, said) for run, said in zip(runs, outcomes, strict=True) if run.donor is not None]
    return _mean(donor.parse(said.text) == donor.answer for donor, said in given)


def _marker_only_share(intact: float, kept: float, removed: float) -> float | None:
    """Share of what blocks bring that is there without any latent; undefined where they bring too little."""
    return _rounded((kept - removed) / (intact - removed)) if intact - removed >= _MIN_GAIN else None


def _one_a_clip(runs: list[_Run]) -> list[_Run]:
    return list({run.case.clip: run for run in reversed(runs) if run.row.windows}.values())[::-1]


def _collapse(runs: list[_Run]) -> dict[str, float | None]:
    """First blocks, one a clip; own true segment among those of (up to) 100 clips."""
    chosen = _one_a_clip(runs)
    if len(chosen) < 2:
        return dict.fromkeys(COLLAPSE_MEASURES)
    latents = torch.stack([run.latents[0] for run in chosen]).float().numpy()
    anchors = None
    if all(run.case.windows for run in chosen):
        pooled = [pool_anchors(run.case.features, run.case.windows[0], run.row.spec)[0] for run in chosen]
        anchors = torch.stack(pooled).float().numpy()
    measured = collapse(latents, anchors)
    return {name: _rounded(getattr(measured, name)) for name in COLLAPSE_MEASURES}


def _input_side(thinker: Thinker, runs: list[_Run], rng: np.random.Generator, progress: Callable) -> dict:
    """How far a first block's latents move (relative L2) when its cited window is made black and silent, and when another
    window of that length is."""
    moved: list[list[float]] = []
    for start in progress(range(0, len(runs), _BATCH), "input side"):
        rows, before = [], []
        for run in runs[start : start + _BATCH]:
            cited = run.row.windows[0]
            control = other_window(cited, run.case.features.duration_s, [*run.row.windows, *run.case.windows], rng)
            if control is not None:
                clip = run.case.read()
                rows += [reopen(run.row, 0, thinker.encode_clip(black_out(clip, window))) for window in (cited, control)]
                before += [run.latents[0].float()] * 2
        distances = [float((new - old).norm() / old.norm()) for new, old in zip(_recomputed(thinker, rows), before, strict=True)]
        moved += [list(pair) for pair in zip(distances[::2], distances[1::2], strict=True)]
    cited, control = zip(*moved, strict=True) if moved else ((), ())
    return {
        "cited": _mean(cited),
        "control": _mean(control),
        "cited_moves_more": _mean([c > other for c, other in moved]),
        "n": len(moved),
    }


def _recomputed(thinker: Thinker, rows: list[Sequence]) -> list[torch.Tensor]:
    """(K, D) latents of the block that each row ends inside of."""
    blocks, open_rows = [len(row.windows) for row in rows], set(range(len(rows)))
    if not rows:
        return []
    for b, event in generate(thinker, rows, [Mode.LATENT] * len(rows), SamplingSpec(max_blocks=0)):
        if isinstance(event, LatentClosed):
            open_rows.discard(b)
        if not open_rows:
            break
    k = thinker.spec.n_latents
    return [torch.stack(row.latents[n * k : (n + 1) * k]).float().cpu() for row, n in zip(rows, blocks, strict=True)]


def _mean(values: Iterable) -> float | None:
    values = list(values)
    return _rounded(np.mean(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
