"""`eval`: how well a checkpoint answers, beside chance and controls."""

import argparse
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentomni.commands.arguments import add_command, add_mode, add_model, new_folder, positive
from latentomni.commands.settings import add_settings, given_settings
from latentomni.config import Mode
from latentomni.errors import RequestError
from latentomni.evaluation.benchmarks import BENCHMARKS

if TYPE_CHECKING:
    from latentomni.evaluation.cases import Case
    from latentomni.evaluation.processes import Processes
    from latentomni.runtime import Runtime

__all__ = ["add_to"]

_AVWORLD = "avworld"


def add_to(commands: Any) -> None:
    kinds = commands.add_parser("eval", help="score a checkpoint").add_subparsers(metavar="BENCHMARK", required=True)
    parser = add_command(
        kinds,
        "avworld",
        _run,
        "Score held-out AV World questions: accuracy by family with its chance, each modality removed, windows, evidence.",
        "eval avworld --json",
        "eval avworld --mode direct --n 200",
        "eval avworld --checkpoint runs/nano/checkpoint",
    )
    add_model(parser, "--checkpoint")
    add_mode(parser)
    _add_draw(parser, 1000)
    _add_traces(parser)
    parser.set_defaults(is_shared=True)
    _add_causal(kinds)
    _add_evidence(kinds)
    for name in BENCHMARKS:
        _add_benchmark(kinds, name)


def _add_causal(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "causal",
        _run_causal,
        "Change the latents of answers and let them be written again: do they matter, and what do they carry?",
        "eval causal --data avworld --json",
        "eval causal --data avworld --checkpoint runs/nano/checkpoint --write-card",
        "eval causal --data build/test/train.jsonl --n 100",
    )
    _add_data(parser)
    _add_draw(parser, 300)
    parser.add_argument("--write-card", action="store_true", help="put the result into the checkpoint's README.md")


def _add_evidence(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "evidence",
        _run_evidence,
        "Hold the moments that latents are most similar to against the true windows, beside guesses that need no latents.",
        "eval evidence --data avworld --json",
        "eval evidence --data build/test/train.jsonl --n 100",
    )
    _add_data(parser)
    _add_draw(parser, 300)


def _add_benchmark(kinds: Any, name: str) -> None:
    parser = add_command(
        kinds,
        name,
        partial(_run_benchmark, name),
        "Ask a public benchmark's questions, from its files as they are published; what cannot be asked counts as wrong and is listed.",
        f"eval {name} --data data/{name} --json",
        f"eval {name} --data data/{name} --checkpoint Qwen/Qwen2.5-Omni-7B --quantization nf4 --predictions runs/{name}.jsonl",
        f"eval {name} --data data/{name} --checkpoint runs/tuned --against runs/{name}.jsonl",
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="its questions and videos; fetched from its publisher by you")
    add_model(parser, "--checkpoint")
    parser.add_argument("--n", type=positive, help="the first questions; default: all")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write every answer as it comes, and go on where it holds some")
    parser.add_argument("--against", type=Path, metavar="FILE", help="predictions of another model: say by how much this one is better")
    _add_traces(parser)
    add_settings(parser)
    parser.set_defaults(is_shared=True)


