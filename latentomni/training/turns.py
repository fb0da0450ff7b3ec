"""A question with its reasoning, as plain values: what training data say before any model reads them."""

from dataclasses import dataclass

from latentomni.clock import Window
from latentomni.config import Mode

__all__ = ["Segment", "Turn"]


@dataclass(frozen=True)
class Segment:
    """A span of the clip that the answer reasons about. asked: the words it is found by, "" where none are known.
    caption: what is there, in words."""

    window: Window
    asked: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Turn:
    """A question and its answer, texts and segments in turn; the last text is the answer.

    A segment becomes a latent block (latent), its window and caption (text-cot), or nothing (direct). group: of the last text,
    which the losses weigh by it. given: what stands before the last text is read, not learned."""

    question: str
    mode: Mode
    parts: tuple[str | Segment, ...]
    group: str = "answer"
    given: bool = False
