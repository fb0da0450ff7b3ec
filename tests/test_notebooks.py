"""The notebooks run, are short, and carry no outputs. They are read as JSON: their kernel is this process."""

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_is_one():
    assert [path.name for path in NOTEBOOKS] == ["inspect_a_clip.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_short_and_clean(path):
    cells = code_cells(path)
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines() if line.strip()]
    assert len(lines) < 10
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_a_clip_is_inspected_in_the_notebooks_folder(monkeypatch, capsys):
    monkeypatch.chdir(EXAMPLES)
    namespace = {}
    for cell in code_cells(EXAMPLES / "inspect_a_clip.ipynb"):
        *lines, last = "".join(cell["source"]).splitlines()
        if last.startswith("visualizers.plot_"):
            last = f"figures = [*globals().get('figures', []), {last}]"
        exec(compile("\n".join([*lines, last]), "cell", "exec"), namespace)  # the project's own file
    trace, printed = namespace["trace"], capsys.readouterr().out.splitlines()
    assert printed[0] == trace.answer
    assert [line.partition(".")[0] for line in printed[1:6]] == ["1", "2", "3", "4", "5"]
    assert printed[6] == f"p {trace.blocks[0].latents[3].p_corrected}"
    timeline, heat = namespace["figures"]
    assert timeline.layout.xaxis2.title.text == "seconds"
    assert len(heat.data[0].z) == sum(z.modality == "visual" for z in trace.blocks[0].latents)
