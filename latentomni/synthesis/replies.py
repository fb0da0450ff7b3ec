"""What a model replies, per prompt: the JSON that is asked for, as a schema, and checked as it comes back."""

from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["QUESTION_TYPES", "REPLIES"]

_LONGEST = 2000  # characters; not part of the schema, as grammars of such repetitions are refused by servers


def _short(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    return text


_Free = Annotated[str, AfterValidator(_short)]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_short)]
_Mark = Annotated[int, Field(ge=1, le=5)]

QUESTION_TYPES = (
    "audio-visual joint perception",
    "action and behaviour recognition",
    "spatial layout",
    "temporal sequence",
    "attribute comparison or change",
    "counting",
    "emotion and atmosphere",
    "semantic summary",
    "logical relation",
    "intention or outcome",
)
_Type = Enum("_Type", {f"type_{number}": name for number, name in enumerate(QUESTION_TYPES)}, type=str)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", use_enum_values=True)


class _Question(_Reply):
    question: _Text
    answer: _Text


class Questions(_Reply):
    questions: Annotated[list[_Question], Field(min_length=1, max_length=8)]


class Scores(_Reply):
    difficulty: _Mark
    rigour: _Mark
    modality_dependence: _Mark
    type: _Type


class Answer(_Reply):
    answer: _Text


class Verdict(_Reply):
    right: bool


class Caption(_Reply):
    caption: _Text


class Merged(_Reply):
    seen: _Free
    heard: _Free
    supported: bool


class _Step(_Reply):
    say: _Text
    segment: Annotated[int, Field(ge=1, le=999)]


class Trajectory(_Reply):
    steps: Annotated[list[_Step], Field(min_length=1, max_length=3)]
    conclusion: _Text


class Audit(_Reply):
    accept: bool
    reason: _Free
    segments: Annotated[list[Annotated[int, Field(ge=0, le=999)]], Field(min_length=1, max_length=3)]


REPLIES: dict[str, type[BaseModel]] = {
    "questions": Questions,
    "scores": Scores,
    "watch": Answer,
    "listen": Answer,
    "verdict": Verdict,
    "segment-seen": Caption,
    "segment-heard": Caption,
    "merge": Merged,
    "trajectory": Trajectory,
    "audit": Audit,
}
