"""The documents beside the README: generated ones are what they are made from, links lead somewhere, lists are complete."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]


def test_the_api_is_what_the_docstrings_say():
    spec = importlib.util.spec_from_file_location("docs_api", ROOT / "docs" / "api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "API.md").read_text(encoding="utf-8") == module.api_text(), "run `python docs/api.py`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    text = re.sub(r"```.*?```|`[^`]*`", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:|#", t)]
    assert [t for t in targets if not (document.parent / t).exists()] == []


def test_every_dependency_has_its_reason():
    table = (ROOT / "docs" / "DEPENDENCIES.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| ([\w.-]+(?:\[\w+\])?) \| (.+) \|$", table, re.MULTILINE))
    required = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    extras = re.findall(r'"([\w.-]+(?:\[\w+\])?)(>=[^"]+)"', (ROOT / "pyproject.toml").read_text().partition("optional-dependencies")[2].partition("[tool")[0])
    for name, bounds in [*(re.match(r"([\w-]+)(.+)", line).groups() for line in required), *extras]:
        assert name in told, f"{name} is not in docs/DEPENDENCIES.md"
        assert bounds.replace(",", ", ") in told[name], f"{name} has other bounds in docs/DEPENDENCIES.md than {bounds}"
