"""Does it matter? One answer, changed and written again: its latents, or the clip it is about, with a matched control.

A rerun begins with a replay, which decodes the trace's question once more and so has the very row that gave the answer.

An arm of the latents changes the chosen latents and nothing else: words, windows, the other latents and every position id
stay as they were, and only what stands behind the last block is written again. An arm of the clip recomputes from the first
latent on: the words and the window before it stay, its block is computed over the changed clip, and whatever follows,
further blocks and their windows too, is written as the model then writes it. An answer without a block is written anew.

The answer is what stands behind the last block (all of it where there is none), and every answer is judged by the same
log probabilities behind its own last block: of the closing words given before, and of those given after the change.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import torch

from latentomni.arms import Change
from latentomni.attention_flow import Kind
from latentomni.config import Mode
from latentomni.errors import require
from latentomni.events import Event, Finished
from latentomni.generation import generate, score
from latentomni.media import Clip
from latentomni.modeling import Thinker
from latentomni.replays import Replay, replay, require_finished, sampling_of
from latentomni.runtime import Runtime
from latentomni.sequence import Sequence
from latentomni.trace import Trace
from latentomni.variants import Variant, change_clip, change_latents

__all__ = ["Change", "Control", "Outcome", "Replay", "replay", "rerun"]


@dataclass(frozen=True)
class Control:
    """What a change that is as large, but says nothing, does to the answer. what: that change, in a sentence. margin_change: as in
    `Outcome`, of the same two answers."""

    what: str
    answer: str
    flipped: bool
    margin_change: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """A changed answer beside the one given before.

    after: a whole trace; where the clip was changed it holds the changed one. flipped: whether the answers are in other words.
    probabilities: of each answer, before and after the change; the two together make 1. Where both are the same: of that
    answer among all that could be said. margin_change: by how much the log probability of the answer given before, less
    that of the one given after, has changed: below 0 the change speaks against the first. Where both are the same: of that
    answer alone. moved: cosine of each latent before and after, block by block for as many blocks as both have; empty where latents
    are what was changed. control: None where `notices` say why.
    """

    change: Change
    before: Trace
    after: Trace
    flipped: bool
    probabilities: dict[str, tuple[float, float]]
    margin_change: float
    moved: tuple[float, ...] = ()
    control: Control | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Closing:
    """The answer of a finished row: the row before it, its token ids and its words."""

    before: Sequence
    token_ids: list[int]
    text: str


def rerun(runtime: Runtime, clip: Clip, trace: Trace, change: Change, *, seed: int = 0,
          cancelled: Callable[[], bool] = lambda: False, replayed: Replay | None = None) -> Outcome:  # fmt: skip
    """Change a finished answer and let the rest be written again, sampled as the trace was.

    seed: decides donors, noise, orders and the control. replayed: of this trace and clip, where there is one already. Raises
    RequestError where the arm is undefined here, as without a bank of donors, and where it is stopped.
    """
    require(seed >= 0, f"A seed is a whole number from 0 on, got {seed}.")
    with runtime.within_memory(clip):
        return _rerun(runtime, clip, trace, change, seed, cancelled, replayed)


def _rerun(runtime: Runtime, clip: Clip, trace: Trace, change: Change, seed: int, cancelled: Callable[[], bool], replayed: Replay | None) -> Outcome:
    given = replayed or replay(runtime, clip, trace, cancelled)
    variant = (change_clip if change.changes_clip else change_latents)(runtime, clip, given, change, seed)
    rows = [row for row in (variant.row, variant.control) if row is not None]
    after = Trace.from_events(_written(runtime, variant, given, rows, cancelled))
    require_finished(after)
    told = [_closing(given.thinker, given.row, _answer_start(given.row, given.prompt))]
    told += [_closing(given.thinker, row, variant.answer_start or _answer_start(row, given.prompt)) for row in rows]
    return _judged(runtime, given, change, variant, after, told)


def _written(runtime: Runtime, variant: Variant, given: Replay, rows: list[Sequence], cancelled: Callable[[], bool]) -> Iterator[Event]:
    """The changed answer from its beginning, as a stream. The control, the second of `rows`, is written along with it."""
    sampling, begun_s = sampling_of(given.trace), variant.begun[-1].elapsed_s if variant.begun else 0.0
    if variant.answer_start is not None:  # all blocks are there
        sampling = replace(sampling, max_blocks=0)
    modes, progress = [Mode(given.trace.mode)] * len(rows), [variant.progress] * len(rows)
    written = generate(given.thinker, rows, modes, sampling, cancelled, lambda: runtime.opening(rows, cancelled), progress)
    rest = (replace(event, elapsed_s=event.elapsed_s + begun_s) for b, event in written if b == 0)
    yield variant.started
    for event in variant.evidence.found(chain(variant.begun, rest), has_null=given.trace.has_null):
        yield replace(event, notices=(variant.sentence,)) if isinstance(event, Finished) else event


def _answer_start(row: Sequence, prompt: int) -> int:
    """Index behind the close of the last block, or behind the prompt."""
    return len(row) - row.kinds[::-1].index(Kind.LATENT) + 1 if Kind.LATENT in row.kinds else prompt


def _closing(thinker: Thinker, row: Sequence, start: int) -> _Closing:
    ids = row.token_ids[start:]
    return _Closing(row.up_to(start), ids, thinker.tokenizer.decode(ids, skip_special_tokens=True).strip())


def _judged(runtime: Runtime, given: Replay, change: Change, variant: Variant, after: Trace, told: list[_Closing]) -> Outcome:
    """told: the answer given before, the one after the change and, where there is one, the control's."""
    first, second = told[:2]
    flipped = first.text != second.text
    answers = [first.token_ids] + [second.token_ids] * flipped
    scores = [_scores(runtime, given.thinker, said.before, answers) for said in told]
    margins = [log_p[0] - sum(log_p[1:]) for log_p in scores]
    before, changed = margins[:2]
    probabilities = {first.text: (_sigmoid(before), _sigmoid(changed)), second.text: (_sigmoid(-before), _sigmoid(-changed))}
    if not flipped:
        probabilities = {first.text: (math.exp(before), math.exp(changed))}
    control = None
    if variant.control is not None:
        said = told[2].text
        control = Control(variant.control_what, said, said != first.text, margins[2] - before)
    moved = _cosines(given.row, variant.row) if change.changes_clip else ()
    notices = [*given.notices, *variant.notices]
    if flipped and changed > 0:
        notices.append("The new answer was likelier word by word, but as a whole the first one still is.")
    return Outcome(change, given.trace, after, flipped, probabilities, changed - before, moved, control, tuple(notices))


def _scores(runtime: Runtime, thinker: Thinker, before: Sequence, answers: list[list[int]]) -> list[float]:
    rows = [before.up_to(len(before)) for _ in answers]
    return score(thinker, rows, answers, runtime.opening(rows))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _cosines(before: Sequence, after: Sequence) -> tuple[float, ...]:
    pairs = zip(before.latents, after.latents, strict=False)
    return tuple(float(torch.cosine_similarity(a.double(), b.double(), dim=0)) for a, b in pairs)
