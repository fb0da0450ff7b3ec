"""The lint of a Space: this folder passes, and each thing that would fail there is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentomni.cli import main
from latentomni.commands.space import check_space
from latentomni.errors import RequestError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """What the lint reads of this project."""
    for name in ("README.md", "requirements.txt", "app.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "index.json").write_text('{"a.mp4": {}}')
    for name in ("a.mp4", "a.trace.zip"):
        (tmp_path / "examples" / name).write_bytes(b"x")
    return tmp_path


def test_this_project_is_a_space(capsys):
    assert check_space(ROOT) == []
    assert main(["space", "--check", "--folder", str(ROOT), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["ok"], told["findings"], told["hardware"]) == (True, [], "cpu")


def change(name, old, new):
    def apply(folder):
        file = folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change("README.md", "emoji:", "smile:"), "README.md lacks emoji in its head."),
        (change("README.md", "sdk: gradio", "sdk: streamlit"), "names the sdk streamlit"),
        (change("README.md", "colorTo: purple", "colorTo: mauve"), "names the colour mauve"),
        (change("README.md", "short_description: Ask", "short_description: Ask and ask again and again, as long as you like,"), "a Space takes 60"),
        (change("README.md", 'python_version: "3.11"', 'python_version: "3.9"'), "asks for Python 3.9; on cpu there is 3.10 and 3.11 and 3.12"),
        (change("README.md", "app_file: app.py", "app_file: main.py"), "names main.py as the app, which is not there"),
        (change("README.md", "sdk_version: 6", "sdk_version: 5"), "is not among the gradio versions"),
        (change("requirements.txt", "numpy>=2.0,<3", "numpy"), "has 'numpy', which has no floor and ceiling"),
        (lambda f: (f / "examples" / "a.trace.zip").unlink(), "examples/a.trace.zip is not there"),
        (lambda f: (f / "examples" / "index.json").write_text("{"), "examples/index.json cannot be read"),
        (lambda f: (f / "big.bin").write_bytes(bytes(10**7 + 1)), "big.bin has 10.0 MB"),
        (lambda f: (f / "app" / "key.txt").write_text("hf_" + "a1" * 17), "app/key.txt holds what looks like a secret"),
        (lambda f: (f / "link.txt").symlink_to(f / "app.py"), "link.txt is a link"),
    ],
)
def test_what_would_fail_there_is_named(folder, damage, said):
    assert check_space(folder) == []
    damage(folder)
    found = check_space(folder)
    assert len(found) == 1 and said in found[0], found


def test_zerogpu_takes_some_versions_and_needs_an_entry(folder):
    assert [told.split()[0] for told in check_space(folder, "zerogpu")] == ["README.md", "requirements.txt"]
    change("README.md", 'python_version: "3.11"', 'python_version: "3.12"')(folder)
    lines = (folder / "requirements.txt").read_text().splitlines()
    (folder / "requirements.txt").write_text("\n".join("torch>=2.8,<2.12" if line.startswith("torch") else line for line in lines))
    assert check_space(folder, "zerogpu") == []
    (folder / "app" / "lent.py").unlink()
    assert [told.split()[0] for told in check_space(folder, "zerogpu")] == ["No"]


@pytest.mark.parametrize("hardware", ["cpu", "zerogpu"])
def test_what_is_written_for_a_space_passes_its_own_check(tmp_path, capsys, hardware):
    out = tmp_path / "space"
    assert main(["space", "--write", str(out), "--folder", str(ROOT), "--hardware", hardware, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["ok"], told["findings"], told["folder"]) == (True, [], str(out))
    assert check_space(out, hardware) == []
    torch = next(line for line in (out / "requirements.txt").read_text().splitlines() if line.startswith("torch>"))
    assert (torch == "torch>=2.8,<2.12") == (hardware == "zerogpu")
    assert (out / "app" / "ui.py").read_bytes() == (ROOT / "app" / "ui.py").read_bytes() and not (out / "tests").exists()
    done = subprocess.run([sys.executable, "-c", "import app.ui, latentomni, sys; print(latentomni.__file__)"], cwd=out, capture_output=True, text=True)
    assert done.stdout.strip() == str(out / "latentomni" / "__init__.py"), done.stderr
    assert main(["space", "--write", str(out), "--folder", str(ROOT)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_without_git_all_but_what_running_makes_is_looked_at(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (folder / "runs").mkdir()
    (folder / "runs" / "big.bin").write_bytes(bytes(10**7 + 1))
    assert check_space(folder) == []
    (folder / "big.bin").write_bytes(bytes(10**7 + 1))
    assert len(check_space(folder)) == 1


def test_of_a_checkout_what_git_ignores_is_not_looked_at(folder):
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".gitignore").write_text("/runs/\n")
    (folder / "runs").mkdir()
    (folder / "runs" / "big.bin").write_bytes(bytes(10**7 + 1))
    assert check_space(folder) == []


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"README\.md cannot be read as a Space"):
        check_space(tmp_path)
    (tmp_path / "README.md").write_text("---\ntitle: [\n---\n")
    with pytest.raises(RequestError, match=r"README\.md cannot be read as a Space"):
        check_space(tmp_path)
    (tmp_path / "README.md").write_text("---\ntitle: a\n---\n")
    with pytest.raises(RequestError, match=r"requirements\.txt cannot be read"):
        check_space(tmp_path)
