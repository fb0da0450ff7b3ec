"""What a training step costs: every phase of feedback beside plain SFT of the stock class on the same tokens, in time and memory.

Dimensions: K latents of the block, V visual tokens, A audio tokens, D hidden.
"""

import logging
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from latentomni import checkpoints
from latentomni.bench.measures import growth_bytes, in_fresh_processes
from latentomni.clock import POSITIONS_PER_SECOND, Window
from latentomni.config import Mode
from latentomni.modeling import Thinker
from latentomni.sequence import ClipFeatures
from latentomni.training.batches import make_batch
from latentomni.training.examples import Example, Segment, Turn, build_example
from latentomni.training.feedback import Phase, open_prefix, rollout
from latentomni.training.losses import PRESETS, Objective, Terms

__all__ = ["StepShape", "bench_train"]

_PEER = "peer"
_PHASES = {"phase_a": Phase(), "phase_b": Phase("jacobi", 2), "phase_c": Phase("rollout")}
_SEQUENTIAL = "sequential"
_GRID = (2, 2)
_ASKED = 16  # tokens of the question
_SOUNDED = POSITIONS_PER_SECOND + _GRID[0] * _GRID[1]  # media tokens of a second, one picture in each
_WORDS = 96  # tokens of a prefix that are no media, at least
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepShape:
    """A step's rows, all of one length: `prefix` tokens, one block of `instants` x (`rows` x `columns` + 1) latents, `suffix` tokens.

    vocabulary, vocabulary_batch: size of a published vocabulary, whose logits are what a full-logits step spends its memory on, and the
    rows of a step with it: a few, so that the peer fits; each row more costs the peer more than us.
    """

    prefix: int = 512
    instants: int = 8
    rows: int = 2
    columns: int = 2
    suffix: int = 120
    batch: int = 8
    vocabulary: int = 152_064
    vocabulary_batch: int = 2


def bench_train(
    thinker: Thinker, name: str, repeats: int = 15, seed: int = 0, shape: StepShape | None = None
) -> dict[str, Any]:
    """Median seconds of a step (forward, backward, optimiser) in every phase, and with the gradient through every step of the
    feedback (`sequential`); the peer's step runs between them, on the same tokens: the stock class, causal, logits and labels everywhere. `ratio`: the
    median over the rounds of ours over the peer's of that round.

    `loss`: what the arm's step computed; exact feedback gives one loss however it is computed. `memory`: peak bytes of a step in
    phase A and of the peer's, above what was held before it, each in a fresh process that loads the model by `name`, at a published
    vocabulary; `own_vocabulary`: the same at the model's own.
    """
    shape = shape or StepShape()
    bench = _Step(thinker, shape, seed)
    seconds: dict[str, list[float]] = {arm: [] for arm in (_PEER, *_PHASES, _SEQUENTIAL)}
    losses: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for arm, measured in seconds.items():
            begun_s = time.perf_counter()
            losses[arm] = bench.take(arm)
            measured.append(time.perf_counter() - begun_s)
        _log.info("train %d/%d: %s", repeat, repeats, ", ".join(f"{arm} {s[-1]:.2f} s" for arm, s in seconds.items()))
    timed = {arm: measured[1:] for arm, measured in seconds.items()}  # the first round warms up
    peers = timed.pop(_PEER)
    ratios = {arm: median(ours / peer for ours, peer in zip(rounds, peers, strict=True)) for arm, rounds in timed.items()}
    return {
        **{arm: {"ours": median(rounds), "peer": median(peers), "ratio": ratios[arm], "loss": losses[arm]} for arm, rounds in timed.items()},
        "memory": {
            **_memory(name, replace(shape, batch=shape.vocabulary_batch), seed, shape.vocabulary),
            "own_vocabulary": _memory(name, shape, seed, thinker.model.config.text_config.vocab_size),
        },
        "shape": f"{thinker.name} with {thinker.weights} weights, {str(thinker.dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads; "
        f"{shape.batch} rows of {shape.prefix} tokens, {bench.thinker.spec.n_latents} latents, {shape.suffix} tokens; optimiser AdamW; "
        "peer: the stock forward, plain causal, with labels and logits at every token",
        "repeats": repeats,
    }  # fmt: skip


