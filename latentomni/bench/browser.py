"""The headless browser that measurements and tests drive."""

import shutil

__all__ = ["BROWSERS", "FLAGS", "find_browser"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-zygote", "--disable-quic", "--no-first-run", "--disable-background-networking")


def find_browser() -> str | None:
    """Path of the first of BROWSERS that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
