"""The truth of worlds and questions as plain values: narration, event times, rows of JSON and their fingerprint."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from latentomni.avworld.questions import Question
from latentomni.avworld.world import World

__all__ = ["events", "narration", "question_row", "truth_sha256"]


def events(world: World) -> list[dict[str, Any]]:
    """One row per scene: what is shown and what sounds, `shown_s` and `sound_s` as [start, end] seconds."""
    return [
        {
            "object": s.object, "colour": s.colour, "shape": s.shape, "place": s.place, "sound": s.sound,
            "shown_s": [s.window.start_s, s.window.end_s],
            "sound_s": [round(s.sound_window.start_s, 4), round(s.sound_window.end_s, 4)],
        }
        for s in world.scenes
    ]  # fmt: skip


def narration(world: World) -> str:
    """One line per scene: `[0.0-2.0 s] red star, top left, bell.`"""
    return "\n".join(f"{s.window} {s.object}, {s.place}, {s.sound}." for s in world.scenes)


def question_row(world: World, question: Question) -> dict[str, Any]:
    """All truth about one question, as JSON values."""
    row = asdict(question)
    return {
        "split": world.split,
        "seed": world.seed,
        "duration_s": world.duration_s,
        **row,
        "window": str(question.window),
        "window_s": [question.window.start_s, question.window.end_s],
        "chance": round(question.chance, 6),
        "chance_picture": round(question.chance_picture, 6),
        "chance_sound": round(question.chance_sound, 6),
        "events": events(world),
    }


def truth_sha256(drawn: list[tuple[World, Question]]) -> str:
    """Fingerprint of the canonical JSON of all rows: equal exactly where all truth is equal."""
    rows = [question_row(world, question) for world, question in drawn]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
