"""Asking models behind OpenAI-compatible endpoints: every reply is checked, and kept under the hash of what was asked.

What was kept is never asked again, so a run that was killed goes on where it was, and the same settings give the same records.
"""

import asyncio
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml
from pydantic import ValidationError

from latentomni.errors import LatentOmniError, RequestError
from latentomni.synthesis.replies import REPLIES
from latentomni.synthesis.settings import Role, Settings

__all__ = ["Asker", "EndpointError", "UnusableReply", "prompt_versions", "served_model", "served_structure"]

_KEPT_CHARS = 200  # of a reply, in the reason of a rejection
_HOTTEST = 2.0  # servers refuse more
_TOO_LONG = re.compile(r"context[ _](?:length|window|size)", re.IGNORECASE)  # as OpenAI, vLLM and llama.cpp say it
_NO_KEY = "none"
_OTHERWISE = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}  # what some of OpenAI's models refuse


class EndpointError(LatentOmniError):
    """An endpoint that does not answer, after all retries. What was answered before is kept."""


class UnusableReply(Exception):
    """A model that did not reply as asked in any attempt. `reason`: of the last one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Asker:
    """All roles' endpoints, as long as a stage. kept: the folder of replies. workers: whose requests it sends."""

    def __init__(self, settings: Settings, kept: Path, workers: int = 1) -> None:
        self.settings, self.kept = settings, kept
        self._lines = {name: _Line(role, role.concurrency * workers) for name, role in settings.roles.items()}
        self._asked: dict[str, asyncio.Lock] = {}

    async def ask(self, prompt: str, calls: list[str], parts: Sequence[dict[str, Any]] = (), **values: Any) -> dict[str, Any]:
        """What the prompt's role replies to it, as the schema of the reply has it. parts: pictures and sound, sent behind the text.

        The keys of the replies used are added to `calls`. Raises UnusableReply, or EndpointError where the server fails.
        """
        head, system, user = _prompt(prompt)
        role = self.settings.roles[head["role"]]
        reply = REPLIES[prompt]
        text = Template(user).substitute(values)
        content: Any = [{"type": "text", "text": text}, *parts] if parts else text
        request = {
            "model": role.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": content}],
            "max_tokens": head["max_tokens"],
        }
        if role.structured == "json_schema":
            schema = {"name": prompt, "strict": True, "schema": reply.model_json_schema()}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif role.structured == "json_object":
            request["response_format"] = {"type": "json_object", "schema": reply.model_json_schema()}
        for attempt in range(self.settings.attempts):
            temperature = min(head["temperature"] + 0.3 * attempt, _HOTTEST)
            drawn = {"temperature": temperature, "seed": self.settings.seed + attempt}  # the same again would be the same
            answer = await self._answer(head["role"], {**request, **drawn}, calls)
            try:
                return reply.model_validate_json(_json_in(answer)).model_dump(mode="json")
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                reason = f"{prompt}: {first['msg']}{f' at {where}' if where else ''}; got {answer[:_KEPT_CHARS]!r}"
        raise UnusableReply(reason)

    def usage(self, calls: Sequence[str]) -> dict[str, dict[str, float]]:
        """Per role: requests, tokens in and out and what they cost, over the replies of these keys, each counted once."""
        used = {name: {"requests": 0, "tokens_in": 0, "tokens_out": 0, "dollars": 0.0} for name in self.settings.roles}
        for key in dict.fromkeys(calls):
            told = json.loads(self._file(key).read_text(encoding="utf-8"))
            row = used[told["role"]]
            row["requests"] += 1
            for side, price in zip(("in", "out"), self.settings.roles[told["role"]].price, strict=True):
                row[f"tokens_{side}"] += told[f"tokens_{side}"]
                row["dollars"] += told[f"tokens_{side}"] * price / 1e6
        return {name: {**row, "dollars": round(row["dollars"], 6)} for name, row in used.items()}

    async def _answer(self, role: str, request: dict[str, Any], calls: list[str]) -> str:
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        file = self._file(key)
        async with self._asked.setdefault(key, asyncio.Lock()):  # two items may ask the same at once
            told = None if file.is_file() else {"role": role, **await self._lines[role].send(request)}
            if told and not file.is_file():  # nor has another process kept a reply, which it goes on from
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_suffix(f".{uuid.uuid4().hex}.partial")
                partial.write_text(json.dumps(told), encoding="utf-8")
                partial.replace(file)
        calls.append(key)
        return json.loads(file.read_text(encoding="utf-8"))["text"]

    def _file(self, key: str) -> Path:
        return self.kept / key[:2] / f"{key[2:]}.json"

    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()


