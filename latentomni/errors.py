"""Errors that a user or a file can cause. Their text is one plain sentence and may be shown verbatim."""

__all__ = ["CheckpointError", "DataError", "LatentOmniError", "MediaError", "RequestError", "TraceError", "plain", "require"]


class LatentOmniError(Exception):
    """Root of every error that the command line and the app show as a sentence instead of a traceback."""


class MediaError(LatentOmniError):
    """A video or sound file that cannot be used."""


class RequestError(LatentOmniError, ValueError):
    """A question or a setting that cannot be honoured."""


class CheckpointError(LatentOmniError):
    """A model that cannot be loaded."""


class TraceError(LatentOmniError):
    """A trace file that is malformed, too large, or of another version."""


class DataError(LatentOmniError, ValueError):
    """A row of training or benchmark data that does not follow the schema."""


def require(condition: bool, message: str) -> None:
    """Hold a setting against its bounds. Raises RequestError."""
    if not condition:
        raise RequestError(message)


def plain(said: object, most: int = 200) -> str:
    """What a file or a library says, fit to stand in a sentence: one line, printable, at most `most` characters."""
    text = "".join(c if c.isprintable() else " " for c in str(said)[: 8 * most])
    text = " ".join(text.split()).removesuffix(".")
    return text if len(text) <= most else f"{text[:most]}..."
