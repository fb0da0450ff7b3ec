"""Ask a model something whose whole truth is known: a clip that nobody has seen, one question, and a verdict on the answer."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from latentomni.avworld.answers import parse_answer
from latentomni.avworld.questions import Question, draw_question
from latentomni.avworld.world import World, sample_world
from latentomni.avworld.writing import world_clip
from latentomni.clock import Window
from latentomni.errors import require
from latentomni.events import LatentStep
from latentomni.evidence import block_moment
from latentomni.media import Clip
from latentomni.trace import Latent, Trace
from latentomni.truth import Truth

__all__ = ["Trial", "Verdict", "draw_trial", "judge", "moment_lies_in", "question_truth"]

_FIRST_SEED = 50_000_000  # no other clips of the test split, which training never draws from, have seeds from here on
_CLIP_PX = 448


@dataclass(frozen=True, eq=False)
class Trial:
    """A question about a world, and its clip as media would read it. `writing.write_clip` makes a file of the world."""

    world: World
    question: Question
    clip: Clip


@dataclass(frozen=True)
class Verdict:
    """window_iou: 0 to 1, mean over the windows the question needs. evidence_hit: of "visual" and "audio", the share of the
    answer's blocks whose evidence moment lies in the true window; None where no block was due or written. blocks: how many
    these are."""

    answer_right: bool
    window_iou: float
    evidence_hit: dict[str, float | None]
    blocks: int
    true_answer: str
    true_windows: tuple[Window, ...]


def draw_trial(seed: int) -> Trial:
    """A clip and a question as the held-out benchmark has them, from clips of its own. Sixteen seeds in a row ask two
    questions of every family, with yes and no, after and before."""
    require(seed >= 0, f"A seed is a whole number from 0 on, got {seed}.")
    world = sample_world(_FIRST_SEED + seed, "test")
    question = draw_question(world, seed, np.random.default_rng([_FIRST_SEED, seed]))
    return Trial(world, question, world_clip(world, _CLIP_PX))


def judge(trace: Trace, trial: Trial) -> Verdict:
    """Hold an answer to a trial's question against the truth, as `eval avworld` does."""
    question = trial.question
    pairs = list(zip(trace.blocks, question.windows, strict=False))
    hits = {m: [moment_lies_in(window, block.latents, m) for block, window in pairs] for m in ("visual", "audio")}
    return Verdict(
        parse_answer(question.family, trace.answer) == question.answer,
        question.window_iou([block.window for block in trace.blocks]),
        {modality: float(np.mean(found)) if found else None for modality, found in hits.items()},
        len(pairs),
        question.answer,
        question.windows,
    )


def question_truth(question: Question, text: str) -> Truth:
    """What a run that answered with `text` is to be seen beside: every window needs the picture and the sound."""
    is_right = parse_answer(question.family, text) == question.answer
    return Truth(question.answer, is_right, question.windows, ("both",) * len(question.windows))


def moment_lies_in(window: Window, latents: Iterable[Latent | LatentStep], modality: str) -> bool:
    """Whether the moment that most latents of a modality match best has its middle in the window."""
    span = block_moment(z.matches for z in latents if z.modality == modality)
    return span is not None and window.contains((span[0] + span[1]) / 2)
