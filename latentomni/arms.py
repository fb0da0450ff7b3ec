"""What may be changed of a finished answer, and to what: the arms, and one Change as a user asks for it. Needs no torch."""

import math
from dataclasses import dataclass
from enum import Enum

from latentomni.clock import Window
from latentomni.errors import require

__all__ = ["ARMS", "Arm", "Change", "ClipArm"]


class Arm(str, Enum):
    """What becomes of an answer's latents."""

    __str__ = str.__str__

    INTACT = "intact"
    ZERO = "zero"
    MEAN = "mean"
    NOISE = "noise"
    OTHER_CLIP = "other_clip"
    OTHER_TIME = "other_time"
    SHUFFLED = "shuffled"
    REMOVED_MARKERS_KEPT = "removed_markers_kept"
    MARKERS_REMOVED = "markers_removed"
    PAUSE_TOKENS = "pause_tokens"
    VISUAL_ONLY = "visual_only"
    AUDIO_ONLY = "audio_only"
    ORACLE = "oracle"

    @property
    def removes(self) -> bool:
        """Whole blocks go, so a single latent or modality cannot."""
        return self in (Arm.REMOVED_MARKERS_KEPT, Arm.MARKERS_REMOVED)


class ClipArm(str, Enum):
    """What becomes of the clip: picture and sound of a window gone, its sound alone gone, its sound moved."""

    __str__ = str.__str__

    BLACK_OUT = "black_out"
    MUTE = "mute"
    SHIFT_SOUND = "shift_sound"


ARMS = (*map(str, Arm), *map(str, ClipArm))
_DONE = {
    Arm.INTACT: "left as they were",
    Arm.ZERO: "replaced with zeros",
    Arm.MEAN: "replaced with their mean over other clips",
    Arm.NOISE: "replaced with noise of their slot's mean and covariance",
    Arm.OTHER_CLIP: "replaced with those of another clip",
    Arm.OTHER_TIME: "replaced with features of another window of the clip",
    Arm.SHUFFLED: "put in another order",
    Arm.REMOVED_MARKERS_KEPT: "removed, their markers kept",
    Arm.MARKERS_REMOVED: "removed with their markers",
    Arm.PAUSE_TOKENS: "replaced with pause tokens",
    Arm.VISUAL_ONLY: "kept where visual, the others replaced with their mean over other clips",
    Arm.AUDIO_ONLY: "kept where audio, the others replaced with their mean over other clips",
    Arm.ORACLE: "replaced with features of the stated window",
}


@dataclass(frozen=True)
class Change:
    """One change of an answer's latents, or of the clip it is about.

    arm: one of `ARMS`. block, latent: numbers from 0, `latent` within its block; modality: "visual" or "audio". Together
    they say which latents are meant: all where none is given. window, shift_s (seconds, later is positive): of the clip's
    arms. Without a window these take the window that `block` states or all stated windows, and the whole sound is shifted.
    """

    arm: str
    block: int | None = None
    latent: int | None = None
    modality: str = ""
    window: Window | None = None
    shift_s: float = 0.5

    def __post_init__(self) -> None:
        require(self.arm in ARMS, f"There is no arm '{self.arm}'; choose one of {', '.join(ARMS)}.")
        object.__setattr__(self, "arm", Arm(self.arm) if self.arm in tuple(Arm) else ClipArm(self.arm))
        require(self.modality in ("", "visual", "audio"), f"A modality is visual or audio, got '{self.modality}'; leave it out for both.")
        require(self.latent is None or self.block is not None, "A latent is counted within its block; say which block as well.")
        for name in ("block", "latent"):
            require((getattr(self, name) or 0) >= 0, f"A {name} is counted from 0, got {getattr(self, name)}.")
        if self.changes_clip:
            is_narrow = self.latent is not None or self.modality
            require(not is_narrow, f"{self.arm} changes the clip and not single latents; give a window, or choose another arm.")
            is_moved = math.isfinite(self.shift_s) and self.shift_s != 0
            require(is_moved or self.arm is not ClipArm.SHIFT_SOUND, f"A shift is some seconds, not {self.shift_s}; try 0.5.")
        else:
            require(self.window is None, f"{self.arm} changes latents and not the clip; leave out the window, or choose another arm.")
            is_part = self.latent is not None or self.modality
            require(not (self.arm.removes and is_part), f"{self.arm} removes whole blocks; leave out latent and modality, or choose zero.")

    @property
    def changes_clip(self) -> bool:
        return isinstance(self.arm, ClipArm)

    @property
    def target(self) -> str:
        """Which latents are meant, in words."""
        kind = f"{self.modality} " if self.modality else ""
        if self.latent is not None:
            return f"{kind}latent {self.latent} of block {self.block}"
        return f"all {kind}latents" if self.block is None else f"the {kind}latents of block {self.block}"

    def sentence(self, windows: tuple[Window, ...] = ()) -> str:
        """What was done, for a person. windows: those of the clip that were changed."""
        where = " and ".join(map(str, windows))
        if self.arm is ClipArm.BLACK_OUT:
            return f"Picture and sound of {where} were taken out of the clip."
        if self.arm is ClipArm.MUTE:
            return f"The sound of {where} was taken out of the clip."
        if self.arm is ClipArm.SHIFT_SOUND:
            way = "later" if self.shift_s > 0 else "earlier"
            return f"The {f'sound of {where}' if where else 'whole sound'} was moved {abs(self.shift_s):g} s {way}."
        changed = f"{self.target[0].upper()}{self.target[1:]} {'was' if self.latent is not None else 'were'} {_DONE[self.arm]}."
        return changed if self.latent is None else changed.replace("their", "its")
