"""What an arm is scored on: both sets of questions, cost, attention, evidence, and whether its latents matter."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from latentomni.anchors import pool_anchors
from latentomni.answering import Answer, answer_batches
from latentomni.attention import attention_shares
from latentomni.avworld import heldout_questions, parse_answer, world_clip
from latentomni.avworld.nuances import Nuance, heldout_nuances
from latentomni.avworld.questions import Question
from latentomni.clip_evidence import Evidence
from latentomni.config import Mode, SamplingSpec
from latentomni.evaluation.cases import Case, avworld_case
from latentomni.evaluation.causal import evaluate_causal
from latentomni.evidence import block_moment
from latentomni.generation import generate
from latentomni.interventions import Arm
from latentomni.modeling import Thinker
from latentomni.processing import add_question, new_sequence
from latentomni.study.arms import StudyArm

__all__ = ["ScoreSpec", "question_sets", "score_arm", "score_start"]

_TRIED = (Arm.INTACT, Arm.MEAN, Arm.OTHER_CLIP, Arm.REMOVED_MARKERS_KEPT, Arm.MARKERS_REMOVED)
_SAMPLING = SamplingSpec(max_new_tokens=160, max_blocks=2)  # the longest true answer in words has 96

Set = list[tuple[Case, Question]]


@dataclass(frozen=True)
class ScoreSpec:
    """Questions of each set: answered, with their latents changed, and with their attention looked at. seed: of the first clip of the easy
    set; the hard one's are 10,000 further on. Nothing of the recipe was chosen by these clips."""

    answered: int = 160
    changed: int = 64
    watched: int = 12
    seed: int = 60_000


def question_sets(thinker: Thinker, spec: ScoreSpec, progress: Callable) -> dict[str, Set]:
    """The two held-out sets with their clips encoded once for all arms, whose towers are the same."""
    sets: dict[str, Set] = {}
    for name, drawn in (("easy", heldout_questions(spec.answered, spec.seed)), ("hard", heldout_nuances(spec.answered, spec.seed + 10_000))):
        read = {w.name: partial(world_clip, w) for w, _ in drawn}
        features = {clip: thinker.encode_clip(make()) for clip, make in progress(list(read.items()), f"{name} clips")}
        sets[name] = [(avworld_case(w, q, features[w.name], read[w.name]), q) for w, q in drawn]
    return sets


def score_start(thinker: Thinker, sets: dict[str, Set]) -> dict[str, dict[str, Any]]:
    """Before any arm has learned: `accuracy` in every mode on each set, and of each set what its latents `explained`."""
    told = {mode: {name: _told(thinker, mode, asked) for name, asked in sets.items()} for mode in Mode}
    accuracy = {str(mode): {name: round(float(np.mean(_right(sets[name], answers))), 4) for name, answers in by_set.items()} for mode, by_set in told.items()}
    return {"accuracy": accuracy, "explained": {name: _explained(thinker, sets[name], answers) for name, answers in told[Mode.LATENT].items()}}


def score_arm(thinker: Thinker, arm: StudyArm, sets: dict[str, Set], spec: ScoreSpec) -> dict[str, Any]:
    """Scores of each set. right: a 1 or 0 per question, in their fixed order, so that arms can be compared in pairs."""
    return {"sets": {name: _score_set(thinker, arm, asked, spec) for name, asked in sets.items()}}


