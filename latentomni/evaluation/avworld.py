"""The held-out AV World benchmark: a model's own windows and own latents, against enumerated chance and with a modality removed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from latentomni.answering import Answer, answer_batches
from latentomni.avworld import heldout_questions, parse_answer, world_clip
from latentomni.avworld.questions import FAMILIES, Question
from latentomni.avworld.selftest import moment_lies_in
from latentomni.clip_evidence import Evidence
from latentomni.clock import Window
from latentomni.config import AttentionFlow, Mode
from latentomni.events import LatentStep
from latentomni.evidence import benjamini_hochberg
from latentomni.runtime import Runtime
from latentomni.sequence import ClipFeatures

__all__ = ["evaluate_avworld"]

_CLIP_PX = 448


def evaluate_avworld(runtime: Runtime, n: int = 1000, seed: int | None = None, mode: Mode = Mode.LATENT, progress: Callable = lambda items, _: items) -> dict:
    """Score `n` held-out questions; keys as in the command line's contract. Unanswered counts as wrong."""
    drawn = heldout_questions(n) if seed is None else heldout_questions(n, seed)
    worlds = {w.name: w for w, _ in drawn}
    clips = {name: runtime.thinker.encode_clip(world_clip(w, _CLIP_PX)) for name, w in progress(list(worlds.items()), "clips")}
    questions = [q for _, q in drawn]
    features = [clips[w.name] for w, _ in drawn]
    answers = _answers(runtime, features, questions, mode, progress)
    silent = _answers(runtime, [f.only("visual") for f in features], questions, mode, progress)
    blind = _answers(runtime, [f.only("audio") for f in features], questions, mode, progress)
    blocks = [len(a.windows) for a in answers]
    return {
        "mode": str(mode),
        "flow": str(runtime.spec.flow if mode is Mode.LATENT else AttentionFlow.OPEN),
        "self_fed": mode is Mode.LATENT,
        "n": len(questions),
        "blocks_per_answer": round(float(np.mean(blocks)), 4),
        "least_blocks_per_answer": int(min(blocks)),
        "accuracy": _accuracy(questions, answers),
        "chance": _mean([q.chance for q in questions]),
        "families": {f: _family(f, questions, answers) for f in FAMILIES},
        "without_audio": {"accuracy": _accuracy(questions, silent), "chance": _mean([q.chance_picture for q in questions])},
        "without_video": {"accuracy": _accuracy(questions, blind), "chance": _mean([q.chance_sound for q in questions])},
        "window_iou": _mean([q.window_iou(a.windows) for q, a in zip(questions, answers, strict=True)]),
        "evidence": _evidence(runtime, features, questions, answers),
    }


def _answers(runtime: Runtime, features: list[ClipFeatures], questions: list[Question], mode: Mode, progress: Callable) -> list[Answer]:
    asked = [(f, q.text) for f, q in zip(features, questions, strict=True)]
    return list(progress(answer_batches(runtime.thinker, asked, mode), "answers"))


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def _right(question: Question, answer: Answer) -> bool:
    return parse_answer(question.family, answer.text) == question.answer


def _accuracy(questions: list[Question], answers: list[Answer]) -> float | None:
    return _mean([_right(q, a) for q, a in zip(questions, answers, strict=True)])


def _family(family: str, questions: list[Question], answers: list[Answer]) -> dict:
    pairs = [(q, a) for q, a in zip(questions, answers, strict=True) if q.family == family]
    return {"accuracy": _mean([_right(q, a) for q, a in pairs]), "chance": _mean([q.chance for q, _ in pairs]), "n": len(pairs)}


def _evidence(runtime: Runtime, features: list[ClipFeatures], questions: list[Question], answers: list[Answer]) -> dict | None:
    """Where the latents of every block find themselves in the whole clip: own latents, another clip's, random vectors.

    A hit: the moment most latents of a modality match best lies in the true window. Called evidence: corrected p <= 0.05.
    """
    k, rng = runtime.spec.n_latents, np.random.default_rng(0)
    blocks = [(i, window, answers[i].latents[n * k : (n + 1) * k])
              for i, q in enumerate(questions) for n, window in enumerate(q.windows) if n < len(answers[i].windows)]  # fmt: skip
    if not blocks:
        return None
    scores: dict[str, list[float]] = {}
    evidence: dict[int, Evidence] = {}
    for place, (i, window, own) in enumerate(blocks):
        bank = evidence.setdefault(id(features[i]), Evidence(features[i], runtime.donors))
        other = next((steps for j, _, steps in blocks[place + 1 :] + blocks if features[j] is not features[i]), [])
        noise = [replace(s, vector=rng.normal(size=s.vector.shape).astype(np.float32)) for s in own]
        for who, steps in (("own", own), ("other_clip", other), ("random", noise)):
            _score_block(who, [bank.of(s) for s in steps], window, scores)
    shares = [window.duration_s / features[i].duration_s for i, window, _ in blocks]
    mean = {name: _mean(values) for name, values in scores.items()}
    return {
        "blocks": len(blocks),
        "visual_hit": mean["own_visual"],
        "audio_hit": mean["own_audio"],
        "window_share": _mean(shares),
        "random_hit": {m: mean[f"random_{m}"] for m in ("visual", "audio")},
        "other_clip_hit": {m: mean[f"other_clip_{m}"] for m in ("visual", "audio")},
        "own_called_evidence": {m: mean.get(f"own_called_{m}") for m in ("visual", "audio", "all")},
        "other_clip_called_evidence": {m: mean.get(f"other_clip_called_{m}") for m in ("visual", "audio", "all")},
    }


def _score_block(who: str, steps: list[LatentStep], window: Window, scores: dict[str, list[float]]) -> None:
    p = [s.p for s in steps]
    corrected = benjamini_hochberg(p) if None not in p else None
    for modality in ("visual", "audio"):
        scores.setdefault(f"{who}_{modality}", []).append(moment_lies_in(window, steps, modality))
        if corrected is not None:
            called = [corrected[i] <= 0.05 for i, s in enumerate(steps) if s.modality == modality]
            for name in (modality, "all"):
                scores.setdefault(f"{who}_called_{name}", []).extend(called)
