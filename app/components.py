"""Own components: gr.HTML with a fixed frame, drawn by `components.js` from plain values, never from HTML that a visitor wrote."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from app.chinese import TEXTS
from app.chinese_messages import MESSAGES
from app.chinese_views import VIEWS
from visualizers.page import component_css, component_js

__all__ = [
    "Arms", "Attention", "Comparison", "Conversation", "Examples", "Guide", "History", "Inspector", "Map", "Plan", "Player", "Status", "Suggestions", "WhatIf",
    "page_head",
]  # fmt: skip


def page_head() -> str:
    """What these components need in the page's head: the inspector, then our own drawing; all of it inline."""
    own, language = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("components.js", "language.js"))
    texts = json.dumps(TEXTS | VIEWS | MESSAGES, ensure_ascii=False).replace("<", "\\u003c")
    scripts = (component_js(), own, f"{language}\nLatentOmniLanguage({texts});")
    return f"<style>{component_css()}</style>" + "".join(f"<script>{script}</script>" for script in scripts)


def _as_text(value: Any) -> str | None:
    """JSON of a large value: gradio's page copies every object it is given, deeply and more than once, while an answer streams."""
    return None if value is None else json.dumps(value, allow_nan=False)


class _Drawn(gr.HTML):
    """A component whose value is JSON; the function of the class's name in `components.js` draws it."""

    def __init__(self, value: Any = None, **settings: Any) -> None:
        name = type(self).__name__.lower()
        super().__init__(
            value,
            html_template=f'<div class="lo-{name}"></div>',
            js_on_load=f'LatentOmniApp.mount("{name}", element, props, watch, (data) => trigger("select", data));',
            apply_default_css=False,
            **settings,
        )


class Inspector(_Drawn):
    """The answer, its latents and the clip's clock; value: `visualizers.view.view(trace, media=False)`, or None."""

    def postprocess(self, value: Any) -> str | None:
        return _as_text(value)


class Player(_Drawn):
    """The clip; value: of `clips.player_of_file` or `player_of_trace`. Keeps the pictures and the sound curve for the inspector."""

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value and {**value, "media": _as_text(value["media"])}  # the file beside it is gradio's to find


class Examples(_Drawn):
    """Cards of recorded examples; value: `gallery.cards()`. Event: select {index}."""


class Conversation(_Drawn):
    """Questions and answers so far, and what must be said about the one shown. Event: select {index}."""


class Suggestions(_Drawn):
    """Questions that this clip can answer, a list. Event: select {index}."""


class Status(_Drawn):
    """One sentence about what is going on; value: {"text", "kind": "done" | "busy" | "error"}."""


class Arms(_Drawn):
    """Cards of changes to an answer; value: `copy.arms()`. Event: select {arm, chosen: {block, slot} or null}."""


class Attention(_Drawn):
    """Attention of an answer's steps; value: `visualizers.attention.attention_view`, or None."""


class Comparison(_Drawn):
    """Runs beside each other; value: `visualizers.compare.compare_view`, or None."""


class Guide(_Drawn):
    """A first visitor's three steps, a list of sentences; gone for good once it was put away."""


class History(_Drawn):
    """Runs that this browser remembers; value: `runs_tab.list_runs`. Event: select {run, action: "open" | "forget"}."""


class Map(_Drawn):
    """Latents and moments in a plane; value: `visualizers.trajectory.map_view`, or None."""


class Plan(_Drawn):
    """What the next answer will need; value: of `choices.plan`."""


class WhatIf(_Drawn):
    """An answer before and after a change; value: `visualizers.compare.whatif_view`, or None."""
