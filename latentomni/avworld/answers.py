"""The answers that each family of questions can have, and how they are found in free text."""

import re
from itertools import permutations

from latentomni.avworld.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, SOUNDS

__all__ = ["answers", "parse_answer"]

_ANSWERS = {
    "colour": COLOURS,
    "shape": SHAPES,
    "place": PLACES,
    "sound": SOUNDS,
    "sync": ("yes", "no"),
    "count": COUNTS,
    "order": COLOURS,
    "pair": tuple(f"{first} and {then}" for first, then in permutations(COLOURS, 2)),
}


def answers(family: str) -> tuple[str, ...]:
    """Every answer a question of this family can have."""
    return _ANSWERS[family]


def parse_answer(family: str, text: str) -> str | None:
    """The first answer of `family` that a free text names, or None; for "pair" the first two colours it names."""
    words = COLOURS if family == "pair" else answers(family)
    found = re.findall(rf"\b({'|'.join(words)})s?\b", text.lower().replace("-", " "))
    answer = " and ".join(found[:2]) if family == "pair" else "".join(found[:1])
    return answer if answer in answers(family) else None
