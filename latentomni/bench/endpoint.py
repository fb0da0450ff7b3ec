"""A server that speaks the protocol of OpenAI-compatible endpoints, with a scripted model behind it that knows AV World's words.

It is what synthesis is tested and timed against where no language model is: its replies are right often, wrong now and then, and always
the same for the same request; on the way to them it fails as real servers do.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from latentomni.avworld.vocabulary import COLOURS, COUNTS, SOUNDS
from latentomni.synthesis.replies import QUESTION_TYPES

__all__ = ["Faults", "ScriptedEndpoint"]

_LINE = re.compile(r"\[([\d.]+)-([\d.]+) s\] (\w+) (\w+), ([\w ]+), (\w+), ([\w ]+)\.")
_PIECE = re.compile(r"^(\d+)\. (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Faults:
    """Shares of requests whose first tries fail, and of replies that cannot be used. stall_s: how long a stalled one is held. unknown: parameters
    that are refused, as OpenAI's models that think refuse some, or ways to ask for JSON."""

    transient: float = 0.0
    unusable: float = 0.0
    stall_s: float = 1.0
    unknown: tuple[str, ...] = ()


class ScriptedEndpoint:
    """A context: the server runs while it is open. url: its base. answered: how often each request was answered, by its hash."""

    def __init__(self, faults: Faults | None = None, delay_s: float = 0.0) -> None:
        self.faults, self.delay_s = faults or Faults(), delay_s
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()
        self._lock, self._closed = threading.Lock(), threading.Event()

    def __enter__(self) -> "ScriptedEndpoint":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *_: Any) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_of(self, key: str) -> str | None:
        """How this try of a request fails, if it does: one or two tries, then it is answered."""
        with self._lock:
            self._tries[key] += 1
            tried = self._tries[key]
        draw = random.Random(f"fault {key}")
        if draw.random() >= self.faults.transient or tried > draw.choice((1, 1, 2)):
            return None
        kind = draw.choice(("429", "500", "503", "cut off", "not JSON", "stall"))
        with self._lock:
            self.failed[kind] += 1
        return kind

    def stall(self) -> None:
        self._closed.wait(self.faults.stall_s)

    def reply(self, request: dict[str, Any], key: str) -> str:
        """The text of the completion."""
        with self._lock:
            self.answered[key] += 1
        if self.delay_s:
            time.sleep(self.delay_s)
        draw = random.Random(key)
        text = json.dumps(_scripted(request, draw))
        return text[: len(text) // 2] if draw.random() < self.faults.unusable else text


def _handler(endpoint: ScriptedEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": "scripted", "object": "model", "created": 0, "owned_by": "latentomni"}]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            key = hashlib.sha256(body).hexdigest()
            fault = endpoint.fault_of(key)
            if fault in ("429", "500", "503"):
                self._send(int(fault), {"error": {"message": "busy" if fault == "429" else "failed"}}, **{"retry-after-ms": "5"})
                return
            if fault == "stall":
                endpoint.stall()
            request = json.loads(body)
            if fault:
                self._send_damaged(fault)
                return
            if refused := [name for name in endpoint.faults.unknown if name in request]:
                told = {"message": f"Unsupported parameter: '{refused[0]}'", "type": "invalid_request_error", "param": refused[0]}
                self._send(400, {"error": told})
                return
            if (form := request.get("response_format", {}).get("type")) in endpoint.faults.unknown:  # in llama-cpp-python's words
                self._send(500, {"error": {"message": f"'loc': ('body', 'response_format', 'type'), 'input': '{form}'", "param": None}})
                return
            text = endpoint.reply(request, key)
            usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4, "total_tokens": (len(body) + len(text)) // 4}
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            self._send(200, {"id": key[:8], "object": "chat.completion", "created": 0, "model": "scripted", "choices": [message], "usage": usage})

        def _send(self, status: int, value: dict[str, Any], **headers: str) -> None:
            data = json.dumps(value).encode()
            self._head(status, len(data), headers)
            self.wfile.write(data)

        def _send_damaged(self, fault: str) -> None:
            """Half of a body: as all there is, or with the connection closed where more was announced."""
            data = b'{"id": "x", "object": "chat.completion", "choices": [{"index": 0, "mess'
            self._head(200, len(data) * (1 if fault == "not JSON" else 2), {})
            try:
                self.wfile.write(data)
            except OSError:
                return  # the client has given up, as it should
            self.close_connection = True

        def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(length), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _scripted(request: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """What the model says to one of the prompts of synthesis, which the reply's schema names."""
    name = request["response_format"]["json_schema"]["name"]
    if name not in _REPLIES:  # it is asked whether it can be asked so
        return {}
    content = request["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return _REPLIES[name](text, draw)


def _questions(text: str, draw: random.Random) -> dict[str, Any]:
    scenes = [match.groups()[2:] for match in _LINE.finditer(text)]
    count = int(re.search(r"Write (\d+) questions", text)[1])
    return {"questions": [_question(scenes, draw) for _ in range(count)]}


def _question(scenes: list[tuple[str, ...]], draw: random.Random) -> dict[str, str]:
    colour, shape, place, sound, count = draw.choice(scenes)
    return draw.choice((
        {"question": f"What colour is the object while the {sound} is heard?", "answer": colour},
        {"question": f"Which shape is on screen when you hear the {sound}?", "answer": shape},
        {"question": f"Which sound goes with the {colour} {shape}?", "answer": sound},
        {"question": f"How often does the sound come while the {colour} {shape} is there?", "answer": count},
        {"question": f"In which corner is the object while the {sound} is heard?", "answer": place},
        {"question": f"Where is the {colour} {shape}?", "answer": place},
        {"question": f"How often is the {sound} heard?", "answer": count},
        {"question": f"What colour is the object at 0:0{len(scenes)}?", "answer": colour},
    ))  # fmt: skip


def _scores(text: str, draw: random.Random) -> dict[str, Any]:
    return {
        **{name: draw.choice((3, 4, 5, 5, 5)) for name in ("difficulty", "rigour", "modality_dependence")},
        "type": draw.choice(QUESTION_TYPES[:3] + QUESTION_TYPES[:1] * 3),
    }


def _guess(text: str, draw: random.Random) -> dict[str, str]:
    """What is noted where the question's words are; else a guess among words of the kind that it asks for."""
    told, question = re.search(r"What is (?:seen|heard):\n(.*?)\n\nQuestion: (.*?)\n", text, re.DOTALL).groups()
    words = set(re.findall(r"\w+", question.lower()))
    asked = next((kind for kind, sign in _ASKED.items() if sign in question.lower()), "sound")
    lines = [line.partition("] ")[2].rstrip(".") for line in told.splitlines()]
    found = [value for line in lines if words & set(re.findall(r"\w+", line)) and (value := _of_kind(asked, line))]
    others = [value for line in lines if (value := _of_kind(asked, line))]
    return {"answer": found[0] if found else draw.choice(others or (COUNTS if asked == "how often" else SOUNDS if asked == "sound" else COLOURS))}


_ASKED = {"colour": "colour", "shape": "shape", "corner": "corner", "where": "where", "how often": "how often"}


def _of_kind(asked: str, line: str) -> str | None:
    first, _, rest = line.partition(", ")
    is_seen = first.partition(" ")[0] in COLOURS
    if asked in ("colour", "shape"):
        return first.split(" ")[asked == "shape"] if is_seen else None
    if asked in ("corner", "where"):
        return rest if is_seen else None
    return None if is_seen else (rest if asked == "how often" else first)


def _verdict(text: str, draw: random.Random) -> dict[str, bool]:
    right, given = (re.search(rf"{name} answer: (.*)", text)[1].strip().lower() for name in ("Right", "Given"))
    return {"right": (right == given) ^ (draw.random() < 0.03)}


def _caption(text: str, draw: random.Random) -> dict[str, str]:
    lines = re.search(r"The seconds to describe:\n(.*?)\n\n", text, re.DOTALL)[1]
    return {"caption": " ".join(line.partition("] ")[2] or line for line in lines.splitlines())}


def _merged(text: str, draw: random.Random) -> dict[str, Any]:
    seen, heard = (re.search(rf"as {sense}: (.*)", text)[1] for sense in ("seen", "heard"))
    return {"seen": seen, "heard": heard, "supported": draw.random() >= 0.02}


def _pieces(text: str) -> tuple[dict[int, str], set[str], str]:
    question, answer = re.search(r"Question: (.*)\nRight answer: (.*)", text).groups()
    return {int(number): piece for number, piece in _PIECE.findall(text)}, set(re.findall(r"\w+", question.lower())), answer.strip()


def _best(pieces: dict[int, str], words: set[str]) -> int:
    return max(pieces, key=lambda number: len(words & set(re.findall(r"\w+", pieces[number].lower().replace("seen", "").replace("heard", "")))))


def _trajectory(text: str, draw: random.Random) -> dict[str, Any]:
    pieces, words, answer = _pieces(text)
    number = _best(pieces, words) if draw.random() < 0.85 else draw.choice(list(pieces))
    steps = [{"say": "I look for the moment that is asked about.", "segment": number}]
    if draw.random() < 0.2:
        steps.append({"say": "I go there once more.", "segment": draw.choice(list(pieces))})
    if "refused" not in text and draw.random() < 0.1:
        steps[0]["say"] = "The caption says where it is."
    return {"steps": steps, "conclusion": f"So the answer is {answer}."}


def _audit(text: str, draw: random.Random) -> dict[str, Any]:
    pieces, words, _ = _pieces(text)
    best = _best(pieces, words)
    given = [int(number) for number in re.findall(r"\(looks at (\d+)\)", text)]
    mended = [number if number == best or draw.random() < 0.3 else (best if k == 0 else 0) for k, number in enumerate(given)]
    return {"accept": draw.random() >= 0.05, "reason": "It follows from what is there.", "segments": mended}


_REPLIES = {
    "questions": _questions, "scores": _scores, "watch": _guess, "listen": _guess, "verdict": _verdict, "segment-seen": _caption,
    "segment-heard": _caption, "merge": _merged, "trajectory": _trajectory, "audit": _audit,
}  # fmt: skip
