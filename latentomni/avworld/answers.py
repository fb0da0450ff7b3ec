"""The answers that each family of questions can have, and how they are found in free text."""

import re
from itertools import permutations

from latentomni.avworld.vocabulary import COLOURS, COUNTS, ORDINALS, PLACES, SHAPES, SOUNDS

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
    **dict.fromkeys(("shade", "loudness", "pitch", "onset"), ORDINALS),
}


def answers(family: str) -> tuple[str, ...]:
    """Every answer a question of this family can have."""
    return _ANSWERS[family]


def parse_answer(family: str, text: str) -> str | None:
    """The first answer of `family` in the last sentence that names one, or None; for "pair" the first two colours of it.

    What is said before, in thinking aloud, is not the answer.
    """
    words = COLOURS if family == "pair" else answers(family)
    for sentence in reversed(re.split(r"[.!?\n]", text.lower().replace("-", " "))):
        found = re.findall(rf"\b({'|'.join(words)})s?\b", sentence)
        answer = " and ".join(found[:2]) if family == "pair" else "".join(found[:1])
        if answer in answers(family):
            return answer
    return None
