"""Which model answers: its line in the header, and the part of the settings that changes it."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import choices
from app.copy import LABELS, about
from app.lanes import MODEL
from app.page import failed, said
from app.shared import line, runtime, talks
from app.showing import waiting
from latentomni.config import QuantizationSpec

__all__ = ["build_picker", "header", "load", "wire"]


def header(model: str) -> str:
    """The page's head, with what this model can do."""
    name = Path(model).name  # of a folder
    can, cannot = about(name)
    return f"""<header><h1><svg viewBox="0 0 34 24" aria-hidden="true"><rect x="1" y="3" width="18" height="18" rx="4"/>
<circle cx="23" cy="12" r="9"/></svg>LatentOmni</h1><p>{LABELS["tagline"]}</p>
<button type="button" id="language" translate="no" lang="zh">中文</button>
<p class="lo-about"><b>{escape(name)}</b> {escape(can)} {escape(cannot)}</p></header>"""


def build_picker(*, is_public: bool) -> dict[str, gr.Component]:
    """Lay the controls out; returns them by name. Where visitors share the model it is chosen by variables, and there are none."""
    if is_public:
        return {}
    known = list(dict.fromkeys(["nano", runtime.name]))
    precisions = [(LABELS["full_precision"], ""), *((str(q), str(q)) for q in QuantizationSpec if q is not QuantizationSpec.NONE)]
    with gr.Accordion(LABELS["model"], open=False, elem_id="model-picker"):
        model = gr.Dropdown(known, value=runtime.name, allow_custom_value=True, label=LABELS["model_name"])
        quantization = gr.Dropdown(precisions, value=_quantized(runtime.quantization), label=LABELS["quantization"])
        return {"model": model, "quantization": quantization, "load": gr.Button(LABELS["load"], size="sm", elem_id="load-model")}


def wire(parts: dict[str, gr.Component], mode: gr.Component) -> None:
    """parts: those of `build_picker`, the header and the status line."""
    if "load" not in parts:
        return
    given, changed = [parts["model"], parts["quantization"]], [parts["status"], parts["header"], mode]
    parts["load"].click(load, given, changed, **MODEL)


def load(model: str | None, quantization: str | None) -> Iterator[tuple[Any, Any, Any]]:
    """Load another model in place of the one that answers, for everybody; where that fails, the former is loaded again for the next
    question. Yields the status, the header and the control of the mode."""
    before, wanted = (runtime.name, runtime.quantization), (str(model or "nano").strip(), quantization or None)
    try:
        with line.place("model", "") as place:
            for ahead, seconds in place.waits():
                yield waiting(ahead, seconds), gr.skip(), gr.skip()
            yield said("loading", "busy", model=Path(wanted[0]).name), gr.skip(), gr.skip()
            talks.clear()  # they hold features of the model
            try:
                runtime.use(*wanted)
                runtime.get()
            except Exception:
                runtime.use(*before)
                raise
    except Exception as error:
        yield failed(error), gr.skip(), gr.skip()
        return
    mode = gr.update(choices=choices.modes(), value=choices.usual().mode)
    yield said("switched", model=Path(runtime.name).name), header(runtime.name), mode


def _quantized(quantization: str | None) -> str:
    return "" if quantization in (None, str(QuantizationSpec.NONE)) else str(quantization)
