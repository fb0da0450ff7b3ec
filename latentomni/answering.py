"""Many questions answered in batches, with everything the scorers need."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from latentomni.attention_flow import Kind
from latentomni.clock import Window
from latentomni.config import Mode, SamplingSpec
from latentomni.events import Finished, LatentOpened, LatentStep
from latentomni.generation import generate
from latentomni.modeling import Thinker
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import ClipFeatures

__all__ = ["BATCH", "MAX_BLOCKS", "MAX_NEW_TOKENS", "Answer", "answer_batches"]

BATCH, MAX_NEW_TOKENS, MAX_BLOCKS = 24, 96, 2  # rows at a time; of an answer about AV World


@dataclass
class Answer:
    """What a model gave for one question: its text, the decoder steps it took (for words, windows and latents alike), its blocks'
    windows, and their latents in order, K a block."""

    text: str = ""
    steps: int = 0
    windows: list[Window] = field(default_factory=list)
    latents: list[LatentStep] = field(default_factory=list)


def answer_batches(thinker: Thinker, asked: list[tuple[ClipFeatures, str]], mode: Mode, batch: int = BATCH,
                   max_new_tokens: int = MAX_NEW_TOKENS) -> Iterator[Answer]:  # fmt: skip
    """Answer (clip, question) pairs greedily, `batch` rows at a time, in the order given."""
    for start in range(0, len(asked), batch):
        rows = []
        for clip, question in asked[start : start + batch]:
            rows.append(new_sequence(clip, thinker.spec, thinker.ids, thinker.cached_text))
            add_question(rows[-1], question, mode, thinker.cached_text)
        answers, prompts = [Answer() for _ in rows], [len(row) for row in rows]
        for b, event in generate(thinker, rows, [mode] * len(rows), SamplingSpec(max_new_tokens=max_new_tokens, max_blocks=MAX_BLOCKS)):
            if isinstance(event, LatentOpened):
                answers[b].windows.append(event.window)
            elif isinstance(event, LatentStep):
                answers[b].latents.append(event)
            elif isinstance(event, Finished):
                answers[b].text = event.answer
        for answer, row, prompt in zip(answers, rows, prompts, strict=True):
            answer.steps = sum(kind != Kind.ECHO for kind in row.kinds[prompt:])  # an echo is one forward, with its trigger
        yield from answers
