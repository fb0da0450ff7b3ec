"""Who answers which prompt, and what is kept: the settings of a synthesis, from a JSON file or one endpoint for all roles."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from latentomni.errors import RequestError, require

__all__ = ["ROLES", "STRUCTURED", "Role", "Settings", "read_settings"]

ROLES = ("writer", "judge", "watcher", "listener", "editor", "reasoner", "auditor")
STRUCTURED = ("json_schema", "json_object", "none")


@dataclass(frozen=True)
class Role:
    """One model behind one endpoint.

    endpoint: the base URL of an OpenAI-compatible server, up to /v1. model: the name it knows it by. media: pictures and sound are sent to
    it; without, it reads the notes of a source instead. structured: how it is held to the reply's
    JSON schema: "json_schema" as OpenAI and vLLM do, "json_object" with the schema beside it as llama-cpp-python does, or "none". concurrency: requests
    at a time, of one worker. requests_per_minute: at most, of all; None: no limit. price: dollars per million tokens, (in, out). key_variable: the
    environment variable that holds its key. retries: of a request that the server refused or dropped.
    """

    endpoint: str
    model: str
    media: bool = False
    structured: str = STRUCTURED[0]
    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout_s: float = 120.0
    retries: int = 6
    price: tuple[float, float] = (0.0, 0.0)
    key_variable: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        require("@" not in self.endpoint, "an endpoint's address holds no password; put its key into the variable that key_variable names")
        require(_is_address(self.endpoint), f"an endpoint is an http:// or https:// address, got {self.endpoint!r}")
        require(bool(self.model), "a role needs the name of its model")
        require(self.concurrency >= 1 and self.retries >= 0, f"concurrency starts at 1 and retries at 0, got {self.concurrency} and {self.retries}")
        require(self.structured in STRUCTURED, f"structured is one of {', '.join(STRUCTURED)}, got {self.structured!r}")
        rate = self.requests_per_minute
        require(rate is None or 0 < rate < math.inf, f"requests_per_minute must be above 0, got {rate}")
        require(0 < self.timeout_s < math.inf, f"timeout_s must be above 0, got {self.timeout_s}")
        object.__setattr__(self, "price", tuple(self.price))
        is_price = len(self.price) == 2 and all(isinstance(side, int | float) and 0 <= side < math.inf for side in self.price)
        require(is_price, f"a price is [dollars in, dollars out] per million tokens, got {self.price}")


@dataclass(frozen=True)
class Settings:
    """roles: one for each of ROLES. questions_per_clip: asked of the writer. min_total, min_each: of the three scores, 3 to 15 and 1 to 5
    (the paper keeps 13 and more). max_imbalance: the most frequent type of question over the rarest. gate: what one modality answers is
    rejected. attempts: at a reply that can be used. seed: of the models' sampling, and of what is left out to balance."""

    roles: dict[str, Role]
    questions_per_clip: int = 3
    min_total: int = 13
    min_each: int = 1
    max_imbalance: float = 3.0
    gate: bool = True
    attempts: int = 3
    seed: int = 7

    def __post_init__(self) -> None:
        roles = {name: role if isinstance(role, Role) else _made(Role, role, f"role {name!r}") for name, role in dict(self.roles).items()}
        unknown, missing = sorted(roles.keys() - set(ROLES)), sorted(set(ROLES) - roles.keys())
        require(not unknown and not missing, f"the roles are {', '.join(ROLES)}; unknown: {unknown or 'none'}, missing: {missing or 'none'}")
        object.__setattr__(self, "roles", roles)
        require(1 <= self.questions_per_clip <= 8, f"questions_per_clip must be 1 to 8, got {self.questions_per_clip}")
        require(3 <= self.min_total <= 15 and 1 <= self.min_each <= 5, f"min_total is 3 to 15, min_each 1 to 5, got {self.min_total} and {self.min_each}")
        require(1 <= self.max_imbalance < math.inf, f"max_imbalance starts at 1, got {self.max_imbalance}")
        require(1 <= self.attempts <= 10, f"attempts must be 1 to 10, got {self.attempts}")

    @classmethod
    def of_one(cls, role: Role, **rest: Any) -> "Settings":
        """All roles by one model."""
        return cls(dict.fromkeys(ROLES, role), **rest)


_TYPES = {str: (str,), bool: (bool,), int: (int,), float: (int, float), float | None: (int, float, type(None)), tuple[float, float]: (list, tuple),
          dict[str, Role]: (dict,)}  # fmt: skip


def _is_address(text: str) -> bool:
    try:
        return text.startswith(("http://", "https://")) and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def read_settings(path: Path | str) -> Settings:
    """Settings from a JSON file; RequestError says what is wrong with it."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}); give a JSON file as docs/SYNTHESIS.md shows.") from None
    except ValueError as error:
        raise RequestError(f"{path} is not JSON ({error}).") from None
    return _made(Settings, values, str(path))


def _made(kind: type, values: Any, name: str) -> Any:
    require(isinstance(values, dict), f"{name} must be an object, got {type(values).__name__}")
    known = get_type_hints(kind)
    unknown = sorted(values.keys() - known.keys())
    require(not unknown, f"{name} has the unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
    for key, value in values.items():
        require(type(value) in _TYPES[known[key]], f"{name} cannot be used: {key} is {json.dumps(value)}, another type than docs/SYNTHESIS.md says.")
    try:
        return kind(**values)
    except TypeError as error:
        raise RequestError(f"{name} cannot be used: {error}.") from None
