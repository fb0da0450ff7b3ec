"""What docs/OPERATION.md and the Dockerfile promise: every variable that the code reads, and files that are there."""

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

from app.runs import VISITOR, Runs
from app.settings import Limits, Settings
from tests.test_architecture import modules

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "OPERATION.md").read_text(encoding="utf-8").split("## Settings")[1].split("## ")[0]


def read_variables(source: str) -> set[str]:
    """Names of the variables that a module reads from its environment, directly or through a function named _env, _number or _key."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            is_read = ast.unparse(node.func) in ("os.environ.get", "environ.get", "os.getenv", "getenv", "_env", "_number", "_key")
            found |= {node.args[0].value} if is_read and isinstance(node.args[0], ast.Constant) else set()
        is_named = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Constant)
        if is_named and ast.unparse(node.value).endswith("environ"):
            found.add(node.slice.value)
        if isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]).endswith("environ") and isinstance(node.left, ast.Constant):
            found.add(node.left.value)
    return found


def test_every_variable_that_is_read_is_listed_and_no_other():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "app.py", *modules().values())]
    read = set().union(*map(read_variables, sources))
    named = set().union(*(re.findall(r"LATENTOMNI_[A-Z_]+", source) for source in sources))
    listed = {name for row in re.findall(r"^\| (`.*?) \|", TABLE, re.MULTILINE) for name in re.findall(r"`([A-Z_]+)`", row)}
    assert len(read) > 12 and named <= read
    assert listed == read


def test_the_listed_defaults_are_those_of_the_code():
    given = dict(re.findall(r"^\| `LATENTOMNI_(\w+)` \| `?([\w.]+)`? \|", TABLE, re.MULTILINE))
    limits = Limits()
    of_limits = {"RUN_S": limits.run_s, "GRACE_S": limits.grace_s, "QUEUE": limits.queue, "PER_USER": limits.per_user,
                 "KEEP_H": limits.keep_h, "RUNS_MIB": limits.runs_mib}  # fmt: skip
    assert {name: float(given[name]) for name in of_limits} == of_limits
    assert (given["MODEL"], given["LOG"]) == (Settings().model, Settings().log)


def test_the_image_copies_what_is_there_and_all_that_the_app_imports():
    steps = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines() if line[:1].isupper()]
    copied = {name for step, rest in steps if step == "COPY" for name in rest.split()[:-1]}
    assert copied == {"requirements.txt", "app.py", "app", "latentomni", "visualizers", "examples"}
    assert all((ROOT / name).exists() for name in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied
    said = dict(steps)
    assert said["FROM"].startswith("python:3.11-slim") and said["USER"] != "root" and said["CMD"] == '["python", "app.py"]'
    assert any("-r requirements.txt" in rest for step, rest in steps if step == "RUN")
    assert "/health" in said["HEALTHCHECK"]
    order = [step for step, _ in steps]
    assert order.index("USER") > max(i for i, step in enumerate(order) if step in ("COPY", "RUN"))


def test_the_health_check_is_a_program():
    command = json.loads(re.search(r"^\s+CMD (\[.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])
    assert command[:2] == ["python", "-c"]
    assert {ast.unparse(node.func) for node in ast.walk(ast.parse(command[2])) if isinstance(node, ast.Call)} == {"urllib.request.urlopen"}


def test_the_images_variables_are_listed():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    names = {pair.split("=")[0] for line in lines if line.startswith("ENV ") for pair in shlex.split(line)[1:]}
    listed = set(re.findall(r"`(LATENTOMNI_\w+)`", TABLE))
    assert {name for name in names if name.startswith("LATENTOMNI_")} <= listed


def test_kept_runs_stay_within_their_age_and_room(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    runs = Runs()
    runs.limits, runs.owns_uploads = Limits(keep_h=2, runs_mib=3.5), True

    def made(folder: Path, at_s: float, size: int = 2**20) -> Path:
        folder.mkdir(parents=True)
        (folder / "a.trace.zip").write_bytes(bytes(size))
        subprocess.run(["touch", "-d", f"@{at_s}", folder], check=True)
        return folder

    names = [made(runs.folder / f"{n:022d}", 1000 * n) for n in range(6)]
    upload, foreign, visitor = made(tmp_path / ("ab" * 32), 0), made(tmp_path / "other app", 0), made(tmp_path / f"{VISITOR}x", 0)
    runs.sweep(now_s=5000)
    assert [path.exists() for path in names] == [False] * 3 + [True] * 3  # three fit
    runs.sweep(now_s=4000 + 2 * 3600)
    assert [path.exists() for path in names] == [False] * 4 + [True] * 2
    assert not upload.exists() and not visitor.exists() and foreign.exists()
    runs.owns_uploads = False
    made(upload, 0)
    runs.sweep(now_s=2**33)
    assert upload.exists() and not any(path.exists() for path in names)
