"""`bench`: what this code costs beside its peers."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from latentomni.commands.arguments import add_command, add_model, new_file, positive
from latentomni.errors import require

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "bench",
        _run,
        "Measure this code beside its peers, in one interleaved run each; a ratio is ours / peer.",
        "bench decode media --json",
        "bench decode --model runs/nano/checkpoint --n 20",
        "bench load --users 1,4,16,32 --json",
        "bench soak --minutes 60 --json",
        "bench drift --quantization nf4 --plot drift.svg --json",
        "bench abuse --n 2000 --json",
        "bench synthesize --json",
    )
    parser.add_argument("names", metavar="NAME", nargs="+", choices=list(_BENCHES), help=" or ".join(_BENCHES))
    add_model(parser)
    parser.add_argument("--n", type=positive, help="repeats; default: the benchmark's own")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--users", metavar="N,N", type=_numbers, help="of load: how many ask at once; default: 1,4,16,32")
    parser.add_argument("--minutes", metavar="M", type=positive, help="of soak; default: 2")
    parser.add_argument("--plot", metavar="FILE", type=new_file, help="where to draw drift, as SVG")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    plain = sorted(set(args.names) - _QUANTISED)
    require(args.quantization in (None, "none") or not plain, f"bench {' '.join(plain)} measures what is not quantised; leave --quantization out.")
    require(args.plot is None or "drift" in args.names, "--plot draws drift, which is not among the benchmarks named; add it, or leave --plot out.")
    require(args.users is None or "load" in args.names, "--users is of load, which is not among the benchmarks named; add it, or leave --users out.")
    require(args.minutes is None or "soak" in args.names, "--minutes is of soak, which is not among the benchmarks named; add it, or leave it out.")
    repeats = {} if args.n is None else {"repeats": args.n}
    about: dict[str, Any] = {"device": "cpu"}
    figures: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(args.names):  # each is told when it is known: the next may take an hour, or fail
        values = figures[name] = _BENCHES[name](args, repeats, about)
        compared = [
            f"{what}: ours {part['ours']:.4g}, peer {part['peer']:.4g}, ratio {part['ratio']:.3f}" for what, part in _comparisons(name, values)
        ]
        for line in compared or _plain_figures(name, values):
            say(line)
        say(f"{name} measured {values['shape']}")
    ok = all(values.pop("is_clean", True) for values in figures.values())
    return {**figures, **about, "seed": args.seed, "ok": ok}


def _comparisons(name: str, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whatever has a ratio, by its names from the outside in."""
    if "ratio" in values:
        yield name, values
    for inner, part in values.items():
        if isinstance(part, dict):
            yield from _comparisons(f"{name} {inner}", part)


def _plain_figures(name: str, values: dict[str, Any]) -> Iterator[str]:
    """Whatever is a number, by its names from the outside in, where nothing has a ratio."""
    for inner, part in values.items():
        if isinstance(part, dict):
            yield from _plain_figures(f"{name} {inner}", part)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            yield f"{name} {inner}: {part:,.0f}" if abs(part) >= 1000 else f"{name} {inner}: {part:.4g}"


def _decode(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.decode import bench_decode
    from latentomni.runtime import Runtime

    runtime = Runtime.load(args.model, quantization=args.quantization)
    about.update(runtime.thinker.facts)
    return bench_decode(runtime, seed=args.seed, **repeats)


def _prefill(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.prefill import bench_prefill

    return bench_prefill(_thinker(args, about), seed=args.seed, **repeats)


def _followup(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.prefill import bench_followup

    return bench_followup(_thinker(args, about), seed=args.seed, **repeats)


def _thinker(args: argparse.Namespace, about: dict[str, Any]) -> Any:
    from latentomni import checkpoints

    thinker = checkpoints.load(args.model, quantization=args.quantization)
    about.update(thinker.facts)
    return thinker


def _memory(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.prefill import bench_memory

    report = bench_memory(args.model, args.quantization, seed=args.seed, **repeats)
    about.update({key: report.pop(key) for key in ("model", "weights", "quantization", "device")})
    return report


def _media(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.media import bench_media

    return bench_media(seed=args.seed, **repeats)


def _train(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.train import bench_train

    return bench_train(_thinker(args, about), args.model, seed=args.seed, **repeats)


def _ui(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni import checkpoints
    from latentomni.bench.ui import bench_ui

    about.update(model=args.model, weights=checkpoints.load(args.model, device="meta").weights)
    return bench_ui(args.model, **repeats)


def _load(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni import checkpoints
    from latentomni.bench.load import bench_load

    about.update(model=args.model, weights=checkpoints.load(args.model, device="meta").weights)
    return bench_load(args.model, **({"users": args.users} if args.users else {}), **repeats)


def _soak(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni import checkpoints
    from latentomni.bench.soak import bench_soak

    about.update(model=args.model, weights=checkpoints.load(args.model, device="meta").weights)
    return bench_soak(args.model, args.minutes or 2, args.seed)


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 on, with commas between."""
    return tuple(positive(part) for part in text.split(","))


def _evidence(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.evidence import bench_evidence
    from visualizers.timeline import compute_timeline, plot_timeline

    return bench_evidence(seed=args.seed, draw=lambda trace: plot_timeline(compute_timeline(trace)), **repeats)


def _drift(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.drift import bench_drift
    from latentomni.runtime import Runtime
    from visualizers.charts import draw_chart
    from visualizers.drift import drift_chart

    runtime = Runtime.load(args.model)
    about.update(runtime.thinker.facts)
    report = bench_drift(runtime, args.model, args.quantization or "nf4", seed=args.seed, **repeats)
    about["quantization"] = report["quantization"]  # the full-precision model is its peer
    if args.plot:
        args.plot.write_text(draw_chart(drift_chart(report)), encoding="utf-8")
    return report


def _synthesize(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni.bench.synthesis import bench_synthesize

    about.update(model="scripted")
    return bench_synthesize(seed=args.seed, **repeats)


def _abuse(args: argparse.Namespace, repeats: dict[str, int], about: dict[str, Any]) -> dict[str, Any]:
    from latentomni import checkpoints
    from latentomni.bench.abuse import bench_abuse

    about.update(model=args.model, weights=checkpoints.load(args.model, device="meta").weights)
    return bench_abuse(show_as_page, args.model, seed=args.seed, **repeats)


def show_as_page(trace: Any) -> None:
    """All that the app draws of a trace when it is opened."""
    from visualizers.page import html_page
    from visualizers.view import view

    view(trace), html_page(trace)


_QUANTISED = {"decode", "prefill", "followup", "memory", "drift"}
_BENCHES: dict[str, Callable[..., dict[str, Any]]] = {
    "decode": _decode, "prefill": _prefill, "followup": _followup, "memory": _memory,
    "media": _media, "train": _train, "evidence": _evidence, "ui": _ui, "drift": _drift, "synthesize": _synthesize,
    "load": _load, "soak": _soak, "abuse": _abuse,
}  # fmt: skip