class _Step:
    """A model with a batch, and one way to train it. Weights stay as they are (the learning rate is 0), so every repeat does the same."""

    def __init__(self, thinker: Thinker, shape: StepShape, seed: int) -> None:
        spec = replace(thinker.spec, instants=shape.instants, rows=shape.rows, columns=shape.columns)
        self.thinker = replace(thinker, spec=spec)
        self.thinker.model.requires_grad_(False)
        self.objective = Objective(self.thinker, PRESETS["paper"])
        for module in (self.thinker.text_model, self.thinker.model.lm_head, self.thinker.head):
            if module is not None:
                module.requires_grad_(True)
        self.optimizer = torch.optim.AdamW([p for p in self.objective.parameters() if p.requires_grad], lr=0.0)
        self.batch = make_batch(self.thinker, [_example(self.thinker, shape, seed + i) for i in range(shape.batch)])

    def take(self, arm: str) -> float:
        """One step of an arm; returns its loss."""
        loss = self._plain_loss() if arm == _PEER else self._loss(arm)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if loss.is_cuda:
            torch.cuda.synchronize(loss.device)
        return loss.item()

    def _plain_loss(self) -> torch.Tensor:
        batch = self.batch
        return self.thinker.model(
            inputs_embeds=batch.embeds(self.thinker, batch.anchors), attention_mask=torch.ones_like(batch.ids),
            position_ids=batch.positions, labels=batch.ids, use_cache=False,
        ).loss  # fmt: skip

    def _loss(self, arm: str) -> torch.Tensor:
        terms = self._sequential_terms() if arm == _SEQUENTIAL else self.objective(self.batch, _PHASES[arm])[0]
        counts = self.objective.counts(self.batch)
        return sum(self.objective.weight(name) * term / counts[name] for name, term in terms.items())

    def _sequential_terms(self) -> Terms:
        feedback = open_prefix(self.thinker, self.batch, grad=True)
        return self.objective.terms(feedback.patched(rollout(feedback, grad=True)), self.batch, [])


def _example(thinker: Thinker, shape: StepShape, seed: int) -> Example:
    """A row of exactly the shape's tokens about a clip of noise: digits are one token each, whatever the tokenizer."""
    clip = _noise(thinker.hidden_size, max((shape.prefix - _WORDS) // _SOUNDED, 1), seed)

    def build(lead: int, closing: int) -> tuple[Example, int, int]:
        parts = ("2" * lead, Segment(Window(0.0, 1.0)), "3" * closing)
        example = build_example(thinker, clip, [Turn("1" * _ASKED, Mode.LATENT, parts)])
        first = example.latent_targets[0][1]
        return example, first, len(example.sequence) - first - thinker.spec.n_latents

    _, prefix, suffix = build(1, 1)
    example, *lengths = build(1 + shape.prefix - prefix, 1 + shape.suffix - suffix)
    assert lengths == [shape.prefix, shape.suffix], (lengths, shape)
    return example


def _noise(hidden: int, seconds: int, seed: int) -> ClipFeatures:
    random = torch.Generator().manual_seed(seed)
    visual = torch.randn(seconds * _GRID[0] * _GRID[1], hidden, generator=random)
    audio = torch.randn(seconds * POSITIONS_PER_SECOND, hidden, generator=random)
    starts = np.arange(float(seconds))
    return ClipFeatures(
        visual, starts, starts + 1, _GRID, audio, np.arange(len(audio)) / POSITIONS_PER_SECOND, float(seconds)
    )


def _memory(name: str, shape: StepShape, seed: int, vocabulary: int) -> dict[str, Any]:
    """Peak bytes of a step in phase A beside the peer's, each in a fresh process."""
    ours, peer = in_fresh_processes(_measure_peak, ("phase_a", _PEER), name, shape, seed, vocabulary)
    _log.info("train memory with a vocabulary of %d: %.0f and %.0f MiB", vocabulary, ours / 2**20, peer / 2**20)
    return {"ours": ours, "peer": peer, "ratio": ours / peer, "vocabulary": vocabulary, "batch": shape.batch}


def _measure_peak(arm: str, name: str, shape: StepShape, seed: int, vocabulary: int) -> int:
    """Runs in a fresh process, whose first step, on a single short row, brings in libraries and the optimiser's state."""
    thinker = checkpoints.load(name)
    thinker.model.resize_token_embeddings(vocabulary, mean_resizing=False)
    step = _Step(thinker, shape, seed)
    whole, short = step.batch, replace(shape, prefix=_WORDS + 2 * _SOUNDED, suffix=8)
    step.batch = make_batch(step.thinker, [_example(step.thinker, short, seed)])
    step.take(arm)
    step.batch = whole
    return growth_bytes(lambda: step.take(arm), step.thinker.device)
