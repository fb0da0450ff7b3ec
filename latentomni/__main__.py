"""`python -m latentomni COMMAND`."""

import sys


def _run() -> int | str:
    """The exit status; or, where a package is missing, a sentence that says so instead of a traceback."""
    try:
        from latentomni.cli import main

        return main()
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("latentomni", "visualizers", "app"):
            raise
        return f"The package {error.name} is missing here; use the environment of `make demo` (`. .venv/bin/activate`), or install requirements.txt."


if __name__ == "__main__":
    sys.exit(_run())
