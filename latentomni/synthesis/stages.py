"""The stages of synthesis: each takes one item and gives the items that it becomes, or the item with the reason why it is rejected.

They know nothing of each other nor of how many run at once: the same functions run under asyncio and under Ray.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentomni.synthesis.endpoint import Asker, UnusableReply
from latentomni.synthesis.sources import Source, pictures, sound

__all__ = ["STAGES", "Item", "Work", "run_stage"]

Item = dict[str, Any]

_ANSWER_WORDS = 10
_TIME = re.compile(r"\b\d+:\d\d\b|\b\d+(?:\.\d+)?\s*(?:s|sec|secs|seconds?|minutes?)\b", re.IGNORECASE)
_SECOND_HAND = re.compile(
    r"\b(?:captions?|captioned|descriptions?|described|transcripts?|narrations?|segments?|pieces?|timestamps?|according to)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Work:
    """What a stage works with. out: the folder of the run, where clips of AV World lie."""

    asker: Asker
    out: Path
    calls: list[str]

    async def ask(self, prompt: str, parts: list[dict[str, Any]] | tuple = (), **values: Any) -> dict[str, Any]:
        return await self.asker.ask(prompt, self.calls, parts, **values)

    async def sensed(self, role: str, sense: str, source: Source, start_s: float, end_s: float) -> tuple[str, list[dict[str, Any]]]:
        """What a watcher or listener is given of a span: media behind the text where it takes them, else the notes. Clips are read aside, while
        requests go on."""
        if not self.asker.settings.roles[role].media:
            return source.noted(sense, start_s, end_s), []
        parts = await asyncio.to_thread(pictures if sense == "seen" else sound, source, self.out, start_s, end_s)
        return ("(attached)" if parts else "Nothing."), parts


async def run_stage(name: str, item: Item, asker: Asker, out: Path) -> dict[str, Any]:
    """{"items": what `item` became, "calls": keys of the replies it took}. A reply that cannot be used rejects the item."""
    work = Work(asker, out, [])
    try:
        items = await STAGES[name](item, work)
    except UnusableReply as error:
        items = [_rejected(item, "unusable reply", error.reason)]
    return {"items": items, "calls": work.calls}


async def _questions(item: Item, work: Work) -> list[Item]:
    """A source becomes questions; what breaks the rules of the prompt is rejected."""
    count, own = work.asker.settings.questions_per_clip, item["source"]["questions"]
    if own:
        pairs = [{"question": question, "answer": answer} for question, answer in own]
    else:
        pairs = (await work.ask("questions", caption=item["source"]["caption"], count=count))["questions"][:count]
    written, known = [], set()
    for number, pair in enumerate(pairs, 1):
        one = {**item, "id": f"{item['id']}/{number}", **pair}
        reason = _question_fault(pair) or ("asked twice" if pair["question"].lower() in known else "")
        known.add(pair["question"].lower())
        written.append(_rejected(one, reason) if reason else one)
    return written


def _question_fault(pair: dict[str, str]) -> str:
    if len(pair["answer"].split()) > _ANSWER_WORDS:
        return "answer too long"
    if _TIME.search(f"{pair['question']} {pair['answer']}"):
        return "gives a time"
    if _SECOND_HAND.search(pair["question"]):
        return "speaks of a caption"
    return _special_fault(*pair.values())


def _special_fault(*texts: str) -> str:
    """The program sets the special tokens; a reply may not."""
    return "special token" if any(re.search(r"<\|\w+\|>|</?Unified_Latent", text) for text in texts) else ""


async def _scores(item: Item, work: Work) -> list[Item]:
    told = await work.ask("scores", caption=item["source"]["caption"], question=item["question"], answer=item["answer"])
    marks = {name: told[name] for name in ("difficulty", "rigour", "modality_dependence")}
    scored = {**item, "scores": marks, "type": told["type"]}
    settings = work.asker.settings
    if sum(marks.values()) < settings.min_total or min(marks.values()) < settings.min_each:
        return [_rejected(scored, "scores too low")]
    return [scored]


async def _gate(item: Item, work: Work) -> list[Item]:
    """Kept only where it is answered wrongly from the picture alone and from the sound alone."""
    source = Source(**item["source"])
    guesses = {}
    for prompt, role, sense in (("watch", "watcher", "seen"), ("listen", "listener", "heard")):
        text, parts = await work.sensed(role, sense, source, 0.0, source.duration_s)
        guess = (await work.ask(prompt, parts, **{sense: text}, question=item["question"]))["answer"]
        verdict = await work.ask("verdict", question=item["question"], answer=item["answer"], given=guess)
        guesses[sense] = {"answer": guess, "right": verdict["right"]}
    gated = {**item, "guesses": guesses}
    right = [sense for sense, guess in guesses.items() if guess["right"]]
    return [_rejected(gated, "answered from what is " + " or ".join(right))] if right else [gated]


async def _segments(item: Item, work: Work) -> list[Item]:
    """A source with its segments: captions of each sense apart, then mended by what is known of the whole."""
    source, merged = Source(**item["source"]), []
    for start_s, end_s in source.spans_s:
        told = {}
        for prompt, role, sense in (("segment-seen", "watcher", "seen"), ("segment-heard", "listener", "heard")):
            text, parts = await work.sensed(role, sense, source, start_s, end_s)
            told[sense] = (await work.ask(prompt, parts, **{sense: text}))["caption"]
        span = {"start_s": round(start_s, 3), "end_s": round(end_s, 3)}
        mended = await work.ask("merge", caption=source.caption, **span, **told)
        if mended.pop("supported") and (mended["seen"].strip() or mended["heard"].strip()) and not _special_fault(*mended.values()):
            merged.append({**span, **{sense: text.strip() for sense, text in mended.items()}})
    segmented = {**item, "segments": merged}
    return [segmented] if merged else [_rejected(segmented, "no segment is supported")]


async def _trajectories(item: Item, work: Work) -> list[Item]:
    """Steps that cite segments; what breaks the rules is asked for again with the complaint."""
    complaint = ""
    for _ in range(work.asker.settings.attempts):
        told = await work.ask("trajectory", segments=_listed(item["segments"]), question=item["question"], answer=item["answer"], complaint=complaint)
        fault = _trajectory_fault(told, item)
        if not fault:
            return [{**item, **told}]
        complaint = f"An earlier try was refused: {fault}.\n"
    return [_rejected({**item, **told}, "trajectory " + fault.partition(":")[0], fault)]


def _trajectory_fault(told: dict[str, Any], item: Item) -> str:
    texts = [step["say"] for step in told["steps"]] + [told["conclusion"]]
    numbers = [step["segment"] for step in told["steps"]]
    if max(numbers) > len(item["segments"]):
        return f"goes to a piece that is not there: {max(numbers)} of {len(item['segments'])}"
    if found := next(filter(None, map(_SECOND_HAND.search, texts)), None):
        return f"is not first-hand: it says {found.group()!r}"
    if found := next(filter(None, map(_TIME.search, texts)), None):
        return f"gives a time: {found.group()!r}"
    if item["answer"].strip(" .").lower() not in told["conclusion"].lower():
        return f"lacks the answer: the conclusion does not contain {item['answer']!r}"
    return _special_fault(*texts)


async def _audit(item: Item, work: Work) -> list[Item]:
    """Citations corrected, side branches and second looks at one piece dropped, or all of it rejected."""
    lines = [f"Step {number}: {step['say']} (looks at {step['segment']})" for number, step in enumerate(item["steps"], 1)]
    trajectory = "\n".join([*lines, f"Conclusion: {item['conclusion']}"])
    told = await work.ask("audit", segments=_listed(item["segments"]), question=item["question"], answer=item["answer"], trajectory=trajectory)
    numbers = told["segments"]
    audited = {**item, "audit": told}
    if not told["accept"]:
        return [_rejected(audited, "refused by the auditor", told["reason"])]
    if len(numbers) != len(item["steps"]) or max(numbers) > len(item["segments"]):
        return [_rejected(audited, "audit does not fit the steps", f"{numbers} for {len(item['steps'])} steps and {len(item['segments'])} segments")]
    steps: dict[int, dict[str, Any]] = {}
    for step, number in zip(item["steps"], numbers, strict=True):
        if number:
            steps.setdefault(number, {**step, "segment": number})
    return [{**audited, "steps": list(steps.values())}] if steps else [_rejected(audited, "no step is left")]


def _listed(segments: list[dict[str, Any]]) -> str:
    return "\n".join(f"{number}. Seen: {s['seen'] or 'nothing'} Heard: {s['heard'] or 'nothing'}" for number, s in enumerate(segments, 1))


def _rejected(item: Item, reason: str, detail: str = "") -> Item:
    return {**item, "rejected": reason, **({"detail": detail} if detail else {})}


STAGES: dict[str, Callable[[Item, Work], Awaitable[list[Item]]]] = {
    "questions": _questions,
    "scores": _scores,
    "gate": _gate,
    "segments": _segments,
    "trajectories": _trajectories,
    "audit": _audit,
}
