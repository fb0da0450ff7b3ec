"""LatentOmni: an audio-visual language model that reasons in continuous latents between its words."""

import logging
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentomni.runtime import ask
    from latentomni.trace import Trace

    open_trace = Trace.load

__all__ = ["ask", "open_trace"]
__version__ = "0.1.0"

# On a machine without a GPU bitsandbytes warns that a package is missing which no requirement names, its own or ours.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_HOMES = {"ask": ("latentomni.runtime", "ask"), "open_trace": ("latentomni.trace", "Trace.load")}


def __getattr__(name: str) -> Any:
    """What is imported from here comes when it is asked for: every module passes through here, and few need torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'latentomni' has no attribute {name!r}")
    module, path = _HOMES[name]
    return attrgetter(path)(import_module(module))
