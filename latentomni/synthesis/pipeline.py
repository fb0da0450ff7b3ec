"""All stages in turn, each written as it ends: a run that was killed is started again with the same command and goes on from its replies."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from latentomni.synthesis.endpoint import Asker, prompt_versions
from latentomni.synthesis.engines import ENGINES
from latentomni.synthesis.report import dataset_card, funnel_row, histograms, report_text, truth_figures
from latentomni.synthesis.settings import Settings
from latentomni.synthesis.sources import Source, media_path
from latentomni.synthesis.stages import Item
from latentomni.synthesis.truth import Truth, truth_of

__all__ = ["synthesize"]

_REPLIES = "replies"
_LAST = ("train.jsonl", "rejects.jsonl", "report.json", "report.md")  # of a run that has come to its end


def synthesize(sources: Sequence[Source], settings: Settings, out: Path, engine: str = "local", workers: int = 1,
               shown: Callable[[Iterable, str, int], Iterable] = lambda done, stage, n: done) -> dict[str, Any]:  # fmt: skip
    """Make training rows of captioned clips; returns the report.

    `out` gets replies/ (every reply, by the hash of what was asked), a JSONL file per stage with what it kept, rejects.jsonl with
    the reasons, train.jsonl (docs/DATA.md), report.json, report.md and a dataset card. workers: as the engine understands them. shown(done, stage, n)
    tells progress. Raises EndpointError where a server fails; what was replied is kept. DataError for a source without notes where a role needs them.
    """
    for role, sense in (("watcher", "seen"), ("listener", "heard")):
        if not settings.roles[role].media:
            for source in sources:
                source.noted(sense)  # or say that there are no notes, before anything is asked
    out.mkdir(parents=True, exist_ok=True)
    for left in (*(out / name for name in _LAST), *out.glob("clips/*.partial*"), *out.glob("replies/*/*.partial")):
        left.unlink(missing_ok=True)  # of another run, or of one that was killed
    run = _Run(settings, out, ENGINES[engine], workers, shown)
    clips = [{"id": source.id, "source": json.loads(json.dumps(source.to_dict()))} for source in sources]
    questions = run.stage("questions", clips)
    scored = run.stage("scores", questions)
    balanced = run.settle("balance", scored, balance(scored, settings.max_imbalance, settings.seed))
    gated = run.stage("gate", balanced) if settings.gate else balanced
    if not settings.gate:
        (out / "gate.jsonl").unlink(missing_ok=True)  # of a run with other settings
    asked = {item["source"]["id"] for item in gated}
    segments = {item["id"]: item["segments"] for item in run.stage("segments", [clip for clip in clips if clip["id"] in asked])}
    joined = [{**item, "segments": segments[item["source"]["id"]]} for item in gated if item["source"]["id"] in segments]
    kept = run.stage("audit", run.stage("trajectories", joined))
    rows = [item["row"] for item in run.settle("rows", kept, [_with_row(item, out) for item in kept])]
    _write_lines(out / "train.jsonl", rows)
    return run.report(sources, rows)


def balance(items: Sequence[Item], most: float, seed: int) -> list[Item]:
    """No type of question is kept more than `most` times as often as the rarest; which ones go is drawn by their ids."""
    by_type: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item['id']}".encode()).hexdigest()):
        by_type[item["type"]].append(item)
    room = int(most * min(map(len, by_type.values()), default=0))
    gone = {item["id"] for group in by_type.values() for item in group[room:]}
    return [{**item, "rejected": "type too frequent"} if item["id"] in gone else item for item in items]


class _Run:
    """What the stages have come to so far."""

    def __init__(self, settings: Settings, out: Path, engine: Callable, workers: int, shown: Callable) -> None:
        self.settings, self.out, self.engine, self.workers, self.shown = settings, out, engine, workers, shown
        self.funnel: list[dict[str, Any]] = []
        self.stages: dict[str, list[Item]] = {}
        self.calls: list[str] = []

    def stage(self, name: str, items: list[Item]) -> list[Item]:
        results = self.engine(name, items, self.settings, self.out, self.workers, lambda done: self.shown(done, name, len(items))) if items else []
        self.calls += [call for result in results for call in result["calls"]]
        return self.settle(name, items, [item for result in results for item in result["items"]])

    def settle(self, name: str, entered: Sequence[Item], items: list[Item]) -> list[Item]:
        """Count and write down what a stage gave; returns what it kept."""
        self.stages[name] = items
        self.funnel.append(funnel_row(name, len(entered), items))
        kept = [item for item in items if "rejected" not in item]
        _write_lines(self.out / f"{name}.jsonl", kept)
        return kept

    def report(self, sources: Sequence[Source], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rejects = [{"stage": name, **item} for name, items in self.stages.items() for item in items if "rejected" in item]
        _write_lines(self.out / "rejects.jsonl", rejects)
        used = Asker(self.settings, self.out / _REPLIES).usage(self.calls)
        report = {
            "funnel": self.funnel,
            "rows": len(rows),
            "histograms": histograms(self.stages),
            "usage": {role: {"model": self.settings.roles[role].model, **told} for role, told in used.items()},
            "truth": truth_figures(self.stages, _truth) if sources and all(source.seed is not None for source in sources) else None,
            "prompts": prompt_versions(),
        }
        _write(self.out / "report.json", json.dumps(report, indent=1) + "\n")
        _write(self.out / "report.md", report_text(report, sources))
        card = self.out / "README.md"
        _write(card, dataset_card(report, rows, card.read_text(encoding="utf-8") if card.is_file() else ""))
        return report


def _truth(item: Item) -> Truth | None:
    return truth_of(_world(item["source"]["seed"]), item["question"])


@cache
def _world(seed: int) -> Any:
    from latentomni.avworld.world import sample_world

    return sample_world(seed, "train")


def _with_row(item: Item, out: Path) -> Item:
    """A kept item with its row of training data, or why it cannot be one."""
    from latentomni.training.records import LATENT_PAIR, row_problems

    source = Source(**item["source"])
    chosen = [item["segments"][step["segment"] - 1] for step in item["steps"]]
    said = " ".join(f"{step['say']} {LATENT_PAIR}" for step in item["steps"])
    row = {
        "media": source.media,
        "messages": [{"role": "user", "content": item["question"]}, {"role": "assistant", "content": f"{said} {item['conclusion']}"}],
        "segments": [{"start_s": s["start_s"], "end_s": s["end_s"], "caption": " ".join(filter(None, (s["seen"], s["heard"])))} for s in chosen],
        "answer": item["answer"],
        "id": item["id"],
        "family": item["type"],
    }
    media_path(source, out)
    problems = row_problems(row)
    return {**item, "rejected": "not a row of training data", "detail": "; ".join(problems)} if problems else {**item, "row": row}


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    """In one move: a kill leaves the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
