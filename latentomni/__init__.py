"""LatentOmni: an audio-visual language model that reasons in continuous latents between its words."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentomni.runtime import ask
    from latentomni.trace import open_trace

__all__ = ["ask", "open_trace"]
__version__ = "0.1.0"

# On a machine without a GPU bitsandbytes warns that a package is missing which no requirement names, its own or ours.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_HOMES = {"ask": "latentomni.runtime", "open_trace": "latentomni.trace"}


def __getattr__(name: str) -> Any:
    """What is imported from here comes when it is asked for: every module passes through here, and few need torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'latentomni' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
