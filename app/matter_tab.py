"""The tab "Does it matter?": change latents or the clip, let the model answer again, and put both answers beside each other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from app import copy
from app.components import Arms, Inspector, WhatIf
from app.lanes import AT_ONCE, MODEL, announce, in_turn
from app.lent import change_answer
from app.library import library
from app.page import idle, said
from app.session import Session
from app.shared import runtime
from latentomni.clock import Window
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.compare import whatif_view
from visualizers.view import view

__all__ = ["MatterPage", "answer_again", "begin", "build_tab", "choose_target", "show_targets", "wire"]

_INPUT_ARMS = ("black_out", "mute", "shift_sound")
_SAME = gr.skip()


class MatterPage(NamedTuple):
    """What a change of an answer shows; `of` is the trace that was changed, `after` the new answer in an inspector of its own."""

    session: Any = _SAME
    ask: Any = _SAME
    stop: Any = _SAME
    retry: Any = _SAME
    status: Any = _SAME
    result: Any = _SAME
    of: Any = _SAME
    after: Any = _SAME
    after_box: Any = _SAME


def build_tab() -> dict[str, gr.Component]:
    """Lay the tab out; returns its components by name."""
    parts: dict[str, gr.Component] = {"wanted": gr.State({}), "of": gr.State("")}
    gr.HTML(f'<p class="lo-quiet">{copy.LABELS["matter_intro"]}</p>', apply_default_css=False)
    with gr.Row():
        targets = [(copy.CHOICES["target"][name], name) for name in ("all", "block", "latent")]
        parts["target"] = gr.Radio(targets, value="all", label=copy.LABELS["target"], elem_id="target", scale=3, min_width=280)
        parts["block"] = gr.Dropdown([(copy.LABELS["block"].format(1), 0)], value=0, label=copy.LABELS["which_block"], min_width=110)
        kinds = [(copy.CHOICES["modality"][name], name) for name in ("both", "visual", "audio")]
        parts["modality"] = gr.Dropdown(kinds, value="both", label=copy.LABELS["modality"], min_width=220)
    with gr.Row():
        parts["start"] = gr.Number(0, minimum=0, step=0.5, label=copy.LABELS["window_start"], min_width=100)
        parts["end"] = gr.Number(2, minimum=0, step=0.5, label=copy.LABELS["window_end"], min_width=100)
        parts["shift"] = gr.Number(0.5, step=0.5, label=copy.LABELS["shift"], min_width=100)
    parts["arms"] = Arms(copy.arms(), elem_id="arms")
    parts["result"] = WhatIf(elem_id="whatif")
    with gr.Accordion(copy.LABELS["after"], open=False, visible=False, elem_id="after-box") as parts["after_box"]:
        parts["after"] = Inspector(elem_id="after")
    return parts


def wire(parts: dict[str, gr.Component], tab: gr.Tab, controls: list[gr.Component]) -> None:
    """parts: the tab's own components, and those that all tabs share."""
    session = parts["session"]
    shown = [parts[name] for name in ("block", "start", "end", "of", "result", "after_box")]
    tab.select(show_targets, [session, parts["of"]], shown, **AT_ONCE)
    parts["block"].input(choose_target, [session, parts["block"]], [parts["start"], parts["end"]], **AT_ONCE)
    given = [parts[name] for name in ("wanted", "target", "block", "modality", "start", "end", "shift")]
    page = [parts[name] for name in MatterPage._fields]
    parts["arms"].select(begin, session, [*page, parts["wanted"]], **AT_ONCE).then(
        answer_again, [session, *given], page, **MODEL
    )


def show_targets(session: Session, of: str) -> tuple:
    """The tab was opened: offer the blocks of the shown answer; what was found for another answer goes away."""
    turn = session.turns[session.shown] if 0 <= session.shown < len(session.turns) else None
    if turn is None or turn.trace == of:
        return (gr.skip(),) * 6
    trace = Trace.load(turn.trace)
    blocks = [(copy.LABELS["block"].format(n + 1), n) for n in range(len(trace.blocks))]
    window = trace.blocks[0].window if blocks else Window(0.0, min(2.0, trace.clip.duration_s))
    offered = gr.update(choices=blocks or [(copy.LABELS["no_block"], 0)], value=0)
    return offered, window.start_s, window.end_s, "", None, gr.update(visible=False)


def choose_target(session: Session, block: int) -> tuple[float, float]:
    """Another block was chosen: its window is the part of the clip to change."""
    window = Trace.load(session.turns[session.shown].trace).blocks[block].window
    return window.start_s, window.end_s


_announced = announce(MatterPage)


def begin(session: Session, event: gr.EventData, request: gr.Request) -> tuple:
    """A change was chosen: take a ticket, and remember the change and the latent that is chosen in the inspector."""
    return (*_announced(session, request), event._data)


@in_turn(MatterPage, "rerun")
def answer_again(session: Session, visitor: str, cancelled: Callable[[], bool], *wanted: Any) -> Iterator[MatterPage]:
    """Change the shown answer as the tab says, and show both answers."""
    turn = session.turns[session.shown]
    trace = Trace.load(turn.trace)
    change = _change(*wanted)
    if not runtime.is_loaded:
        yield MatterPage(status=said("loading", "busy", model=Path(runtime.name).name))
    yield MatterPage(status=said("again", "busy"))
    outcome = change_answer(session.clip, trace, change, cancelled)
    page = MatterPage(
        status=said("flipped" if outcome.flipped else "unflipped"), result=whatif_view(outcome), of=turn.trace,
        after=view(outcome.after, media=False), after_box=gr.update(visible=True),
    )  # fmt: skip
    yield idle(page, session)


def _change(wanted: dict[str, Any], target: str, block: int, modality: str, start_s: float, end_s: float, shift_s: float):
    """The change that arm and controls name. RequestError where they do not fit together."""
    change = library().Change
    arm, chosen = str(wanted.get("arm", "")), wanted.get("chosen") or {}
    if arm in _INPUT_ARMS:
        if arm != "shift_sound" and not (start_s or 0) < (end_s or 0):
            raise RequestError(copy.ERRORS["no_window"])
        window = None if arm == "shift_sound" else Window(float(start_s or 0), float(end_s))
        return change(arm, window=window, shift_s=float(shift_s or 0))
    latent = None
    if target == "latent":
        if not chosen:
            raise RequestError(copy.ERRORS["no_latent"])
        block, latent = int(chosen["block"]), int(chosen["slot"])
    return change(
        arm, block=None if target == "all" else int(block), latent=latent, modality="" if modality == "both" else modality
    )
