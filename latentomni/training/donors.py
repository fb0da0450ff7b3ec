"""The donor bank of a checkpoint: its own latents about other clips, the null of every evidence claim."""

import numpy as np

from latentomni.answering import answer_batches
from latentomni.avworld import questions, sample_world, world_clip
from latentomni.config import Mode
from latentomni.errors import CheckpointError
from latentomni.evidence import DonorBank
from latentomni.modeling import Thinker

__all__ = ["build_donors"]

_FIRST_SEED = 1_000_000  # far from the clips the model was trained on


def build_donors(thinker: Thinker, count: int = 256, modality: str = "") -> DonorBank:
    """First latent blocks of `count` clips of the training split that training never drew, one question each. modality: "visual" or
    "audio" where that alone is shown."""
    asked, rng = [], np.random.default_rng(_FIRST_SEED)
    for seed in range(_FIRST_SEED, _FIRST_SEED + count + count // 4):
        world = sample_world(seed, "train")
        pool = questions(world)
        clip = thinker.encode_clip(world_clip(world))
        asked.append((clip.only(modality) if modality else clip, pool[int(rng.integers(len(pool)))].text))
    k = thinker.spec.n_latents
    blocks = [a.latents[:k] for a in answer_batches(thinker, asked, Mode.LATENT) if len(a.latents) >= k][:count]
    if len(blocks) < count:
        raise CheckpointError(f"Only {len(blocks)} of {len(asked)} answers had a latent block, {count} are needed; train the model longer.")
    vectors = np.array([[step.vector for step in block] for block in blocks], dtype=np.float32)
    return DonorBank(vectors.transpose(1, 0, 2), thinker.spec.n_visual)
