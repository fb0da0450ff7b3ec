"""A run as one page that needs no other file and no network: text, pictures, sound and the inspector. Numpy only."""

import io
import json
import wave
from html import escape
from pathlib import Path
from typing import Any

from latentomni.trace import Trace
from visualizers.view import data_uri, view

__all__ = ["component_css", "component_js", "html_page", "sound_uri"]

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = (
    "drawing.js", "export.js", "timeline.js", "strip.js", "detail.js", "meter.js", "answer.js", "inspector.js", "views.js", "map.js", "attention.js",
    "compare.js", "whatif.js",
)  # fmt: skip
_STYLES = ("inspector.css", "views.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{question}</title>
<style>{css}</style>
</head>
<body>
<main>
<header>
<p class="page-name"><b>LatentOmni</b> {facts}</p>
<h1>{question}</h1>
<p class="page-answer"><span>Answer:</span> {answer}</p>{truth}
</header>
{notices}{player}
<div id="inspector"></div>
<details><summary>Settings and timings</summary><dl>{settings}</dl></details>
<footer>{clip} &middot; sha256 {sha256}</footer>
</main>
<script type="application/json" id="view">{view}</script>
<script>{js}
LatentInspector.mount(document.getElementById("inspector"), {options})
  .update(JSON.parse(document.getElementById("view").textContent));</script>
</body>
</html>
"""


def component_css() -> str:
    """The style sheet of the inspector and of the other views."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _STYLES)


def component_js() -> str:
    """All views as one classic script; it defines `LatentInspector` and `LatentViews` and nothing else."""
    parts = "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def html_page(trace: Trace) -> str:
    """The run as a page; everything that came from outside is escaped."""
    parts = ["stage"] * bool(trace.clip.thumbnails) + ["answer", "timeline", "blocks"]
    facts = (trace.clip.name, f"{trace.clip.duration_s:.1f} s", f"model {trace.answerer}", f"{trace.mode} mode")
    page = _PAGE.format(
        policy=_POLICY,
        css=(_STATIC / "page.css").read_text(encoding="utf-8") + component_css(),
        question=escape(trace.question),
        facts=" &middot; ".join(f"<span>{escape(fact)}</span>" for fact in facts),
        answer=escape(trace.answer or "none yet"),
        truth=f'<p class="page-answer"><span>True:</span> {escape(str(trace.truth))}</p>' if trace.truth else "",
        notices=_notices(trace),
        player=_player(trace),
        settings="".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in _settings(trace)
        ),
        clip=escape(trace.clip.name),
        sha256=escape(trace.clip.sha256[:16]),
        view=_json(view(trace)),
        options=_json({"player": "#player", "parts": parts}),
        js=component_js(),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a file may hold halves of characters


def sound_uri(trace: Trace) -> str | None:
    """The clip's sound as a data URI; None without sound."""
    if trace.clip.sound is None or not len(trace.clip.sound):
        return None
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, trace.sound_hz, 0, "NONE", ""))
        file.writeframes(trace.clip.sound.astype("<i2").tobytes())
    return data_uri("audio/wav", buffer.getvalue())


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _notices(trace: Trace) -> str:
    notices = dict.fromkeys((*trace.clip.notices, *trace.notices))
    items = "".join(f"<li>{escape(notice)}</li>" for notice in notices)
    return f'<ul class="page-notices">{items}</ul>\n' if items else ""


def _player(trace: Trace) -> str:
    uri = sound_uri(trace)
    if uri is None:
        return ""
    return f'<audio id="player" controls preload="auto" src="{uri}" aria-label="the sound of the clip"></audio>'


def _settings(trace: Trace) -> list[tuple[str, str]]:
    """Name and value of what a reader needs to repeat the run, then what it took."""
    rows: list[tuple[str, Any]] = [
        ("model", trace.model), ("weights", trace.weights), ("quantization", trace.quantization), ("mode", trace.mode), ("attention flow", trace.flow),
        *trace.sampling.items(), *(("latents: " + name, value) for name, value in trace.spec.items() if name != "flow"),
        ("prompt tokens", trace.prompt_tokens), ("tokens", trace.tokens), ("ended by", trace.reason),
        ("first token after", "-" if trace.ttft_s is None else f"{trace.ttft_s:.2f} s"),
        ("in all", f"{trace.elapsed_s:.2f} s"), ("tokens a second", _figure(trace.tokens_per_s, ".1f")),
        ("latents a second", _figure(trace.latents_per_s, ".1f")), ("tokens held", _figure(trace.kv_tokens or None, "d")),
        ("memory at most", "-" if not trace.memory_bytes else f"{trace.memory_bytes / 2**20:.0f} MiB"),
    ]  # fmt: skip
    return [(name.replace("_", " "), str(value)) for name, value in rows]


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