class _Line:
    """One role's requests: so many at a time, so many a minute; retried with backoff by the client."""

    def __init__(self, role: Role, concurrency: int) -> None:
        self.role, self.concurrency, self._client, self._free_at_s = role, concurrency, None, 0.0
        self._otherwise: dict[str, str | None] = {}  # parameter -> its other name, or None to leave it out

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        openai = _openai()
        if self._client is None:
            key = _key(self.role.key_variable)
            self._client = openai.AsyncOpenAI(base_url=self.role.endpoint, api_key=key, timeout=self.role.timeout_s, max_retries=self.role.retries)
            self._places = asyncio.Semaphore(self.concurrency)
        async with self._places:
            for _ in range(self.role.retries + 1 + len(_OTHERWISE)):  # a body that was cut off is not retried by the client
                await self._wait_for_turn()
                named = {self._otherwise.get(name, name): value for name, value in request.items()}
                try:
                    done = await self._client.chat.completions.create(**{name: value for name, value in named.items() if name})
                    return _told(done)
                except openai.APIConnectionError as error:
                    raise EndpointError(self._failed(f"cannot be reached ({_one_line(str(error.__cause__ or '') or str(error))})")) from None
                except openai.APIStatusError as error:
                    if error.status_code == 400 and error.param in _OTHERWISE and named.get(error.param):
                        self._otherwise[error.param], last = _OTHERWISE[error.param], error
                        continue
                    if error.status_code == 413 or (error.status_code == 400 and _TOO_LONG.search(error.message)):  # the item's fault
                        raise UnusableReply(f"too long for {self.role.model}: {_one_line(error.message)}") from None
                    told = f"answered {error.status_code} ({_one_line(error.message)})"
                    other = ", or does not know this way of asking for JSON (a role's 'structured')" if "response_format" in error.message else ""
                    raise EndpointError(self._failed(told + other)) from None
                except (openai.APIError, ValueError, AttributeError, TypeError, IndexError) as error:
                    last = error
            raise EndpointError(self._failed(f"sent what is not a chat completion ({_one_line(str(last))})"))

    def _failed(self, what: str) -> str:
        key = _key(self.role.key_variable)
        what = what if key == _NO_KEY else what.replace(key, "...")  # some servers repeat it
        return f"{self.role.endpoint} {what}; all replies so far are kept, run the same command again to go on."

    async def _wait_for_turn(self) -> None:
        if self.role.requests_per_minute:
            now_s = time.monotonic()
            turn_s = max(now_s, self._free_at_s)
            self._free_at_s = turn_s + 60 / self.role.requests_per_minute
            await asyncio.sleep(turn_s - now_s)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


def served_model(endpoint: str) -> str:
    """The name of the only model, or the first, that a server says it has."""
    openai = _openai()
    try:
        with openai.OpenAI(base_url=endpoint, api_key=_key("OPENAI_API_KEY"), timeout=30, max_retries=3) as client:
            return next(iter(client.models.list())).id
    except (openai.OpenAIError, StopIteration, ValueError, AttributeError) as error:
        raise EndpointError(f"{endpoint} does not say which models it has ({_one_line(str(error))}); name one with --model.") from None


def served_structure(endpoint: str, model: str) -> str:
    """How a server holds replies to a schema: "json_object" where it refuses "json_schema", as llama-cpp-python does."""
    openai = _openai()
    form = {"type": "json_schema", "json_schema": {"name": "yes", "strict": True, "schema": {"type": "object"}}}
    try:
        with openai.OpenAI(base_url=endpoint, api_key=_key("OPENAI_API_KEY"), timeout=120, max_retries=0) as client:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Say {}."}], max_tokens=8, response_format=form)
    except openai.APIStatusError as error:
        if "response_format" in error.message:
            return "json_object"
    except (openai.OpenAIError, ValueError, AttributeError, TypeError):
        pass  # whatever else is wrong is told by the first question
    return "json_schema"


def prompt_versions() -> dict[str, str]:
    """Prompt -> "version hash": what was asked with, for the report."""
    return {name: f"{_prompt(name)[0]['version']} {hashlib.sha256(_text(name).encode()).hexdigest()[:12]}" for name in REPLIES}


def _key(variable: str) -> str:
    """Without line ends, as a file may have given it: an error would show the header that they break."""
    return "".join(os.environ.get(variable, "").split()) or _NO_KEY


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise RequestError("synthesis asks models through the package openai; `pip install openai`.") from None
    return openai


def _told(done: Any) -> dict[str, Any]:
    text, usage = done.choices[0].message.content or "", done.usage
    if not isinstance(text, str):
        raise TypeError(f"its content is no text: {text!r}")
    sides = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    return {"text": text, "tokens_in": sides[0] or 0, "tokens_out": sides[1] or 0}


def _json_in(text: str) -> str:
    """The object within what a model wrote around it, behind what it thought."""
    text = text.rpartition("</think>")[2]
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_KEPT_CHARS]


@cache
def _prompt(name: str) -> tuple[dict[str, Any], str, str]:
    """Front matter, system text and user text of a prompt's file."""
    _, head, system, user = (part.strip() for part in _text(name).split("---\n", 3))
    return yaml.safe_load(head), system, user


def _text(name: str) -> str:
    return (files("latentomni.synthesis") / "prompts" / f"{name}.md").read_text(encoding="utf-8")
