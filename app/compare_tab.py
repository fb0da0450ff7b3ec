"""The tab "Compare": the three ways to answer on the same clip and seed, and any two runs about one clip."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from app import copy
from app.asking import folded
from app.choices import Choices
from app.components import Comparison
from app.lanes import AT_ONCE, MODEL, TabPage, announce, in_turn
from app.lent import stream_answer
from app.page import failed, idle, said
from app.runs_tab import list_runs
from app.session import Session
from app.shared import runs, runtime
from latentomni.config import Mode
from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.compare import compare_view

__all__ = ["answer_each_way", "build_tab", "offer", "pair", "wire"]


def build_tab() -> dict[str, gr.Component]:
    """Lay the tab out; returns its components by name."""
    parts: dict[str, gr.Component] = {}
    gr.HTML(f'<p class="lo-quiet">{copy.LABELS["compare_intro"]}</p>', apply_default_css=False)
    with gr.Row(elem_classes="lo-tools"):
        parts["three"] = gr.Button(copy.LABELS["three"], variant="primary", size="sm", elem_id="three", min_width=220)
    with gr.Row(elem_classes="lo-pair"):
        parts["first"] = gr.Dropdown([], label=copy.LABELS["first_run"], elem_id="first-run", min_width=200, scale=3)
        parts["second"] = gr.Dropdown([], label=copy.LABELS["second_run"], elem_id="second-run", min_width=200, scale=3)
        parts["pair"] = gr.Button(copy.LABELS["pair"], size="sm", elem_id="pair", min_width=100)
    parts["comparison"] = Comparison(elem_id="comparison")
    return parts


def wire(parts: dict[str, gr.Component], tab: gr.Tab, controls: list[gr.Component]) -> None:
    """parts: the tab's own components, and those that all tabs share. controls: the settings of an answer."""
    session, pinned = parts["session"], [parts["first"], parts["second"]]
    page = [*(parts[name] for name in TabPage._fields[:-1]), parts["comparison"]]
    tab.select(offer, [session, parts["history"]], pinned, **AT_ONCE)
    parts["three"].click(announce(TabPage), session, page, **AT_ONCE).then(
        answer_each_way, [session, *controls], page, **MODEL
    )
    parts["pair"].click(pair, pinned, [parts["status"], parts["comparison"]], **AT_ONCE)


def offer(session: Session, history: list[dict[str, Any]] | None) -> tuple[Any, Any]:
    """The tab was opened: any two runs may be chosen, the answers on the page and those this browser remembers."""
    offered = {turn.run: f"{turn.question} {turn.answer}" for turn in reversed(session.turns) if turn.run}
    for entry in list_runs(history)["runs"]:
        offered.setdefault(entry["run"], f"{entry['question']} {entry['answer']} ({entry['clip']})")
    choices = [(text[:110], run) for run, text in offered.items()]
    chosen = [run for _, run in choices[:2]] + [None, None]
    return gr.update(choices=choices, value=chosen[0]), gr.update(choices=choices, value=chosen[1])


@in_turn(TabPage, "comparison")
def answer_each_way(session: Session, visitor: str, cancelled: Callable[[], bool], *values: Any) -> Iterator[TabPage]:
    """Answer the shown question with latents, in words and directly, one after the other; nothing of it is remembered."""
    choices = Choices(*values)
    question, done = session.turns[session.shown].question, {}
    if not runtime.is_loaded:
        yield TabPage(status=said("loading", "busy", model=Path(runtime.name).name))
    yield TabPage(status=said("reading", "busy", name=Path(session.clip).name), result=None)
    for number, mode in enumerate(Mode):
        name = copy.CHOICES["mode"][str(mode)]
        yield TabPage(status=said("way", "busy", name=name, number=number + 1, of=len(Mode)))
        with closing(
            stream_answer(session.clip, question, mode, choices.sampling(), choices.reading(), cancelled, choices.latent())
        ) as events:
            for trace in folded(events):
                yield TabPage(result=compare_view({**done, name: trace}))
        done[name] = trace
        if cancelled():
            break
    yield idle(TabPage(status=said("stopped" if cancelled() else "ways")), session)


def pair(first: str | None, second: str | None) -> tuple[Any, Any]:
    """Two runs beside each other, with what differs."""
    try:
        if not first or not second or first == second:
            raise RequestError(copy.ERRORS["no_pair"])
        found = [Trace.load(example.trace if (example := runs.example(run)) else runs.find(run)) for run in (first, second)]
        return said("pair"), compare_view(dict(zip((copy.LABELS["first_run"], copy.LABELS["second_run"]), found, strict=True)))
    except Exception as error:
        return failed(error), gr.skip()
