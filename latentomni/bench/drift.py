"""What quantisation does to latents: the same questions, words and windows, and each model's own latents behind them.

Dimensions: N answers, K latents of a block, D hidden.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from latentomni import checkpoints
from latentomni.attention_flow import Kind
from latentomni.avworld import parse_answer, world_clip
from latentomni.avworld.questions import draw_questions
from latentomni.bench.peers import describe, prompt_row
from latentomni.clip_evidence import Evidence
from latentomni.config import Mode, SamplingSpec
from latentomni.errors import RequestError
from latentomni.events import Finished, LatentStep
from latentomni.evidence import EvidenceBank
from latentomni.generation import generate
from latentomni.modeling import Thinker
from latentomni.runtime import Runtime
from latentomni.sequence import ClipFeatures, Sequence

__all__ = ["bench_drift"]

_BATCH = 24
_SAMPLING = SamplingSpec(max_new_tokens=96, max_blocks=2)
_log = logging.getLogger(__name__)


def bench_drift(runtime: Runtime, name: str, quantization: str, repeats: int = 200, seed: int = 0) -> dict[str, Any]:
    """Answer `repeats` held-out questions in full precision, then make the first block of each again with the same model (`name`)
    quantised, behind the same words and window.

    `ours`: mean cosine of a latent with its full-precision self; `peer`: with the same slot's latent about the next clip. `steps`: for
    each of the K steps the mean, the lowest tenth, that of the next clip, and how often the best match in the clip is the same moment.
    `same_answer`, `accuracy`: of both models answering freely. Raises RequestError where no answer has a block.
    """
    exact, quantised = runtime.thinker, checkpoints.load(name, quantization=quantization)
    drawn = draw_questions("test", repeats, seed)
    worlds = {world.name: world for world, _ in drawn}
    clips = {key: exact.encode_clip(world_clip(world)) for key, world in worlds.items()}  # towers are never quantised
    features = [clips[world.name] for world, _ in drawn]
    asked = [(clip, question.text) for clip, (_, question) in zip(features, drawn, strict=True)]
    rows, told = _answer(exact, asked)
    _log.info("drift: %d questions answered in full precision", repeats)
    _, other = _answer(quantised, asked)
    _log.info("drift: and in %s", quantization)
    having = [i for i, row in enumerate(rows) if row.windows]
    if not having:
        raise RequestError("No answer of this model has a latent block, so nothing can drift; choose a model with trained latents.")
    k = exact.spec.n_latents
    before = torch.stack([torch.stack(rows[i].latents[:k]) for i in having]).float().cpu()
    after = torch.stack(list(_first_blocks(quantised, [rows[i] for i in having]))).float().cpu()
    steps = _steps(runtime, before, after, [features[i] for i in having])
    right = [[parse_answer(q.family, text) == q.answer for (_, q), text in zip(drawn, texts, strict=True)] for texts in (told, other)]
    ours, peer = (float(np.mean([step[key] for step in steps])) for key in ("cosine", "cosine_other"))
    return {
        "ours": ours, "peer": peer, "ratio": ours / peer, "quantization": quantization, "steps": steps,
        "agreement": float(np.mean([step["agreement"] for step in steps])),
        "same_answer": float(np.mean([a == b for a, b in zip(told, other, strict=True)])),
        "accuracy": dict(zip(("none", quantization), (float(np.mean(r)) for r in right), strict=True)),
        "shape": f"{describe(exact)}; {len(having)} blocks of {k} latents about held-out clips; cosine with the full-precision latent; "
        "peer: with the latent of that step about the next clip", "repeats": repeats,
    }  # fmt: skip


def _answer(thinker: Thinker, asked: list[tuple[ClipFeatures, str]]) -> tuple[list[Sequence], list[str]]:
    """The rows as generation leaves them, and the answers."""
    rows, texts = [prompt_row(thinker, clip, question, Mode.LATENT) for clip, question in asked], [""] * len(asked)
    for start in range(0, len(rows), _BATCH):
        some = range(start, min(start + _BATCH, len(rows)))
        for b, event in generate(thinker, [rows[i] for i in some], [Mode.LATENT] * len(some), _SAMPLING):
            if isinstance(event, Finished):
                texts[some[b]] = event.answer
    return rows, texts


def _first_blocks(thinker: Thinker, rows: list[Sequence]) -> Iterator[torch.Tensor]:
    """(K, D) latents of each row's first block, made anew behind all that stands before them."""
    opened = [row.up_to(row.kinds.index(Kind.LATENT)) for row in rows]
    for start in range(0, len(opened), _BATCH):
        some = opened[start : start + _BATCH]
        vectors: list[list[np.ndarray]] = [[] for _ in some]
        for b, event in generate(thinker, some, [Mode.LATENT] * len(some), SamplingSpec(max_new_tokens=2, max_blocks=1)):
            if isinstance(event, LatentStep) and event.block == 0:
                vectors[b].append(event.vector)
        yield from (torch.from_numpy(np.stack(block)) for block in vectors)


def _steps(runtime: Runtime, before: torch.Tensor, after: torch.Tensor, features: list[ClipFeatures]) -> list[dict[str, Any]]:
    """before, after: (N, K, D)."""
    own, next_clips = torch.cosine_similarity(before, after, dim=-1), torch.cosine_similarity(before.roll(1, 0), after, dim=-1)
    n_visual, evidence = runtime.spec.n_visual, {id(clip): Evidence(clip, runtime.donors) for clip in features}
    steps = []
    for k in range(before.shape[1]):
        modality = "visual" if k < n_visual else "audio"
        banks = [evidence[id(clip)].banks[modality] for clip in features]
        same = [_best(bank, a) == _best(bank, b) for bank, a, b in zip(banks, before[:, k], after[:, k], strict=True)]
        steps.append({
            "step": k, "modality": modality, "cosine": float(own[:, k].mean()), "cosine_low": float(own[:, k].quantile(0.1)),
            "cosine_other": float(next_clips[:, k].mean()), "agreement": float(np.mean(same)),
        })  # fmt: skip
    return steps


def _best(bank: EvidenceBank, vector: torch.Tensor) -> int | None:
    """The moment it is most similar to; None in a clip without this modality."""
    matches = bank.matches(vector.numpy(), top=1)
    return matches[0].moment if matches else None
