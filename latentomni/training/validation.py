"""How well a model in training answers fresh clips: from its own windows and latents by family, and in the other modes."""

from latentomni.answering import answer_batches
from latentomni.avworld import parse_answer, world_clip
from latentomni.avworld.questions import FAMILIES, draw_questions
from latentomni.config import Mode
from latentomni.modeling import Thinker

__all__ = ["validate"]

_FIRST_SEED = 30_000


def validate(thinker: Thinker, n: int = 200, n_others: int = 80, modality: str = "") -> dict[str, float | dict[str, float]]:
    """Share right on questions of the validation split (never the test split): latent by family and overall, text-cot, direct.
    modality: "visual" or "audio" where that alone is shown."""
    drawn = draw_questions("validation", n, _FIRST_SEED)
    clips = {w.name: thinker.encode_clip(world_clip(w)) for w in {w.name: w for w, _ in drawn}.values()}
    clips = {name: clip.only(modality) for name, clip in clips.items()} if modality else clips
    right: dict[str, list[bool]] = {family: [] for family in FAMILIES}
    told: dict[str, float | dict[str, float]] = {}
    for mode in Mode:
        some = drawn if mode is Mode.LATENT else drawn[:n_others]
        answers = answer_batches(thinker, [(clips[w.name], q.text) for w, q in some], mode)
        hits = [parse_answer(q.family, a.text) == q.answer for (_, q), a in zip(some, answers, strict=True)]
        told[str(mode)] = round(sum(hits) / len(hits), 3)
        if mode is Mode.LATENT:
            for (_, question), hit in zip(drawn, hits, strict=True):
                right[question.family].append(hit)
            told["families"] = {family: round(sum(h) / len(h), 3) for family, h in right.items()}
    return told
