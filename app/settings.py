"""How the app is started: command-line arguments, which default to environment variables; docs/OPERATION.md lists them all."""

import argparse
import math
import os
from dataclasses import dataclass, field

from latentomni.config import QuantizationSpec
from latentomni.errors import RequestError

__all__ = ["Limits", "Settings"]

_EXAMPLES = """examples:
  python app.py                                  the shipped nano checkpoint on http://127.0.0.1:7860
  python app.py --model runs/nano/checkpoint     a checkpoint folder
  LATENTOMNI_HOST=0.0.0.0 python app.py          for other machines of the network, too"""


@dataclass(frozen=True)
class Limits:
    """What a server allows. run_s: seconds of one run of the model. grace_s: seconds that runs have to end when the server is told to stop.
    queue: runs that wait. per_user: runs of one session, waiting or not. keep_h: hours after which a run is deleted (uploads: a
    day at most). runs_mib: MiB that all kept runs take, beyond which the oldest are deleted."""

    run_s: float = 300.0
    grace_s: float = 20.0
    queue: int = 32
    per_user: int = 4
    keep_h: float = 168.0
    runs_mib: float = 4096.0

    @property
    def uploads_s(self) -> float:
        """Seconds after which uploads, and the folders of visitors who are gone, are deleted."""
        return min(self.keep_h, 24) * 3600

    @classmethod
    def read(cls) -> "Limits":
        """From the environment. Raises RequestError for what is no number above 0."""
        return cls(
            _number("LATENTOMNI_RUN_S", cls.run_s), _number("LATENTOMNI_GRACE_S", cls.grace_s), int(_number("LATENTOMNI_QUEUE", cls.queue)),
            int(_number("LATENTOMNI_PER_USER", cls.per_user)), _number("LATENTOMNI_KEEP_H", cls.keep_h), _number("LATENTOMNI_RUNS_MIB", cls.runs_mib),
        )  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """host, port: None leaves the choice to gradio (127.0.0.1, the first free port from 7860). cache: folder of uploads
    and answers; None is the system's temporary folder. log: "plain" or "json". is_public: visitors share the
    model and must not change it, as on a Space."""

    model: str = "nano"
    host: str | None = None
    port: int | None = None
    cache: str | None = None
    quantization: str | None = None
    log: str = "plain"
    is_public: bool = False
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def read(cls, arguments: list[str]) -> "Settings":
        """Arguments first, then the environment. Ends the program on bad use."""
        parser = argparse.ArgumentParser(
            "python app.py",
            description="Serve the LatentOmni demo.",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--model", default=_env("LATENTOMNI_MODEL", "nano"), help="nano, a checkpoint's folder or a hub id")
        parser.add_argument(
            "--quantization", default=_env("LATENTOMNI_QUANTIZATION"), choices=[str(q) for q in QuantizationSpec],
            help="of the language model; default: none",
        )  # fmt: skip
        parser.add_argument("--host", default=_env("LATENTOMNI_HOST"), help="address to listen on")
        parser.add_argument("--port", type=int, default=_env("LATENTOMNI_PORT"), help="port to listen on")
        given = parser.parse_args(arguments)
        log = _env("LATENTOMNI_LOG", "plain")
        if log not in ("plain", "json"):
            parser.error(f"LATENTOMNI_LOG is {log!r}; it may be plain or json.")
        is_public = bool(_env("LATENTOMNI_PUBLIC") or _env("SPACE_ID"))
        try:
            limits = Limits.read()
        except RequestError as error:
            parser.error(str(error))
        quantization = given.quantization or _of_a_space(given.model)
        return cls(given.model, given.host, given.port, _env("LATENTOMNI_CACHE"), quantization, log, is_public, limits)


def _env(name: str, default: str | None = None) -> str | None:
    return os.environ.get(name) or default


def _of_a_space(model: str) -> str | None:
    """A copy of the Space with another model, and nothing else said: four bits, but where ZeroGPU lends a GPU that holds it whole."""
    is_lent = _env("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    return "nf4" if _env("SPACE_ID") and not is_lent and model != "nano" else None


def _number(name: str, default: float) -> float:
    text = _env(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise RequestError(f"{name} is {text!r}; it must be a number above 0.")
    return number
