"""A trace as JSON values and as lines of text, for `ask` and `inspect`. Needs numpy alone."""

from typing import Any

from latentomni.evidence import block_moment
from latentomni.trace import SCHEMA, SIGNIFICANT_P, Block, Latent, Trace
from latentomni.truth import Truth

__all__ = ["block_line", "summarise"]

_WINDOW_NOTES = {"model": "", "clamped": " (cut to the clip)", "nominal": " (assumed, the model wrote none)"}


def summarise(trace: Trace) -> dict[str, Any]:
    """Everything a trace tells but its pictures, sound and vectors."""
    return {
        "schema": SCHEMA,
        "model": trace.model,
        "weights": trace.weights,
        "quantization": trace.quantization,
        "mode": trace.mode,
        "flow": trace.flow,
        "seed": trace.sampling.get("seed"),
        "reading": trace.reading,
        "question": trace.question,
        "answer": trace.answer,
        "text": trace.text,
        "blocks": [_block(block) for block in trace.blocks],
        "truth": trace.truth and _truth(trace.truth),
        "reason": trace.reason,
        "notices": [*trace.clip.notices, *trace.notices],
        "clip": {"name": trace.clip.name, "sha256": trace.clip.sha256, "duration_s": trace.clip.duration_s},
        "tokens": trace.tokens,
        "ttft_s": trace.ttft_s,
        "tokens_per_s": trace.tokens_per_s,
        "latents_per_s": trace.latents_per_s,
        "kv_tokens": trace.kv_tokens or None,
        "memory_bytes": trace.memory_bytes or None,
    }


def _truth(truth: Truth) -> dict[str, Any]:
    windows = [{"window_s": [w.start_s, w.end_s], "modality": m} for w, m in zip(truth.windows, truth.modalities, strict=True)]
    return {"answer": truth.answer, "is_right": truth.is_right, "windows": windows}


def _block(block: Block) -> dict[str, Any]:
    return {
        "window_s": [block.window.start_s, block.window.end_s],
        "window_source": block.window_source,
        "latents": [_latent(latent) for latent in block.latents],
    }


def _latent(latent: Latent) -> dict[str, Any]:
    """The null is one of best matches, so only rank 1 has a p; `time_s` is the middle of the moment."""
    p = _p(latent)
    evidence = [
        {
            "time_s": (m.start_s + m.end_s) / 2,
            "start_s": m.start_s,
            "end_s": m.end_s,
            "cell": list(m.cell),
            "rank": m.rank,
            "score": m.score,
            "p": p if m.rank == 1 else None,
        }
        for m in latent.matches
    ]
    return {"modality": latent.modality, "time_s": latent.time_s, "cell": latent.cell, "evidence": evidence}


def _p(latent: Latent) -> float | None:
    return latent.p if latent.p_corrected is None else latent.p_corrected


def block_line(block: Block) -> str:
    """`[2.0-4.0 s]: 8 visual latents most similar to 2.0-3.0 s (p 0.005); 2 audio latents most similar to ...`"""
    parts = [
        _modality(modality, [z for z in block.latents if z.modality == modality]) for modality in ("visual", "audio")
    ]
    note = _WINDOW_NOTES.get(block.window_source, "")
    return f"{block.window}{note}: {'; '.join(part for part in parts if part)}"


def _modality(modality: str, latents: list[Latent]) -> str:
    """The moment that most latents match best, with the smallest p among those that do."""
    if not latents:
        return ""
    who = f"{len(latents)} {modality} latent{'s' * (len(latents) > 1)}"
    moment = block_moment(z.matches for z in latents)
    if moment is None:
        return f"{who} with nothing in the clip to compare"
    voters = [z for z in latents if z.matches and (z.matches[0].start_s, z.matches[0].end_s) == moment]
    p = min((value for z in voters if (value := _p(z)) is not None), default=None)
    sure = "no null, ranks only" if p is None else f"p {p:.3f}" + ", no evidence" * (p > SIGNIFICANT_P)
    return f"{who} most similar to {moment[0]:.1f}-{moment[1]:.1f} s ({sure})"
