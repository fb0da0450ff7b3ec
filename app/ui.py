"""The layout of the page, and what is wired to what."""

import os
from html import escape
from pathlib import Path

import gradio as gr

from app import asking, handlers
from app.clips import LIMITS
from app.components import Conversation, Examples, Inspector, Player, Status, Suggestions, page_head
from app.copy import LABELS, about
from app.gallery import cards
from app.page import AnswerPage, Page, said
from app.session import Session, remove_folder
from app.settings import Settings
from app.theme import theme
from latentomni.config import Mode, SamplingSpec

__all__ = ["build", "launch"]

_FILE_TYPES = ["video", "audio", ".mkv", ".avi", ".gif", ".zip"]
_CLEANING_S = (3600, 24 * 3600)  # how often, and from which age on, files of visitors are deleted
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
_AT_ONCE = {**_PRIVATE, "queue": False}
_MODEL = {**_PRIVATE, "concurrency_id": "model", "concurrency_limit": 1}


def build(settings: Settings) -> gr.Blocks:
    """The whole page, for the model of these settings."""
    asking.runtime.use(settings.model)
    with gr.Blocks(title="LatentOmni", analytics_enabled=False, delete_cache=_CLEANING_S, fill_width=True) as demo:
        parts = {"session": gr.State(Session(), delete_callback=remove_folder)}
        gr.HTML(_header(settings.model), apply_default_css=False, elem_id="header")
        examples = Examples(cards(), elem_id="examples") if cards() else None
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="left"):
                _clip(parts)
                controls = _question(parts)
            with gr.Column(elem_id="right"):
                _answer(parts)
        _wire(parts, controls, examples)
        demo.unload(handlers.leave)
    return demo


def _header(model: str) -> str:
    name = Path(model).name  # of a folder
    can, cannot = about(name)
    return f"""<header><h1><svg viewBox="0 0 34 24" aria-hidden="true"><rect x="1" y="3" width="18" height="18" rx="4"/>
<circle cx="23" cy="12" r="9"/></svg>LatentOmni</h1><p>{LABELS["tagline"]}</p>
<p class="lo-about"><b>{escape(name)}</b> {escape(can)} {escape(cannot)}</p></header>"""


def _clip(parts: dict[str, gr.Component]) -> None:
    with gr.Column(elem_id="intake") as parts["intake"], gr.Tabs():
        with gr.Tab(LABELS["file"]):
            parts["file"] = gr.File(label=LABELS["drop"], file_types=_FILE_TYPES, height=190, elem_id="file")
        with gr.Tab(LABELS["webcam"]):
            # mirroring would call ffmpeg; a model that sees 448 px needs no more than this
            camera = gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}})
            parts["webcam"] = gr.Video(
                label=LABELS["webcam"], show_label=False, sources=["webcam"], include_audio=True, height=240, webcam_options=camera, elem_id="webcam"
            )  # fmt: skip
        with gr.Tab(LABELS["microphone"]):
            parts["microphone"] = gr.Audio(
                label=LABELS["microphone"], show_label=False, sources=["microphone"], type="filepath", editable=False, elem_id="microphone"
            )  # fmt: skip
    with gr.Column(visible=False, elem_id="stage") as parts["stage"]:
        parts["player"] = Player()


def _question(parts: dict[str, gr.Component]) -> list[gr.Component]:
    """The question, its buttons and settings; returns what `answer` takes beside the session."""
    parts["question"] = gr.Textbox(
        label=LABELS["question"], placeholder=LABELS["placeholder"], lines=1, max_lines=5, elem_id="question"
    )
    with gr.Row(elem_id="buttons"):
        parts["ask"] = gr.Button("Ask", variant="primary", elem_id="ask", min_width=60, scale=2)
        parts["stop"] = gr.Button("Stop", interactive=False, elem_id="stop", min_width=60)
        parts["retry"] = gr.Button("Retry", interactive=False, elem_id="retry", min_width=60)
        parts["clear"] = gr.Button("Clear", elem_id="clear", min_width=60)
    parts["status"] = Status(said("idle"), elem_id="status")
    parts["suggestions"] = Suggestions(elem_id="suggestions")
    plain = SamplingSpec()
    mode = gr.Radio(
        [("Latents", str(Mode.LATENT)), ("Words", str(Mode.TEXT_COT)), ("Direct", str(Mode.DIRECT))],
        value=str(Mode.LATENT),
        label=LABELS["mode"],
        elem_id="mode",
    )
    with gr.Accordion(LABELS["settings"], open=False, elem_id="settings"):
        temperature = gr.Slider(0, 2, plain.temperature, step=0.1, label=LABELS["temperature"])
        seed = gr.Number(plain.seed, precision=0, minimum=0, maximum=2**31 - 1, label=LABELS["seed"])
        max_tokens = gr.Slider(16, 1024, plain.max_new_tokens, step=16, label=LABELS["max_tokens"])
    return [mode, temperature, seed, max_tokens]


def _answer(parts: dict[str, gr.Component]) -> None:
    parts["conversation"] = Conversation(elem_id="conversation")
    parts["inspector"] = Inspector(elem_id="inspector")
    with gr.Row(visible=False, elem_id="downloads") as parts["downloads"]:
        parts["trace"] = gr.DownloadButton(LABELS["trace"], size="sm", elem_id="download-trace")
        parts["report"] = gr.DownloadButton(LABELS["report"], size="sm", elem_id="download-report")


def _wire(parts: dict[str, gr.Component], controls: list[gr.Component], examples: Examples | None) -> None:
    session, files = parts["session"], [parts["trace"], parts["report"]]
    page, answer_page = ([parts[name] for name in kind._fields] for kind in (Page, AnswerPage))
    asked = [
        gr.on(
            [parts["ask"].click, parts["question"].submit], asking.begin, [session, parts["question"]], page, **_AT_ONCE
        ),
        parts["retry"].click(asking.retry, session, page, **_AT_ONCE),
    ]
    for event in asked:
        event.then(asking.answer, [session, *controls], answer_page, **_MODEL).then(
            asking.export, session, files, **_PRIVATE
        )
    parts["stop"].click(asking.stop, None, page, **_AT_ONCE)
    parts["clear"].click(handlers.clear, session, page, **_AT_ONCE)
    parts["suggestions"].select(handlers.suggest, parts["suggestions"], page, **_AT_ONCE)
    shown = [
        *(
            parts[name].change(handlers.bring, [session, parts[name]], page, **_PRIVATE)
            for name in ("file", "webcam", "microphone")
        ),
        parts["conversation"].select(handlers.choose_turn, session, page, **_AT_ONCE),
    ]
    if examples:
        shown.append(examples.select(handlers.choose_example, session, page, **_AT_ONCE))
    for event in shown:
        event.then(asking.export, session, files, **_PRIVATE)


def launch(demo: gr.Blocks, settings: Settings, **more) -> None:
    """Serve the page until it is stopped; `more` goes to gradio's launch."""
    if settings.cache:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(settings.cache).absolute())
    css = Path(__file__).with_name("theme.css").read_text(encoding="utf-8")
    demo.queue(max_size=64, default_concurrency_limit=8)
    demo.launch(
        server_name=settings.host, server_port=settings.port, max_file_size=LIMITS.max_bytes, theme=theme(), css=css, head=page_head(),
        footer_links=["settings"], run_history=False, ssr_mode=False, share=False, **more,
    )  # fmt: skip
