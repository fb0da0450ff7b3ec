"""`space`: read this folder as a Hugging Face Space would, say what would fail there, and write one that fits."""

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from latentomni.commands.arguments import add_command, new_folder
from latentomni.errors import RequestError, require

__all__ = ["add_to", "check_space", "write_space"]

# Hub documentation, August 2026
_NEEDED = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license", "short_description")
_COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
_PYTHONS = {"cpu": ("3.10", "3.11", "3.12"), "zerogpu": ("3.10", "3.12")}
_ZEROGPU_TORCH = (8, 9, 10, 11)  # minor versions of torch 2
_ZEROGPU_REQUIREMENT = f"torch>=2.{_ZEROGPU_TORCH[0]},<2.{_ZEROGPU_TORCH[-1] + 1}"
_ZEROGPU_PYTHON = "3.12.12"
_PUSHED = {"README.md", "LICENSE", "CHANGELOG.md", "app.py", "requirements.txt", "packages.txt", "app", "docs", "examples", "latentomni", "visualizers"}
_MAX_WORDS, _MAX_FILE_BYTES, _MAX_BYTES = 60, 10**7, 10**9
_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)>=([\d.]+),<([\d.]+)")
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----")
_LEFT_OUT = {".git", ".venv", "__pycache__", "runs", "build", ".gradio", ".pytest_cache", ".ruff_cache"}


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "space",
        _run,
        "Read a folder as a Hugging Face Space would, and say what would fail there.",
        "space --check",
        "space --check --hardware zerogpu --json",
        "space --write build/space --hardware zerogpu",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="look, change nothing")
    what.add_argument("--write", metavar="DIR", type=new_folder, help="copy what a Space needs there, fitted to the hardware, and look at that")
    parser.add_argument("--hardware", choices=sorted(_PYTHONS), default="cpu", help="what the Space runs on; default: %(default)s")
    parser.add_argument("--folder", type=new_folder, default=Path(), metavar="DIR", help="default: this one")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    if args.write:
        write_space(args.folder, args.write, args.hardware)
    findings = check_space(args.write or args.folder, args.hardware)
    for finding in findings:
        say(finding)
    folder = args.write or args.folder
    say(f"{len(findings)} findings." if findings else f"A Space can read {'this folder' if folder == Path() else folder}.")
    if args.write and not findings:
        say(f"Push it with: hf upload NAME/SPACE {folder} . --repo-type space")
    return {"ok": not findings, "findings": findings, "hardware": args.hardware, "folder": str(folder)}


def check_space(folder: Path, hardware: str = "cpu") -> list[str]:
    """What a Space on "cpu" or "zerogpu" would not take, a sentence each. Raises RequestError where the folder has no README.md or
    requirements.txt."""
    head, requirements = _head(folder / "README.md"), _requirements(folder / "requirements.txt")
    found = [*_of_head(head, folder, hardware), *_of_requirements(requirements, head, hardware), *_of_files(folder), *_of_examples(folder / "examples")]
    return found + (_of_zerogpu(folder) if hardware == "zerogpu" else [])


def write_space(folder: Path, to: Path, hardware: str = "cpu") -> None:
    """Copy what the app needs of a folder, with the versions of Python and torch that the hardware has. RequestError where `to` holds anything."""
    require(not to.exists() or not any(to.iterdir()), f"{to} is not empty; give a new folder, or empty it.")
    for path in _files(folder):
        name = path.relative_to(folder)
        if name.parts[0] in _PUSHED and not path.is_symlink():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to / name)
    if hardware == "zerogpu":
        for name, pattern, fitting in (("README.md", r"(?m)^python_version:.*$", f'python_version: "{_ZEROGPU_PYTHON}"'),
                                       ("requirements.txt", r"(?m)^torch>=.*$", _ZEROGPU_REQUIREMENT)):  # fmt: skip
            text, count = re.subn(pattern, fitting, (to / name).read_text(encoding="utf-8"))
            require(count == 1, f"{folder / name} has {count} lines where one like {fitting} belongs; write that.")
            (to / name).write_text(text, encoding="utf-8")


def _head(readme: Path) -> dict[str, Any]:
    from huggingface_hub import metadata_load  # the Hub's own reader
    from yaml import YAMLError

    try:
        return metadata_load(readme) or {}
    except (OSError, ValueError, YAMLError) as error:
        why = str(error).splitlines()[0]
        raise RequestError(f"{readme} cannot be read as a Space's card ({why}); it begins with a block of YAML between --- lines.") from None


