"""How well a model in training answers fresh clips from its own windows and latents, family by family."""

from latentomni.answering import answer_batches
from latentomni.avworld import parse_answer, world_clip
from latentomni.avworld.questions import FAMILIES, draw_questions
from latentomni.config import Mode
from latentomni.modeling import Thinker

__all__ = ["family_accuracy"]

_FIRST_SEED = 30_000


def family_accuracy(thinker: Thinker, n: int = 200) -> dict[str, float]:
    """Share right per family on `n` questions of the validation split (never the test split)."""
    drawn = draw_questions("validation", n, _FIRST_SEED)
    clips = {w.name: thinker.encode_clip(world_clip(w)) for w in {w.name: w for w, _ in drawn}.values()}
    asked = [(clips[w.name], q.text) for w, q in drawn]
    right: dict[str, list[bool]] = {family: [] for family in FAMILIES}
    for (_, question), answer in zip(drawn, answer_batches(thinker, asked, Mode.LATENT), strict=True):
        right[question.family].append(parse_answer(question.family, answer.text) == question.answer)
    return {family: round(sum(hits) / len(hits), 3) for family, hits in right.items()}