def _score_set(thinker: Thinker, arm: StudyArm, asked: Set, spec: ScoreSpec) -> dict[str, Any]:
    began = time.perf_counter()
    told = _told(thinker, arm.mode, asked)
    seconds = time.perf_counter() - began
    right = _right(asked, told)
    scores = {
        "clips": [case.clip for case, _ in asked],
        "families": [q.family for _, q in asked],
        "differences": [round(q.difference, 4) for _, q in asked if isinstance(q, Nuance)],
        "right": "".join(str(int(r)) for r in right),
        "accuracy": round(float(np.mean(right)), 4),
        "unparsed": round(float(np.mean([parse_answer(q.family, a.text) is None for (_, q), a in zip(asked, told, strict=True)])), 4),
        "decoder_steps": round(float(np.mean([a.steps for a in told])), 2),
        "seconds_per_answer": round(seconds / len(asked), 4),
        "attention": _attention(thinker, arm, asked[:: max(1, len(asked) // spec.watched)]),
    }
    if arm.mode is not Mode.LATENT:
        return scores
    causal = evaluate_causal(thinker, [case for case, _ in asked[: spec.changed]], _SAMPLING, arms=_TRIED, moves_input=False)
    kept = ("arms", "follows_donor", "follows_donor_control", "marker_only_share", "between_clip_variance", "effective_rank")
    return scores | {"window_iou": _window_iou(asked, told), "evidence": _evidence(thinker, asked, told), "explained": _explained(thinker, asked, told),
                     "causal": {k: causal[k] for k in kept}}


def _told(thinker: Thinker, mode: Mode, asked: Set) -> list[Answer]:
    return list(answer_batches(thinker, [(case.features, q.text) for case, q in asked], mode, max_new_tokens=_SAMPLING.max_new_tokens))


def _right(asked: Set, told: list[Answer]) -> list[bool]:
    return [parse_answer(q.family, a.text) == q.answer for (_, q), a in zip(asked, told, strict=True)]


def _window_iou(asked: Set, told: list[Answer]) -> float:
    return round(float(np.mean([q.window_iou(a.windows) for (_, q), a in zip(asked, told, strict=True)])), 4)


def _evidence(thinker: Thinker, asked: Set, told: list[Answer]) -> dict[str, float | None]:
    """Share of blocks most of whose latents of a modality are most similar to a moment in the true window."""
    k = thinker.spec.n_latents
    banks = {case.clip: Evidence(case.features, None) for case, _ in asked}
    hits: dict[str, list[bool]] = {"visual": [], "audio": []}
    for (case, question), answer in zip(asked, told, strict=True):
        for n, window in enumerate(question.windows[: len(answer.windows)]):
            steps = [banks[case.clip].of(step) for step in answer.latents[n * k : (n + 1) * k]]
            for modality, found in hits.items():
                span = block_moment([s.matches for s in steps if s.modality == modality])
                found.append(span is not None and window.contains((span[0] + span[1]) / 2))
    present = {"visual": thinker.spec.visual, "audio": thinker.spec.audio}
    return {m: round(float(np.mean(found)), 4) if found and present[m] else None for m, found in hits.items()}


def _explained(thinker: Thinker, asked: Set, told: list[Answer]) -> dict[str, float | None]:
    """Share of the variance of the anchors of an answer's own windows that its latents explain; below 0 they are further from them than a slot's
    mean is. High under anchors says little: all latents but a block's first may then be guessed from those before them (docs/LOG.md, item 58)."""
    spec, k = thinker.spec, thinker.spec.n_latents
    own, true = [], []
    for (case, _), answer in zip(asked, told, strict=True):
        for n, window in enumerate(answer.windows[: len(answer.latents) // k]):
            own.append([step.vector for step in answer.latents[n * k : (n + 1) * k]])
            true.append(pool_anchors(case.features, window, spec)[0].float().numpy())
    if not own:
        return {"visual": None, "audio": None}
    anchors = np.stack(true)
    missed, spread = (((anchors - other) ** 2).sum((0, 2)) for other in (np.array(own), anchors.mean(0)))
    parts = {"visual": slice(spec.n_visual), "audio": slice(spec.n_visual, k)}
    return {m: round(float(1 - missed[part].sum() / spread[part].sum()), 4) if missed[part].size else None for m, part in parts.items()}


def _attention(thinker: Thinker, arm: StudyArm, asked: Set) -> dict[str, list[float]]:
    """(L,) means over the words of the answers: share on media, on latents, and what an even spread would give to media."""
    direct, via_latents, expected = [], [], []
    for case, question in asked:
        row = new_sequence(case.features, thinker.spec, thinker.ids, thinker.cached_text)
        add_question(row, question.text, arm.mode, thinker.cached_text)
        prompt = len(row)
        for _ in generate(thinker, [row], [arm.mode], _SAMPLING):
            pass
        told = attention_shares(thinker, row, prompt)
        words = ~told.is_latent
        direct.append(told.direct[:, words].mean(1))
        via_latents.append(told.via_latents[:, words].mean(1))
        expected.append(told.expected[words].mean())
    means = {"direct": np.mean(direct, 0), "via_latents": np.mean(via_latents, 0), "even": [np.mean(expected)]}
    return {name: [round(float(x), 4) for x in values] for name, values in means.items()}
