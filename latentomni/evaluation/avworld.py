"""The held-out AV World benchmark: a model's own windows and own latents, against enumerated chance and with a modality removed."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from latentomni.answering import BATCH, MAX_BLOCKS, MAX_NEW_TOKENS, Answer, answer_batches
from latentomni.avworld import heldout_questions, parse_answer, world_clip
from latentomni.avworld.questions import FAMILIES, Question
from latentomni.avworld.selftest import moment_lies_in, question_truth
from latentomni.avworld.world import World
from latentomni.clip_evidence import Evidence
from latentomni.clock import Window
from latentomni.config import AttentionFlow, Mode, SamplingSpec
from latentomni.evaluation.processes import Processes
from latentomni.events import LatentStep
from latentomni.evidence import benjamini_hochberg
from latentomni.runtime import Runtime
from latentomni.sequence import ClipFeatures

__all__ = ["evaluate_avworld"]

_CLIP_PX = 448


def evaluate_avworld(runtime: Runtime, n: int = 1000, seed: int | None = None, mode: Mode = Mode.LATENT, progress: Callable = lambda items, _: items,
                     processes: Processes | None = None, traces: Path | None = None) -> dict:  # fmt: skip
    """Score `n` held-out questions; keys as in the command line's contract. Unanswered counts as wrong. processes: share the questions by
    batches, so that each is answered beside the same others as in one process. traces: a folder for the run of every question, which
    is asked once more for it, alone."""
    processes = processes or Processes()
    drawn = heldout_questions(n) if seed is None else heldout_questions(n, seed)
    questions = [q for _, q in drawn]
    own = [i for part in processes.share([range(k, min(k + BATCH, n)) for k in range(0, n, BATCH)]) for i in part]
    worlds = {drawn[i][0].name: drawn[i][0] for i in own}
    clips = {name: runtime.thinker.encode_clip(world_clip(w, _CLIP_PX)) for name, w in progress(list(worlds.items()), "clips")}
    features = {i: clips[drawn[i][0].name] for i in own}

    def answered(kept: str | None = None) -> list[Answer]:
        asked = [(features[i].only(kept) if kept else features[i], questions[i].text) for i in own]
        told = progress(answer_batches(runtime.thinker, asked, mode), "answers")
        return list(processes.gather(dict(zip(own, told, strict=True))).values())

    answers, silent, blind = answered(), answered("visual"), answered("audio")
    if traces:
        for i in progress(own, "traces"):
            _keep_trace(runtime, *drawn[i], mode, traces / f"{i:05d}.zip")
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
        "evidence": _evidence(runtime, features, drawn, answers, processes),
    }


def _keep_trace(runtime: Runtime, world: World, question: Question, mode: Mode, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    trace = runtime.answer(world_clip(world, _CLIP_PX), question.text, mode, SamplingSpec(max_new_tokens=MAX_NEW_TOKENS, max_blocks=MAX_BLOCKS))
    replace(trace, truth=question_truth(question, trace.answer)).save(file)


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def _right(question: Question, answer: Answer) -> bool:
    return parse_answer(question.family, answer.text) == question.answer


def _accuracy(questions: list[Question], answers: list[Answer]) -> float | None:
    return _mean([_right(q, a) for q, a in zip(questions, answers, strict=True)])


def _family(family: str, questions: list[Question], answers: list[Answer]) -> dict:
    pairs = [(q, a) for q, a in zip(questions, answers, strict=True) if q.family == family]
    return {"accuracy": _mean([_right(q, a) for q, a in pairs]), "chance": _mean([q.chance for q, _ in pairs]), "n": len(pairs)}


def _evidence(runtime: Runtime, features: dict[int, ClipFeatures], drawn: list[tuple[World, Question]], answers: list[Answer],
              processes: Processes) -> dict | None:  # fmt: skip
    """Where the latents of every block find themselves in the whole clip: own latents, another clip's, random vectors.

    A hit: the moment most latents of a modality match best lies in the true window. Called evidence: corrected p <= 0.05. features: of
    this process's questions, whose blocks it scores.
    """
    k, rng = runtime.spec.n_latents, np.random.default_rng(0)
    blocks = [(i, window, answers[i].latents[n * k : (n + 1) * k])
              for i, (_, q) in enumerate(drawn) for n, window in enumerate(q.windows) if n < len(answers[i].windows)]  # fmt: skip
    if not blocks:
        return None
    told: dict[int, dict[str, list[float]]] = {}
    evidence: dict[int, Evidence] = {}
    for place, (i, window, own) in enumerate(blocks):
        noise = [replace(s, vector=rng.normal(size=s.vector.shape).astype(np.float32)) for s in own]  # the same in every process
        if i not in features:
            continue
        bank = evidence.setdefault(id(features[i]), Evidence(features[i], runtime.donors))
        other = next((steps for j, _, steps in blocks[place + 1 :] + blocks if drawn[j][0].name != drawn[i][0].name), [])
        told[place] = {"share": [window.duration_s / features[i].duration_s]}
        for who, steps in (("own", own), ("other_clip", other), ("random", noise)):
            _score_block(who, [bank.of(s) for s in steps], window, told[place])
    scores: dict[str, list[float]] = defaultdict(list)
    for block in processes.gather(told).values():
        for name, values in block.items():
            scores[name] += values
    mean = {name: _mean(values) for name, values in scores.items()}
    return {
        "blocks": len(blocks),
        "visual_hit": mean["own_visual"],
        "audio_hit": mean["own_audio"],
        "window_share": mean["share"],
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
