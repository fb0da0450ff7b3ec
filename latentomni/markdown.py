"""Sections of Markdown files that commands write and write again."""

from pathlib import Path

from latentomni.errors import RequestError

__all__ = ["write_section"]


def write_section(path: Path, name: str, section: str) -> Path:
    """Put the section into the file: in place of the one of this name that stands there, else at the end. A file that is missing is made.
    Raises RequestError where it cannot be written."""
    begin_mark, end_mark = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    block = f"{begin_mark}\n{section}\n{end_mark}"
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else f"# {path.resolve().parent.name}\n"
        before, begin, rest = text.partition(begin_mark)
        _, end, after = rest.partition(end_mark)
        path.write_text(f"{before}{block}{after}" if begin and end else f"{text.rstrip()}\n\n{block}\n", encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be written ({error}); make its folder writable.") from error
    return path
