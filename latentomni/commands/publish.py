"""`publish`: a run's checkpoint to the hub, with a model card made of its recipe, its log and what was measured."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentomni.commands.arguments import add_command
from latentomni.errors import RequestError, require

__all__ = ["add_to"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HEAD = re.compile(r"\A(---\n.*?\n---\n)?\s*(# [^\n]*\n)?", re.S)


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "publish",
        _run,
        "Publish a run's checkpoint on the hub, with a model card that is made of its recipe, its log and what was measured.",
        "publish runs/latentomni --to user/name --dry-run",
        "publish runs/latentomni --to user/name --results causal.json avworld.json --private",
    )
    parser.add_argument("run_dir", type=Path, metavar="DIR", help="what `train --out` wrote")
    parser.add_argument("--to", required=True, type=_hub_id, metavar="USER/NAME", help="made on the hub unless it is there")
    parser.add_argument("--results", type=Path, nargs="+", default=[], metavar="FILE", help="what `eval ... --json` printed")
    parser.add_argument("--private", action="store_true", help="where it has to be made")
    parser.add_argument("--dry-run", action="store_true", help="write the card and say what would be sent")


def _hub_id(text: str) -> str:
    if not _HUB_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected USER/NAME, got {text!r}")
    return text


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    folder, recipe = args.run_dir / "checkpoint", _read(args.run_dir / "recipe.json")
    settings = _read(folder / "latentomni.json")
    base = settings.get("adapter", {}).get("base", "")
    require(not (Path(base).is_absolute() or (base and Path(base).is_dir())),
            f"its base is the folder {base}, which nobody else has; train the adapter on a hub id.")  # fmt: skip
    log = args.run_dir / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    _write_training(folder / "training", _without_folders(recipe), lines)
    _write_card(folder / "README.md", args.to, _without_folders(recipe), lines, settings, [_read(file) for file in args.results])
    files = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    for name, size in files.items():
        say(f"{size:>15,} {name}")
    address = None
    if args.dry_run:
        say(f"{len(files)} files of {folder} would go to {args.to}; nothing was sent.")
    else:
        from latentomni.hub import publish

        address = publish(folder, args.to, private=args.private)
        say(f"{len(files)} files are at {address}.")
    return {"to": args.to, "files": files, "bytes": sum(files.values()), "address": address, "dry_run": args.dry_run,
            "model": settings["name"], "weights": settings["weights"]}  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    """The JSON object of a file; of several lines, of the last, as a command's output has it."""
    try:
        text = file.read_text(encoding="utf-8").strip()
        values = json.loads(text if file.suffix == ".json" and text.startswith("{\n") else text.splitlines()[-1])
    except FileNotFoundError:
        raise RequestError(f"There is no {file}; give the folder of a finished run, and as results what `eval ... --json` printed.") from None
    except (OSError, ValueError, IndexError) as error:
        raise RequestError(f"{file} cannot be read as JSON ({error}); give a finished run, and results as `eval ... --json` printed them.") from None
    require(isinstance(values, dict), f"{file} must hold one JSON object")
    return values


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the paths of the machine that trained it."""
    cut = {key: Path(recipe[key]).name for key in ("data", "features") if recipe.get(key)}
    local = Path(recipe.get("model", "")).is_absolute() or recipe.get("model", "").startswith(".")
    return recipe | cut | ({"model": Path(recipe["model"]).name} if local else {})


def _write_training(folder: Path, recipe: dict[str, Any], log: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")


def _write_card(readme: Path, hub_id: str, recipe: dict[str, Any], log: list[dict], settings: dict[str, Any], results: list[dict]) -> None:
    """Renew the card's head and sections; what else stands in it, such as what `eval causal --write-card` wrote, stays."""
    import yaml

    from latentomni.evaluation.card import CAUSAL, causal_section, results_section, training_section
    from latentomni.markdown import write_section

    base = recipe.get("model", "")
    about = {"library_name": "latentomni", "tags": ["audio", "video", "latent-reasoning"]} | ({"base_model": base} if _HUB_ID.fullmatch(base) else {})
    rest = _HEAD.sub("", readme.read_text(encoding="utf-8"), count=1) if readme.is_file() else ""
    head = yaml.safe_dump(about, sort_keys=False)
    readme.write_text(f"---\n{head}---\n\n# {hub_id.partition('/')[2]}\n\n{rest.lstrip()}", encoding="utf-8")
    start = "random weights: it is a trial, and knows nothing" if settings["weights"] == "random" else f"`{base}`" if base else "random weights"
    kind = "An adapter for an audio-visual model" if "adapter" in settings else "An audio-visual model"
    use = f"```\npython -m latentomni ask CLIP QUESTION --model {hub_id}\n```"
    write_section(readme, "about", f"{kind} that reasons in continuous latents, trained by LatentOmni from {start}.\n\n{use}")
    write_section(readme, "training", training_section(recipe, log))
    write_section(readme, "figures", results_section([told for told in results if "arms" not in told]))
    for told in results:
        if "arms" in told:
            write_section(readme, CAUSAL, causal_section(told))
