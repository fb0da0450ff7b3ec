"""docs/EVALUATION.md: its commands parse, its figures are those that are computed, and its code compiles."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from latentomni.cli import build_parser
from latentomni.evaluation.benchmarks import BENCHMARKS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for language, text in BLOCKS if language == "bash" for line in text.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize("line", [line for line in LINES if " latentomni eval" in line or "-m latentomni data" in line])
def test_its_commands_parse(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    assert build_parser().parse_args(words[words.index("latentomni") + 1 :]).run


def test_its_figures_are_those_that_are_computed():
    done = subprocess.run([sys.executable, ROOT / "examples" / "paper_cost.py"], capture_output=True, text=True, check=True)
    tables = done.stdout.strip().split("\n\n")
    assert len(tables) == 3 and all(table in TEXT for table in tables)


def test_its_code_compiles_and_every_benchmark_has_its_row():
    scripts = [text for language, text in BLOCKS if language == "python"]
    assert len(scripts) == 2 and all(compile(text, "EVALUATION.md", "exec") for text in scripts)
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` or `(\w+)` \|", TEXT, re.MULTILINE)
    assert {name: set(files) for name, *files in rows} == {name: {*b.files[:2]} for name, b in BENCHMARKS.items()}
