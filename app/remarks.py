"""What must be said about an answer: what was missing, what the model cannot know, and what a self test found."""

from typing import TYPE_CHECKING

from latentomni.events import Finished
from latentomni.trace import Trace

if TYPE_CHECKING:
    from latentomni.avworld.selftest import Verdict

__all__ = ["findings", "notices"]

_NANO_FOREIGN = "nano knows AV World only (24 coloured shapes, 6 sounds). If this clip is anything else, the answer is a guess and the latents mean nothing."


def notices(trace: Trace, is_foreign: bool) -> list[str]:
    """What a reader of this answer must know; how it ended stands in its caption. is_foreign: the clip was brought by a visitor."""
    said = [notice for notice in (*trace.clip.notices, *trace.notices) if notice not in Finished.ENDINGS.values()]
    if trace.weights == "random":
        said.append("This checkpoint has random weights; it was never trained, and its answers are noise.")
    elif trace.model == "nano" and is_foreign:
        said.append(_NANO_FOREIGN)
    return list(dict.fromkeys(said))


def findings(verdict: "Verdict") -> tuple[str, ...]:
    """What a self test found, a sentence each."""
    windows = " and ".join(f"{window.start_s:.1f}–{window.end_s:.1f} s" for window in verdict.true_windows)
    said = [f"Answer: {'right' if verdict.answer_right else 'wrong'}, true is {verdict.true_answer}."]
    said.append(f"Window: overlap {verdict.window_iou:.2f} with the true one, {windows} (1 is the same).")
    for modality, what in (("visual", "pictures"), ("audio", "sounds")):
        hit = verdict.evidence_hit[modality]
        place = {None: "there is none", 1.0: "inside the true window", 0.0: "outside the true window"}.get(hit, "partly inside the true windows")
        said.append(f"Evidence in {what}: {place}.")
    return tuple(said)