def _requirements(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{file} cannot be read ({error}); a Space installs what it lists.") from None
    return [line for line in lines if line and not line.startswith("#")]


def _of_head(head: dict[str, Any], folder: Path, hardware: str) -> Iterator[str]:
    absent = [key for key in _NEEDED if not head.get(key)]
    if absent:
        yield f"README.md lacks {', '.join(absent)} in its head."
    if head.get("sdk") not in (None, "gradio"):
        yield f"README.md names the sdk {head['sdk']}; this app is a gradio one."
    colours = [str(head[key]) for key in ("colorFrom", "colorTo") if head.get(key) and head[key] not in _COLOURS]
    if colours:
        yield f"README.md names the colour {', '.join(colours)}; a Space knows {', '.join(_COLOURS)}."
    if len(str(head.get("short_description", ""))) > _MAX_WORDS:
        yield f"README.md's short_description has {len(str(head['short_description']))} characters; a Space takes {_MAX_WORDS}."
    python = str(head.get("python_version", ""))
    if python and ".".join(python.split(".")[:2]) not in _PYTHONS[hardware]:
        yield f"README.md asks for Python {python}; on {hardware} there is {' and '.join(_PYTHONS[hardware])}."
    app = head.get("app_file")
    if app and not (folder / str(app)).is_file():
        yield f"README.md names {app} as the app, which is not there."


def _of_requirements(lines: list[str], head: dict[str, Any], hardware: str) -> Iterator[str]:
    bounds: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for line in lines:
        if parts := _REQUIREMENT.fullmatch(line):
            bounds[parts[1].lower()] = _numbers(parts[2]), _numbers(parts[3])
        else:
            yield f"requirements.txt has {line!r}, which has no floor and ceiling; write name>=floor,<ceiling."
    if "gradio" in bounds and head.get("sdk_version"):  # the Space installs this version, whatever is listed
        low, high = bounds["gradio"]
        if not low <= _numbers(str(head["sdk_version"])) < high:
            yield f"README.md's sdk_version {head['sdk_version']} is not among the gradio versions that requirements.txt allows."
    if hardware == "zerogpu" and "torch" in bounds:
        low, high = bounds["torch"]
        if low[:2] < (2, _ZEROGPU_TORCH[0]) or high[:2] > (2, _ZEROGPU_TORCH[-1] + 1):
            yield f"requirements.txt allows versions of torch that ZeroGPU does not take; write {_ZEROGPU_REQUIREMENT}."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _of_files(folder: Path) -> Iterator[str]:
    total = 0
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield f"{name} is a link, which a Space does not follow; put the file there."
            continue
        size = path.stat().st_size
        total += size
        if size > _MAX_FILE_BYTES:
            yield f"{name} has {size / 1e6:.1f} MB, more than the {_MAX_FILE_BYTES / 1e6:.0f} MB that a repository takes without large-file storage."
        elif _SECRET.search(path.read_bytes()):
            yield f"{name} holds what looks like a secret; take it out, and make it void where it was issued."
    if total > _MAX_BYTES:
        yield f"The folder has {total / 1e9:.1f} GB, more than the 1 GB that a Space's repository should have."


def _files(folder: Path) -> Iterable[Path]:
    """What would be pushed: of a git checkout what it tracks or would, else all but what is made by running."""
    try:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=folder, capture_output=True, check=True)
        paths = [folder / name for name in listed.stdout.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        paths = []
    if not paths:  # or a folder that a checkout around it ignores
        paths = [path for path in folder.rglob("*") if not _LEFT_OUT & set(path.relative_to(folder).parts)]
    return [path for path in paths if path.is_file() or path.is_symlink()]


def _of_examples(folder: Path) -> Iterator[str]:
    """Examples open from recorded runs, so that a first visit costs nothing."""
    try:
        known = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        yield "examples/index.json cannot be read; a first visit would show no example."
        return
    for clip in known:
        missing = [name for name in (clip, Path(clip).with_suffix(".trace.zip").name) if not (folder / name).is_file()]
        if missing:
            yield f"examples/{' and examples/'.join(missing)} is not there, which examples/index.json names."


def _of_zerogpu(folder: Path) -> list[str]:
    sources = [path.read_text(encoding="utf-8") for path in (folder / "app").rglob("*.py")]
    if any("spaces.GPU" in source for source in sources):
        return []
    return ["No function of app/ asks for a GPU (spaces.GPU), so ZeroGPU would not start it; choose CPU or a GPU of its own."]
