"""The truth of worlds and questions as plain values: narration, event times, rows of JSON and their fingerprint."""

import hashlib
import json
from typing import Any

from latentomni.avworld.questions import Question
from latentomni.avworld.world import World
from latentomni.clock import Window

__all__ = ["events", "narration", "question_row", "training_row", "truth_sha256"]

_LATENT_PAIR = "<Unified_Latent></Unified_Latent>"


def events(world: World) -> list[dict[str, Any]]:
    """One row per scene: what is shown and what sounds how often; spans as [start, end] seconds."""
    return [
        {
            "object": s.object, "colour": s.colour, "shape": s.shape, "place": s.place, "sound": s.sound,
            "repeats": s.repeats, "shown_s": _span(s.window), "sound_s": _span(s.sound_window),
            "bursts_s": [_span(burst) for burst in s.bursts],
        }
        for s in world.scenes
    ]  # fmt: skip


def _span(window: Window) -> list[float]:
    return [round(window.start_s, 4), round(window.end_s, 4)]


def narration(world: World) -> str:
    """One line per scene: `[0.0-2.0 s] red star, top left, bell, twice.`"""
    return "\n".join(f"{s.window} {s.seen}" for s in world.scenes)


def question_row(world: World, question: Question) -> dict[str, Any]:
    """All truth about one question, as JSON values."""
    return {
        "split": world.split,
        "seed": world.seed,
        "duration_s": world.duration_s,
        "family": question.family,
        "text": question.text,
        "answer": question.answer,
        "steps": [
            {"lead": s.lead, "window": str(s.window), "window_s": _span(s.window), "asked": s.asked, "seen": s.seen}
            for s in question.steps
        ],
        "closing": question.closing,
        "chance": round(question.chance, 6),
        "chance_picture": round(question.chance_picture, 6),
        "chance_sound": round(question.chance_sound, 6),
        "events": events(world),
    }


def training_row(question: Question, media: str) -> dict[str, Any]:
    """A question as a row of training data (docs/DATA.md)."""
    said = [f"{step.lead} {_LATENT_PAIR}" for step in question.steps]
    return {
        "media": media,
        "family": question.family,
        "messages": [
            {"role": "user", "content": question.text},
            {"role": "assistant", "content": " ".join([*said, question.closing])},
        ],
        "segments": [
            {"start_s": s.window.start_s, "end_s": s.window.end_s, "caption": s.seen} | ({"asked": s.asked} if s.asked else {})
            for s in question.steps
        ],
    }


def truth_sha256(drawn: list[tuple[World, Question]]) -> str:
    """Fingerprint of the canonical JSON of all rows: equal exactly where all truth is equal."""
    rows = [question_row(world, question) for world, question in drawn]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
