"""`study`: the controlled comparison, trained, scored and written up."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentomni.commands.arguments import add_command, new_folder, positive
from latentomni.errors import RequestError

__all__ = ["add_to"]

_RESULTS = "results"  # the section's name in the report


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "study",
        _run,
        "Compare ways to reason: train the arms from one start on the same data, score them, and write tables and charts.",
        "study",
        "study --from-logs docs/study --json",
        "study --arms latentomni,direct --begin-from nano --steps 20 --n 40 --out runs/trial --logs runs/trial/logs",
    )
    parser.add_argument("--from-logs", type=Path, metavar="DIR", help="train nothing: write the report of these runs again")
    parser.add_argument("--out", type=new_folder, default=Path("runs/study"), metavar="DIR", help="what is being trained; default: %(default)s")
    parser.add_argument("--logs", type=new_folder, default=Path("docs/study"), metavar="DIR", help="one JSON file a run; default: %(default)s")
    parser.add_argument("--arms", metavar="A,B", help="some arms only")
    parser.add_argument("--begin-from", metavar="MODEL", help="a checkpoint to begin from, instead of training the start")
    parser.add_argument("--steps", type=positive, help="of each run")
    parser.add_argument("--n", type=positive, help="questions of each set")
    parser.add_argument("--seed", type=int, help="the first of three seeds; default: 1")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    done = 0
    if args.from_logs is None:
        from latentomni.study.grid import run_study

        done = run_study(args.out, args.logs, _spec(args), say, _progress)
    logs = args.from_logs or args.logs
    summary = _report(logs, say)
    return {**summary, "model": "nano", "weights": "nano", "trained": done, "seed": summary["seeds"][0]}


def _spec(args: argparse.Namespace) -> Any:
    from latentomni.study.arms import ARMS
    from latentomni.study.grid import StudySpec
    from latentomni.study.report import REFERENCE

    spec = StudySpec()
    if args.arms:
        chosen = tuple(args.arms.split(","))
        if unknown := sorted(set(chosen) - set(ARMS)):
            raise RequestError(f"there is no arm {', '.join(unknown)}; choose some of {', '.join(ARMS)}.")
        if REFERENCE not in chosen and not any(args.logs.glob(f"{REFERENCE}-*.json")):
            raise RequestError(f"{args.logs} has no run of {REFERENCE}, which all arms are compared with; add it to --arms.")
        spec = replace(spec, arms=chosen)
    if args.steps:
        spec = replace(spec, steps=args.steps)
    if args.n:
        few = {name: min(getattr(spec.scores, name), args.n) for name in ("changed", "watched")}
        spec = replace(spec, scores=replace(spec.scores, answered=args.n, **few))
    if args.seed is not None:
        spec = replace(spec, seeds=tuple(args.seed + k for k in range(len(spec.seeds))))
    return replace(spec, begin_from=args.begin_from) if args.begin_from else spec


def _report(logs: Path, say: Callable[..., None]) -> dict[str, Any]:
    """Write tables and charts of what was logged; returns them as figures."""
    from latentomni.markdown import write_section
    from latentomni.study.report import read_study, summarise, tables
    from visualizers.charts import draw_chart, plot_chart
    from visualizers.study import compute_charts

    summary = summarise(read_study(logs))
    folder = logs / "charts"
    folder.mkdir(exist_ok=True)
    pictures = []
    for chart in compute_charts(summary):
        (folder / f"{chart.name}.svg").write_text(draw_chart(chart), encoding="utf-8")
        (folder / f"{chart.name}.plotly.json").write_text(plot_chart(chart).to_json() + "\n", encoding="utf-8")
        pictures.append(f"![{chart.title}]({logs.name}/charts/{chart.name}.svg)")
    text = tables(summary)
    path = write_section(logs.parent / "STUDY.md", _RESULTS, f"{text}\n\n" + "\n\n".join(pictures))
    for name, recipe in summary["recipes"].items():
        say(f"{name:20}{recipe['mean']:7.3f}  easy {recipe['easy']['mean']:.3f}  hard {recipe['hard']['mean']:.3f}")
    say(f"Written to {path} and {folder}.")
    return summary


def _progress(items: Iterable, what: str) -> Iterable:
    from tqdm import tqdm

    return tqdm(items, desc=what, mininterval=5, leave=False)
