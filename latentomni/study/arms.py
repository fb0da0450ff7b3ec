"""What is compared: each arm is the first one with a thing or two changed."""

from dataclasses import dataclass, field, replace
from typing import Any

from latentomni.avworld.questions import Question
from latentomni.config import Mode
from latentomni.training.nano import question_turn
from latentomni.training.turns import Turn

__all__ = ["ARMS", "StudyArm"]

_INSTANTS = {20: 4, 40: 8, 60: 12}  # latents of a block: five an instant


@dataclass(frozen=True)
class StudyArm:
    """mode: how it reasons. latent: what changes in the start's LatentSpec. losses: what changes in its LossSpec. feedback: whether
    its own latents are fed back in training. tells_segments: without it what is looked for is said, but
    nothing of what is there. Arms that point at no segment have no search to be taught."""

    name: str
    mode: Mode = Mode.LATENT
    latent: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    feedback: bool = True
    tells_segments: bool = True

    def turn(self, question: Question) -> Turn:
        """What this arm learns of a question."""
        turn = question_turn(question, self.mode)
        if self.tells_segments:
            return turn
        said = [part for part in turn.parts if isinstance(part, str)]
        return replace(turn, parts=(said[0], *(f" {more.strip()}" for more in said[1:])))


ARMS = {
    arm.name: arm
    for arm in (
        StudyArm("latentomni"),
        StudyArm("explicit-text-cot", Mode.TEXT_COT),
        StudyArm("vanilla-sft", Mode.TEXT_COT, losses={"search": 0.0}, tells_segments=False),
        StudyArm("direct", Mode.DIRECT, losses={"search": 0.0}),
        StudyArm("no-ospe", latent={"positions": "sequential"}),
        StudyArm("relative-ospe", latent={"positions": "relative"}),
        StudyArm("upstream-ospe", latent={"positions": "upstream"}),
        StudyArm("no-alignment", losses={"alignment": 0.0}),
        StudyArm("no-sync", losses={"sync": 0.0}),
        StudyArm("no-visual-latents", latent={"visual": False}),
        StudyArm("no-audio-latents", latent={"audio": False}),
        StudyArm("open-flow", latent={"flow": "open"}),
        StudyArm("paper-flow", latent={"flow": "paper"}),
        StudyArm("anchors-only", feedback=False),
        *(StudyArm(f"k{k}", latent={"instants": n}) for k, n in _INSTANTS.items()),
    )
}
