"""How the app is started: command-line arguments, which default to environment variables."""

import argparse
import os
from dataclasses import dataclass

from latentomni.config import QuantizationSpec

__all__ = ["Settings"]

_EXAMPLES = """examples:
  python app.py                                  the shipped nano checkpoint on http://127.0.0.1:7860
  python app.py --model runs/nano/checkpoint     a checkpoint folder
  LATENTOMNI_HOST=0.0.0.0 python app.py          for other machines of the network, too"""


@dataclass(frozen=True)
class Settings:
    """host, port: None leaves the choice to gradio (127.0.0.1, the first free port from 7860). cache: folder of uploads
    and answers; None is the system's temporary folder."""

    model: str = "nano"
    host: str | None = None
    port: int | None = None
    cache: str | None = None
    quantization: str | None = None

    @classmethod
    def read(cls, arguments: list[str]) -> "Settings":
        """Arguments first, then LATENTOMNI_MODEL, _QUANTIZATION, _HOST, _PORT and _CACHE. Ends the program on bad use."""

        def env(name: str, default: str | None = None) -> str | None:
            return os.environ.get(f"LATENTOMNI_{name}") or default

        parser = argparse.ArgumentParser(
            "python app.py",
            description="Serve the LatentOmni demo.",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--model", default=env("MODEL", "nano"), help="nano, a checkpoint's folder or a hub id")
        parser.add_argument(
            "--quantization", default=env("QUANTIZATION"), choices=[str(q) for q in QuantizationSpec], help="of the language model; default: none"
        )
        parser.add_argument("--host", default=env("HOST"), help="address to listen on")
        parser.add_argument("--port", type=int, default=env("PORT"), help="port to listen on")
        given = parser.parse_args(arguments)
        return cls(given.model, given.host, given.port, env("CACHE"), given.quantization)
