"""What the causal arms are tried on: questions about clips with their truth, from AV World or from a training file."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from latentomni.avworld import heldout_questions, parse_answer, world_clip
from latentomni.avworld.answers import answers
from latentomni.avworld.questions import Question
from latentomni.avworld.world import World
from latentomni.clock import Window
from latentomni.media import Clip
from latentomni.modeling import Thinker
from latentomni.sequence import ClipFeatures

if TYPE_CHECKING:
    from latentomni.training.records import Record

__all__ = ["Case", "avworld_case", "avworld_cases", "record_cases"]

_CLIP_PX = 448


@dataclass(frozen=True, eq=False)
class Case:
    """A question about a clip, and its truth.

    clip: name that all cases of one clip share. read: gives the clip itself. parse: the answer that a text gives, or None;
    it is right where it equals `answer`. closing: the true answer as the model would say it behind its last block.
    windows: true window of each block; empty where none are known. candidates: answers that a question of this
    `family` can have; empty where they are not known.
    """

    clip: str
    features: ClipFeatures
    read: Callable[[], Clip]
    question: str
    answer: str
    parse: Callable[[str], str | None]
    closing: str
    windows: tuple[Window, ...] = ()
    family: str = ""
    candidates: tuple[str, ...] = ()


def avworld_cases(thinker: Thinker, n: int, seed: int | None, progress: Callable) -> list[Case]:
    """`n` held-out questions of AV World: the fixed ones, or others drawn from a seed."""
    drawn = heldout_questions(n) if seed is None else heldout_questions(n, seed)
    readers = {world.name: partial(world_clip, world, _CLIP_PX) for world, _ in drawn}
    features = {name: _encode(thinker, read()) for name, read in progress(list(readers.items()), "clips")}
    return [avworld_case(world, q, features[world.name], readers[world.name]) for world, q in drawn]


def avworld_case(world: World, question: Question, features: ClipFeatures, read: Callable[[], Clip]) -> Case:
    """A question about a world whose clip has been encoded."""
    return Case(world.name, features, read, question.text, question.answer, partial(parse_answer, question.family), question.closing,
                question.windows, question.family, answers(question.family))  # fmt: skip


def record_cases(thinker: Thinker, records: Iterable["Record"], read: Callable, progress: Callable) -> list[Case]:
    """The first question of every record of a training file; `read` opens a media file.

    An answer is what the text names last of all answers (and their sentences) that the family has in the file.
    """
    records = list(records)
    readers = {str(r.media): partial(read, r.media) for r in records}
    features = {name: _encode(thinker, open_clip()) for name, open_clip in progress(list(readers.items()), "clips")}
    truths = [(r.conversation[0].parts[-1], r.answer if len(r.conversation) == 1 else r.conversation[0].parts[-1]) for r in records]
    told: dict[str, dict[str, str]] = defaultdict(dict)
    for record, (closing, answer) in zip(records, truths, strict=True):
        told[record.family] |= {closing: answer, answer: answer}
    cases = []
    for record, (closing, answer) in zip(records, truths, strict=True):
        name, family, turn = str(record.media), record.family, record.conversation[0]
        windows = tuple(part.window for part in turn.parts if not isinstance(part, str))
        cases.append(Case(name, features[name], readers[name], turn.question, answer, _finder(told[family]), closing, windows,
                          family, tuple(dict.fromkeys(told[family].values())) if family else ()))  # fmt: skip
    return cases


def _encode(thinker: Thinker, clip: Clip) -> ClipFeatures:
    features = thinker.encode_clip(clip)
    return replace(features, visual=features.visual.cpu(), audio=features.audio.cpu())


def _finder(told: dict[str, str]) -> Callable[[str], str | None]:
    """A reader of free text: which of the phrases of `told` (phrase -> answer) it names last; the longest where several begin.
    Letters of choices are capital letters; all else is compared without case and punctuation."""
    plain = str if all(re.fullmatch("[A-Z]", answer) for answer in told.values()) else str.lower

    def words(text: str) -> str:
        return " ".join(re.findall(r"\w+", plain(text)))

    phrases = {words(phrase): answer for phrase, answer in told.items() if words(phrase)}
    pattern = re.compile(rf"\b({'|'.join(sorted(map(re.escape, phrases), key=len, reverse=True))})\b")

    def find(text: str) -> str | None:
        found = pattern.findall(words(text))
        return phrases.get(found[-1]) if found else None

    return find
