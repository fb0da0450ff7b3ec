"""`data`: training data and clips with all truth: drawn, checked, converted, packed into shards, encoded beforehand."""

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentomni.commands.arguments import add_command, new_file, new_folder, positive
from latentomni.commands.train import add_recipe, chosen_recipe
from latentomni.errors import require

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    kinds = commands.add_parser("data", help="draw, check, convert, pack and encode training data").add_subparsers(
        metavar="KIND", required=True
    )
    _add_avworld(kinds)
    parser = add_command(
        kinds,
        "validate",
        _validate,
        "Check training data line by line, clips included; what is wrong is told with its line.",
        "data validate build/train/train.jsonl",
        "data validate train.jsonl --json",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL as docs/DATA.md describes it")
    parser = add_command(
        kinds,
        "convert",
        _convert,
        "Convert training data of the LatentOmni authors' format; what cannot be converted is told with its reason.",
        "data convert latentomni_sft.json --out train.jsonl",
        "data convert latentomni_sft.jsonl --out train.jsonl --cut-s 10",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON list or JSONL of samples")
    parser.add_argument("--out", required=True, type=new_file, metavar="FILE", help="JSONL to write")
    parser.add_argument("--cut-s", type=_seconds, default=5.0, metavar="S", help="seconds of a cut; default: %(default)s")
    _add_synthesize(kinds)
    _add_pack(kinds)
    _add_features(kinds)


def _add_synthesize(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "synthesize",
        _synthesize,
        "Make training data of captioned clips by language models; started again, it goes on where it was.",
        "data synthesize --source avworld --n 10 --endpoint http://127.0.0.1:8000/v1 --out build/synthesis",
        "data synthesize --source captions.jsonl --config roles.json --out build/synthesis --engine ray --workers 8",
    )
    parser.add_argument("--source", required=True, metavar="avworld|avworld-questions|FILE",
                        help="AV World's clips, the same with its own questions, or a JSONL file of captioned clips (docs/SYNTHESIS.md)")  # fmt: skip
    parser.add_argument("--out", required=True, type=new_folder, metavar="DIR")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible server, which answers in all roles")
    asked.add_argument("--config", type=Path, metavar="FILE", help="a model for each role and what is kept, as JSON")
    parser.add_argument("--model", help="what the endpoint calls its model; default: the first that it has")
    parser.add_argument("--structured", choices=["json_schema", "json_object", "none"],
                        help="how the endpoint is held to a reply's schema; default: json_schema, or json_object where it refuses that")  # fmt: skip
    parser.add_argument("--n", type=positive, help="clips; default: 30 of AV World, all of a file")
    parser.add_argument("--seed", type=int, help="of AV World's clips, default: 0, and of the sampling, default: the config's, or 7")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="one process, or a Ray cluster; default: %(default)s")
    parser.add_argument("--workers", type=positive, default=1, help="of 16 items at a time; default: %(default)s")


def _add_pack(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "pack",
        _pack,
        "Pack training data and their clips into tar shards, of which each process of a training reads its own.",
        "data pack build/train/train.jsonl --out build/packed --shards 64",
        "data pack train.jsonl --out packed --shards 256 --at s3://bucket/packed",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL as docs/DATA.md describes it")
    parser.add_argument("--out", required=True, type=new_folder, metavar="DIR")
    parser.add_argument("--shards", type=positive, default=64, help="a multiple of the processes that will train; default: %(default)s")
    parser.add_argument("--at", default="", metavar="URL", help="where the shards will lie, if not beside their JSONL; any that fsspec opens")


def _add_features(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "features",
        _features,
        "Encode a recipe's clips before it is trained, in parts on several processes; what is kept already is left alone.",
        "data features latentomni --data build/train/train.jsonl --features kept",
        "data features latentomni --data build/train/train.jsonl --features kept --part 2/8",
    )
    parser.set_defaults(is_shared=True)
    add_recipe(parser)
    parser.add_argument("--features", metavar="DIR", help="where they are kept, instead of the recipe's folder")
    parser.add_argument("--part", type=_part, metavar="I/N", help="the I-th of N parts; default: this process's under `accelerate launch`, else all")


def _add_avworld(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "avworld",
        _avworld,
        "Draw AV World clips as mp4 files, with questions, answers and exact times as JSON lines.",
        "data avworld --split test --out build/avworld",
        "data avworld --split train --out build/train --n 300 --seed 5 --json",
    )
    parser.add_argument("--split", required=True, choices=["train", "validation", "test"])
    parser.add_argument("--out", required=True, type=new_folder, metavar="DIR")
    parser.add_argument("--n", type=positive, default=30, help="questions, three to a clip; default: 30")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _seconds(text: str) -> float:
    """A length of time from 0.1 to 600 seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 600:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 600 seconds, got {text!r}")
    return value


def _avworld(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.avworld.writing import write_split

    written = write_split(args.out, args.split, args.n, args.seed)
    say(f"{written['clips']} clips and {written['questions']} questions are in {args.out}.")
    return {**written, "seed": args.seed}


def _validate(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.records import validate

    rows, errors = validate(args.file)
    for error in errors:
        say(error)
    say(f"{_count(rows, 'row')}, {_count(len(errors), 'problem')}.")
    return {"rows": rows, "errors": errors, "ok": not errors}


def _convert(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.conversion import convert

    rows, errors = convert(args.file, args.out, args.cut_s)
    for error in errors:
        say(error)
    say(f"{_count(rows, 'row')} written to {args.out}, {_count(len(errors), 'sample')} left out.")
    return {"rows": rows, "errors": errors, "ok": rows > 0}


def _synthesize(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from tqdm import tqdm

    from latentomni.synthesis import Role, Settings, avworld_sources, read_settings, read_sources, synthesize
    from latentomni.synthesis.endpoint import served_model, served_structure

    if args.config:
        settings = read_settings(args.config)
        require(args.model is None, "--model names the model of one --endpoint; a --config names one for each role.")
        require(args.structured is None, "--structured is of one --endpoint; a --config says it for each role.")
    else:
        role = Role(args.endpoint, args.model or served_model(args.endpoint))
        settings = Settings.of_one(replace(role, structured=args.structured or served_structure(role.endpoint, role.model)))
    require((args.seed or 0) >= 0, f"--seed starts at 0, got {args.seed}")
    if args.seed is not None:
        settings = replace(settings, seed=args.seed)
    if args.source in ("avworld", "avworld-questions"):
        sources = avworld_sources(args.n or 30, args.seed or 0, args.source == "avworld-questions")
    else:
        sources = read_sources(args.source, args.n)

    def shown(done: Iterable, stage: str, n: int) -> Iterable:
        return tqdm(done, stage, n, mininterval=1)

    report = synthesize(sources, settings, args.out, args.engine, args.workers, shown)
    for row in report["funnel"]:
        reasons = "; ".join(f"{count} {reason}" for reason, count in row["rejected"].items())
        say(f"{row['stage']}: {row['in']} in, {row['kept']} kept{f' (rejected: {reasons})' if reasons else ''}")
    say(f"{_count(report['rows'], 'row')} of training data from {_count(len(sources), 'clip')}; {args.out / 'report.md'} tells more.")
    return {**report, "model": ", ".join(sorted({role.model for role in settings.roles.values()})), "seed": settings.seed}


def _pack(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.shards import write_shards

    packed = write_shards(args.file, args.out, args.shards, args.at)
    data = args.out / args.file.name
    say(f"{_count(packed['clips'], 'clip')} and {_count(packed['rows'], 'row')} are in {_count(packed['shards'], 'shard')}; train on {data}.")
    return {**packed, "data": str(data)}


def _features(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.finetune import encode_clips

    recipe = chosen_recipe(args, features=args.features)
    part, parts = args.part or (int(os.environ.get("RANK", "0")) + 1, int(os.environ.get("WORLD_SIZE", "1")))
    done = encode_clips(recipe, part - 1, parts)
    say(f"Part {done['part']}: {_count(done['clips'], 'clip')}, {done['encoded']} of them encoded now; {recipe.features} holds {done['bytes']:,} bytes.")
    return done


def _part(text: str) -> tuple[int, int]:
    """Such as 2/8, from 1 on."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"expected a part such as 2/8, got {text!r}")
    return int(number), int(of)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
