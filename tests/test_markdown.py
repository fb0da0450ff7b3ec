"""Sections of Markdown files."""

import pytest

from latentomni.errors import RequestError
from latentomni.markdown import write_section


def test_a_section_stands_once_and_what_is_around_it_stays(tmp_path):
    path = tmp_path / "README.md"
    assert write_section(path, "figures", "new") == path
    assert path.read_text() == f"# {tmp_path.name}\n\n<!-- figures: begin -->\nnew\n<!-- figures: end -->\n"
    path.write_text("# nano\n\nIt answers.\n")
    write_section(path, "figures", "first")
    text = path.read_text()
    assert text.startswith("# nano\n\nIt answers.\n\n") and text.count("first") == 1
    path.write_text(text + "\n## Files\n")
    write_section(path, "figures", "second")
    assert path.read_text() == text.replace("first", "second") + "\n## Files\n"
    write_section(path, "other", "third")
    assert path.read_text().startswith(text.replace("first", "second")) and "third" in path.read_text()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"nowhere/README[.]md cannot be written"):
        write_section(tmp_path / "nowhere" / "README.md", "figures", "text")
