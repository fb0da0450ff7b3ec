"""The tab "Attention": how much attention of each step falls on the clip directly, and how much by way of latents; on demand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app import copy
from app.components import Attention
from app.lanes import AT_ONCE, MODEL, TabPage, announce, in_turn
from app.lent import attend
from app.page import idle, said
from app.session import Session
from app.shared import runtime
from latentomni.trace import Trace

__all__ = ["build_tab", "compute", "show", "wire"]


def build_tab() -> dict[str, gr.Component]:
    """Lay the tab out; returns its components by name."""
    parts: dict[str, gr.Component] = {"attention_of": gr.State("")}
    gr.HTML(f'<p class="lo-quiet">{copy.LABELS["attention_intro"]}</p>', apply_default_css=False)
    with gr.Row(elem_classes="lo-tools"):
        parts["attend"] = gr.Button(copy.LABELS["attend"], variant="primary", size="sm", elem_id="attend")
    parts["attention"] = Attention(elem_id="attention")
    return parts


def wire(parts: dict[str, gr.Component], tab: gr.Tab, controls: list[gr.Component]) -> None:
    """parts: the tab's own components, and those that all tabs share."""
    session, of = parts["session"], parts["attention_of"]
    page = [*(parts[name] for name in TabPage._fields[:-1]), parts["attention"]]
    tab.select(show, [session, of], [parts["attention"], of], **AT_ONCE)
    parts["attend"].click(announce(TabPage), session, page, **AT_ONCE).then(compute, session, page, **MODEL).then(
        lambda session: session.turns[session.shown].trace if session.turns else "", session, of, **AT_ONCE
    )


def show(session: Session, of: str) -> tuple[Any, Any]:
    """The tab was opened: what was computed for another answer goes away."""
    is_same = 0 <= session.shown < len(session.turns) and session.turns[session.shown].trace == of
    return (gr.skip(), gr.skip()) if is_same else (None, "")


@in_turn(TabPage, "attention")
def compute(session: Session, visitor: str, cancelled: Callable[[], bool]) -> Iterator[TabPage]:
    """Decode the shown answer again, then read the attention of its steps layer by layer."""
    trace = Trace.load(session.turns[session.shown].trace)
    if not runtime.is_loaded:
        yield TabPage(status=said("loading", "busy", model=Path(runtime.name).name))
    yield TabPage(status=said("again", "busy"))
    yield idle(TabPage(status=said("attention"), result=attend(session.clip, trace, cancelled)), session)
