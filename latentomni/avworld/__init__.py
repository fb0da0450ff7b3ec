"""AV World: clips with exactly known events, drawn from a seed. Training data, controlled benchmark and test clips."""

from latentomni.avworld.answers import parse_answer
from latentomni.avworld.picture import render_frames
from latentomni.avworld.questions import heldout_questions, questions
from latentomni.avworld.sound import render_sound
from latentomni.avworld.world import sample_world
from latentomni.avworld.writing import world_clip

__all__ = [
    "heldout_questions",
    "parse_answer",
    "questions",
    "render_frames",
    "render_sound",
    "sample_world",
    "world_clip",
]