def _add_traces(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traces", type=new_folder, metavar="DIR", help="keep the run of every question, to look into, beside what is true")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar=f"{_AVWORLD}|FILE", help="held-out AV World, or JSONL as docs/DATA.md describes it")
    add_model(parser, "--checkpoint")


def _add_draw(parser: argparse.ArgumentParser, n: int) -> None:
    parser.add_argument("--n", type=positive, default=n, help="questions; default: %(default)s")
    parser.add_argument("--seed", type=_seed, help="draw other questions; without it the fixed held-out ones are asked")


def _seed(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.evaluation.avworld import evaluate_avworld
    from latentomni.evaluation.processes import Processes
    from latentomni.runtime import Runtime

    processes = Processes.launched()
    runtime = Runtime.load(args.model, quantization=args.quantization)
    scores = evaluate_avworld(runtime, args.n, args.seed, Mode(args.mode or runtime.spec.default_mode), partial(_progress, processes=processes),
                              processes, args.traces)  # fmt: skip
    rows = {
        **scores["families"],
        "all": scores,
        "without sound": scores["without_audio"],
        "without picture": scores["without_video"],
    }
    say(f"{'':16}accuracy  chance")
    for name, row in rows.items():
        say(f"{name:16}{_figure(row['accuracy'])}{_figure(row['chance'])}")
    return {**scores, "processes": processes.count, **runtime.thinker.facts, "seed": args.seed}


def _run_causal(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.checkpoint_files import write_collapse
    from latentomni.config import SamplingSpec
    from latentomni.evaluation.card import CAUSAL, causal_section
    from latentomni.evaluation.causal import COLLAPSE_MEASURES, evaluate_causal
    from latentomni.markdown import write_section

    folder = _card_folder(args.model) if args.write_card else None
    runtime, cases = _cases(args)
    is_avworld = args.data == _AVWORLD
    sampling = SamplingSpec(max_new_tokens=96, max_blocks=2) if is_avworld else SamplingSpec()  # as `eval avworld` asks
    results = {"data": "AV World" if is_avworld else Path(args.data).name}
    results |= evaluate_causal(runtime.thinker, cases, sampling, args.seed or 0, _progress)
    _show_arms(results, say)
    if folder is not None:
        say(f"Written to {write_section(folder / 'README.md', CAUSAL, causal_section(results))}.")
        write_collapse(folder, {name: results[name] for name in COLLAPSE_MEASURES})
    return {**results, **runtime.thinker.facts, "seed": args.seed}


def _cases(args: argparse.Namespace) -> tuple["Runtime", list["Case"]]:
    """Held-out questions of AV World; of a file the first rows or, with a seed, any."""
    from latentomni.evaluation.cases import avworld_cases, record_cases
    from latentomni.runtime import Runtime
    from latentomni.training.records import read_records

    if args.data == _AVWORLD:
        runtime = Runtime.load(args.model, quantization=args.quantization)
        return runtime, avworld_cases(runtime.thinker, args.n, args.seed, _progress)
    records = read_records(args.data)
    if args.seed is not None:
        random.Random(args.seed).shuffle(records)
    runtime = Runtime.load(args.model, quantization=args.quantization)
    return runtime, record_cases(runtime.thinker, records[: args.n], runtime.read, _progress)


def _run_evidence(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.evaluation.evidence import evaluate_evidence

    runtime, cases = _cases(args)
    results = evaluate_evidence(runtime, cases, args.seed or 0, _progress)
    say(f"{'':16}  hit@1   hit@5     mrr")
    for name, told in {"latents": results, **results["modalities"], "chance": results["chance"]}.items():
        say(f"{name:16}{_figure(told['hit_at_1'])}{_figure(told['hit_at_5'])}{_figure(told['mrr'])}")
    for name, hit in results["baselines"].items():
        say(f"{name:16}{_figure(hit)}")
    best = max(hit for hit in results["baselines"].values() if hit is not None)
    factor = 1.15 if best >= 0.6 else 1.5
    verdict = "at least" if results["hit_at_1"] >= factor * best else "less than"
    say(f"Latents point at the right moment {results['hit_at_1'] / best:.2f} times as often as the best guess, {verdict} the {factor} times asked for.")
    return {"data": args.data if args.data == _AVWORLD else Path(args.data).name, **results, **runtime.thinker.facts, "seed": args.seed}


def _run_benchmark(name: str, args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.evaluation.benchmarks import read_benchmark
    from latentomni.evaluation.harness import (
        VIDEO_LIMITS,
        compare_predictions,
        evaluate_benchmark,
        read_predictions,
        score_benchmark,
    )
    from latentomni.evaluation.processes import Processes
    from latentomni.runtime import Runtime

    items = read_benchmark(name, args.data)[: args.n]
    others = read_predictions(args.against)[1] if args.against else {}
    reading, latent, sampling = given_settings(args)
    if latent:
        raise RequestError("A benchmark asks a model as it was trained; leave out --instants, --positions and --flow.")
    processes = Processes.launched()
    runtime = Runtime.load(args.model, VIDEO_LIMITS, args.quantization)
    lines = evaluate_benchmark(runtime, name, items, Mode(args.mode or runtime.spec.default_mode), sampling, reading, args.predictions,
                               args.traces, partial(_progress, processes=processes), processes)  # fmt: skip
    results = score_benchmark(items, lines)
    say(f"{results['accuracy']:.3f} of {results['n']} right; chance {results['chance']:.3f}; {len(results['failed'])} could not be asked, "
        f"{len(results['unread'])} answers name no option; both count as wrong.")  # fmt: skip
    for group, values in results["categories"].items():
        say(f"{group}: " + ", ".join(f"{value} {told['accuracy']:.3f} ({told['n']})" for value, told in values.items()))
    if others:
        results["against"] = compare_predictions(lines, others)
        say("Better by {difference:+.3f} on {n} questions, 95 %: {interval}.".format(**results["against"]))
    return {**results, "benchmark": name, "processes": processes.count, **runtime.thinker.facts, "seed": args.seed}


def _card_folder(model: str) -> Path:
    from latentomni.checkpoints import NANO_DIR

    folder = NANO_DIR if model == "nano" else Path(model)
    if not folder.is_dir():
        raise RequestError(f"--write-card needs a checkpoint's folder, got '{model}'; leave it out or give a folder.")
    return folder


def _show_arms(results: dict[str, Any], say: Callable[..., None]) -> None:
    say(f"{'':22}accuracy    drop  interval             p   flips  margin")
    for name, arm in results["arms"].items():
        low, high = arm["interval"] or (None, None)
        p = "-" if arm["p"] is None else f"{arm['p']:.1e}"
        say(f"{name:22}{_figure(arm['accuracy'])}{_figure(arm['drop'])}{_figure(low)} {_figure(high)}{p:>9}"
            f"{_figure(arm['flips'])}{_figure(arm['margin_change'])}")  # fmt: skip
    names = ("follows_donor", "follows_donor_control", "marker_only_share", "between_clip_variance", "segment_retrieval_top1",
             "raw_cosine", "effective_rank")  # fmt: skip
    for name in names:
        say(f"{name:22}{_figure(results[name])}")
    moved = results["input_side"]
    say(f"latents move by {_figure(moved['cited']).strip()} without their window, by {_figure(moved['control']).strip()} without another")


def _figure(value: float | None) -> str:
    """Eight characters; a family that was not asked about has no accuracy."""
    return f"{'-':>8}" if value is None else f"{value:8.3f}"


def _progress(items: Iterable, what: str, processes: "Processes | None" = None) -> Iterable:
    """Of the main process alone."""
    from tqdm import tqdm

    return tqdm(items, desc=what, mininterval=2, leave=False, disable=processes is not None and not processes.is_main)
