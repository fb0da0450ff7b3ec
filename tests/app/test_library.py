"""What brings torch in comes through one door: not with the page, and from any number of threads."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = """
    import sys
    from concurrent.futures import ThreadPoolExecutor
    import app.ui
    from app.library import library
    assert "torch" not in sys.modules and "transformers" not in sys.modules
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: library().Runtime, range(8)))
    assert len(set(found)) == 1
    print(found[0].__name__)
"""


def test_many_threads_may_want_the_model_first():
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.stdout.strip(), ended.returncode) == ("Runtime", 0), ended.stderr[-600:]


def test_handlers_import_nothing_of_the_library_late():
    for path in sorted((Path(__file__).parents[2] / "app").glob("*.py")):
        late = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
        names = {inner.module or "" for function in late for inner in ast.walk(function) if isinstance(inner, ast.ImportFrom)}
        assert path.name == "library.py" or not any(name.startswith("latentomni") for name in names), path.name
