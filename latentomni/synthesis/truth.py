"""What is true of a question about an AV World clip: whether it needs both modalities, its answer, and which moments it is about.

A question is understood by its words: which sounds and objects of the clip it names, and what it asks for. What is not understood is
not judged, and counted as such.
"""

import re
from dataclasses import dataclass

from latentomni.avworld.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, SOUNDS
from latentomni.avworld.world import Scene, World
from latentomni.clock import Window

__all__ = ["Truth", "truth_of"]

_SEEN = {
    "colour": re.compile(r"\bcolou?rs?\b"),
    "shape": re.compile(r"\bshapes?\b"),
    "place": re.compile(r"\bwhere\b|\bcorner\b|\bposition\b"),
    "object": re.compile(r"\b(?:what|which) (?:object|thing|is (?:shown|seen|visible|on screen|displayed))\b|\bwhat do you see\b|\bwhich object\b"),
}
_HEARD = {
    "count": re.compile(r"\bhow (?:many times|often)\b"),
    "sound": re.compile(r"\b(?:what|which) sounds?\b|\b(?:what|which) (?:is|do you|can you|can be) hear(?:d)?\b|\bwhat do you hear\b"),
}
_NUMERALS = {1: "one|1", 2: "two|2", 3: "three|3|thrice"}
_BESIDE = re.compile(r"\b(?:right |just |directly |immediately )?(after|before)\b")


@dataclass(frozen=True)
class Truth:
    """needs_both: neither picture nor sound alone has what is asked for and what it is asked by. windows: the scenes that it is about.
    answer: what is right."""

    needs_both: bool
    windows: tuple[Window, ...]
    answer: str

    def is_answer(self, text: str) -> bool:
        """Whether a free answer names what is right and no other word of its kind."""
        words = next((kind for kind in (COLOURS, SHAPES, PLACES, SOUNDS, COUNTS) if self.answer in kind), None)
        text = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
        if words is None:  # an object: colour and shape
            return self.answer in text
        named = {word for word in words if re.search(rf"\b{word}\b", text)}
        if words is COUNTS:
            named |= {COUNTS[number - 1] for number, others in _NUMERALS.items() if re.search(rf"\b(?:{others})\b", text)}
        return named == {self.answer}


def truth_of(world: World, question: str) -> Truth | None:
    """What is true of a question in words, or None where it is not understood."""
    text = question.lower().replace("-", " ")
    asked = _asked(text)
    named = _named(world, text)
    if asked is None or named is None:
        return None
    scene, is_heard = named
    way = _BESIDE.search(text)
    other = _beside(world, scene, way.group(1)) if way else scene
    if other is None:
        return None
    asks_sound = asked in _HEARD
    answer = getattr(other, asked)
    windows = (scene.window,) if other is scene else (scene.window, other.window)
    return Truth(is_heard != asks_sound, windows, answer)


def _asked(text: str) -> str | None:
    """The one property that is asked for: the first that the question names."""
    found = [(match.start(), name) for name, pattern in {**_SEEN, **_HEARD}.items() if (match := pattern.search(text))]
    return min(found)[1] if found else None


def _named(world: World, text: str) -> tuple[Scene, bool] | None:
    """The one scene that the question points to, and whether by its sound; None where it is none, or several, or by both senses."""
    heard = [s for s in world.scenes if re.search(rf"\b{s.sound.removesuffix('s')}s?\b", text)]
    seen = [s for s in world.scenes if re.search(rf"\b{s.object}s?\b", text)]
    if not seen:  # a shape or a colour alone, where only one scene has it
        for words in (SHAPES, COLOURS):
            told = [word for word in words if re.search(rf"\b{word}s?\b", text)]
            seen = seen or [s for s in world.scenes if told and {s.shape, s.colour} & set(told)]
    pointed = [(s, True) for s in heard] + [(s, False) for s in seen]
    return pointed[0] if len(pointed) == 1 else None


def _beside(world: World, scene: Scene, way: str) -> Scene | None:
    number = scene.index + (1 if way == "after" else -1)
    return world.scenes[number] if 0 <= number < len(world.scenes) else None
