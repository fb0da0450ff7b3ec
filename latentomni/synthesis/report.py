"""What a synthesis came to: the funnel with every reason, histograms, what it cost, and on AV World how much of it is true."""

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from latentomni.clock import Window
from latentomni.synthesis.sources import Source
from latentomni.synthesis.stages import Item

__all__ = ["dataset_card", "funnel_row", "histograms", "report_text", "truth_figures"]

_COVERED = 0.5  # of a window, by another: it is the same moment
_BAR = 30
_FILLED_IN = "**Licences and consent.**"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (float("inf"), "100K<n<1M"))


def funnel_row(stage: str, entered: int, items: Sequence[Item]) -> dict[str, Any]:
    """entered: items that came in; one may become several."""
    rejected = Counter(item["rejected"] for item in items if "rejected" in item)
    return {"stage": stage, "in": entered, "kept": sum("rejected" not in item for item in items), "rejected": dict(sorted(rejected.items()))}


def histograms(stages: dict[str, list[Item]]) -> dict[str, dict[str, int]]:
    """Over scored questions: marks, totals and types; over what is kept in the end: types and citations."""
    scored = [item for item in stages.get("scores", []) if "scores" in item]
    kept = [item for item in stages.get("audit", []) if "rejected" not in item]
    drawn: dict[str, list[Any]] = {name: [item["scores"][name] for item in scored] for name in ("difficulty", "rigour", "modality_dependence")}
    drawn["total score"] = [sum(item["scores"].values()) for item in scored]
    drawn["type, scored"] = [item["type"] for item in scored]
    drawn["type, kept"] = [item["type"] for item in kept]
    drawn["citations, kept"] = [len(item["steps"]) for item in kept]
    return {name: {str(value): count for value, count in sorted(Counter(values).items())} for name, values in drawn.items()}


def truth_figures(stages: dict[str, list[Item]], truths: Callable[[Item], Any]) -> dict[str, Any]:
    """How much is right where the truth is known; truths(item) -> Truth, or None where the question is not understood.

    gate: `precision`, the share of what it kept that needs both modalities, beside the share before it, and `recall`. citations:
    `precision`, the share of cited segments that lie in a true moment, and `recall`, the share of true moments that are cited. answers:
    the share of kept answers that are right. Each with the number it is over; None over nothing.
    """
    entered = _judged(stages.get("gate", []), truths)
    passed = [(item, truth) for item, truth in entered if "rejected" not in item]
    needing = [truth.needs_both for _, truth in entered]
    kept = _judged([item for item in stages.get("audit", []) if "rejected" not in item], truths)
    cited = [(Window(*span), truth) for item, truth in kept for span in _cited_s(item)]
    moments = [(item, window) for item, truth in kept for window in truth.windows]
    return {
        "gate": {
            "precision": _share([truth.needs_both for _, truth in passed]),
            "before": _share(needing),
            "recall": _share(["rejected" not in item for item, truth in entered if truth.needs_both]),
        },
        "citations": {
            "precision": _share([any(_is_within(window, true) for true in truth.windows) for window, truth in cited]),
            "recall": _share([any(_is_within(Window(*span), true) for span in _cited_s(item)) for item, true in moments]),
        },
        "answers": {"precision": _share([truth.is_answer(item["answer"]) for item, truth in kept])},
        "not understood": sum(truths(item) is None for item in stages.get("gate", [])),
    }


def _judged(items: Sequence[Item], truths: Callable[[Item], Any]) -> list[tuple[Item, Any]]:
    return [(item, truth) for item in items if (truth := truths(item)) is not None]


def _cited_s(item: Item) -> list[tuple[float, float]]:
    chosen = [item["segments"][step["segment"] - 1] for step in item["steps"]]
    return [(segment["start_s"], segment["end_s"]) for segment in chosen]


def _is_within(window: Window, true: Window) -> bool:
    shared_s = min(window.end_s, true.end_s) - max(window.start_s, true.start_s)
    return shared_s >= _COVERED * (window.end_s - window.start_s)


def _share(values: Sequence[bool]) -> dict[str, Any]:
    return {"value": round(sum(values) / len(values), 4) if values else None, "n": len(values)}


def report_text(report: dict[str, Any], sources: Sequence[Source]) -> str:
    """The report as Markdown."""
    lines = ["# What became of the clips", "", f"{len(sources)} clips, {report['rows']} rows of training data.", ""]
    lines += ["| stage | in | kept | rejected |", "|---|---|---|---|"]
    for row in report["funnel"]:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in row["rejected"].items()) or "none"
        lines.append(f"| {row['stage']} | {row['in']} | {row['kept']} | {reasons} |")
    lines += ["", "| role | model | requests | tokens in | tokens out | dollars |", "|---|---|---|---|---|---|"]
    lines += [f"| {role} | {u['model']} | {u['requests']} | {u['tokens_in']} | {u['tokens_out']} | {u['dollars']:.4f} |" for role, u in report["usage"].items()]
    if report["truth"]:
        lines += ["", "| held against the truth of AV World | share | of |", "|---|---|---|"]
        for name in ("gate", "citations", "answers"):
            lines += [f"| {name}: {figure} | {_shown(share['value'])} | {share['n']} |" for figure, share in report["truth"][name].items()]
        lines += ["", f"Questions at the gate that are not understood, and left out of these shares: {report['truth']['not understood']}."]
    for name, counts in report["histograms"].items():
        lines += ["", f"## {name}", "", "```"]
        most = max(counts.values(), default=1)
        lines += [f"{value:>32} {'#' * round(_BAR * count / most)} {count}" for value, count in counts.items()] + ["```"]
    return "\n".join(lines) + "\n"


def dataset_card(report: dict[str, Any], rows: Sequence[dict[str, Any]], former: str = "") -> str:
    """The card of what was made, as the Hub reads it; what only its maker knows, its last part, is left to be filled in, or is that of
    the former card."""
    template = Template((files("latentomni.synthesis") / "card.md").read_text(encoding="utf-8"))
    lasting = [segment["end_s"] - segment["start_s"] for row in rows for segment in row["segments"]] or [0.0]
    card = template.substitute(
        size=next(name for most, name in _SIZES if len(rows) < most),
        rows=len(rows),
        clips=len({row["media"] for row in rows}),
        segments=sum(len(row["segments"]) for row in rows),
        shortest=f"{min(lasting):.1f}",
        longest=f"{max(lasting):.1f}",
        sources=report["funnel"][0]["in"],
        models=", ".join(sorted({used["model"] for used in report["usage"].values()})),
        prompts=", ".join(f"{name} {told}" for name, told in report["prompts"].items()),
        funnel="\n".join(f"| {row['stage']} | {row['in']} | {row['kept']} |" for row in report["funnel"]),
        types="\n".join(f"| {name} | {count} |" for name, count in report["histograms"]["type, kept"].items()),
        truth=_truth_told(report["truth"]),
    )
    made, filled_in = (text.partition(_FILLED_IN) for text in (card, former))
    return made[0] + _FILLED_IN + (filled_in[2] or made[2])


def _truth_told(truth: dict[str, Any] | None) -> str:
    if truth is None:
        return "Unknown: run the same models and prompts on `--source avworld-questions`, where the truth is known."
    told = (("gate", "questions that passed the gate need both modalities"), ("citations", "cited segments lie in a moment that is asked about"),
            ("answers", "answers are right"))  # fmt: skip
    shares = [f"{_shown(truth[name]['precision']['value'])} of the {truth[name]['precision']['n']} {what}" for name, what in told]
    return f"On AV World, where the truth is known and the question is understood: {', '.join(shares)}."


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
