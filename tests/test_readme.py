"""What the README promises: its commands parse, its files exist, and a Space can read its head."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from latentomni.cli import build_parser

ROOT = Path(__file__).parents[1]
_, HEAD, BODY = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", BODY, re.DOTALL)
COMMANDS = [
    line for language, text in BLOCKS if language == "bash" for line in text.splitlines() if "-m latentomni" in line
]


def files() -> list[str]:
    """Paths of the file tree, read from its indentation."""
    text = next(text for language, text in BLOCKS if not language)
    paths, folder = [], ""
    for line in text.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            paths.append(name)
        else:
            paths.append(folder + name)
    return paths


def test_a_space_can_read_the_head():
    head = yaml.safe_load(HEAD)
    assert (head["sdk"], head["license"]) == ("gradio", "apache-2.0")
    assert (ROOT / head["app_file"]).is_file()
    assert len(head["short_description"]) <= 60
    palette = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {head["colorFrom"], head["colorTo"]} <= palette
    assert set(head) == {"title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file",
                         "license", "short_description"}  # fmt: skip
    floor, ceiling = re.search(
        r"^gradio>=([\d.]+),<([\d.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    ).groups()
    assert numbers(floor) <= numbers(head["sdk_version"]) < numbers(ceiling)
    assert (3, 10) <= numbers(head["python_version"]) < (3, 13)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_two_commands_stand_at_the_top_with_their_plain_lines():
    top = BODY.splitlines()[:15]
    targets = {line.split()[1]: line for line in top if line.startswith("make ")}
    assert set(targets) == {"demo", "test"}
    assert "pip install -r requirements.txt" in targets["demo"]
    assert "python app.py" in targets["demo"]
    assert "python -m pytest" in targets["test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in targets)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert build_parser().parse_args(shlex.split(command)[3:]).run


def test_every_command_is_shown():
    shown = {shlex.split(command)[3] for command in COMMANDS}
    action = next(a for a in build_parser()._actions if a.choices)
    assert shown == set(action.choices)


@pytest.mark.parametrize("path", files())
def test_files_of_the_tree_exist(path):
    assert (ROOT / path).exists()


def test_the_tree_leaves_no_module_out():
    modules = {f"latentomni/{path.name}" for path in (ROOT / "latentomni").glob("*.py")} - {"latentomni/__init__.py"}
    folders = {f"latentomni/{path.parent.name}/" for path in (ROOT / "latentomni").glob("*/__init__.py")}
    assert modules | folders <= set(files())


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", BODY))
def test_links_lead_somewhere(target):
    assert (ROOT / target).is_file()
