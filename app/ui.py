"""The layout of the page, and what is wired to what; each tab but the first has a module of its own."""

import os
from pathlib import Path

import gradio as gr

from app import (
    api,
    asking,
    attention_tab,
    choices,
    compare_tab,
    downloads,
    handlers,
    map_tab,
    matter_tab,
    model_picker,
    runs_tab,
    selftest,
    service,
)
from app.clips import LIMITS
from app.components import Conversation, Examples, Guide, Inspector, Player, Status, Suggestions, page_head
from app.copy import GUIDE, LABELS
from app.gallery import cards
from app.journal import log_to_stderr
from app.lanes import AT_ONCE, BACKGROUND, MODEL
from app.lent import IS_LENT
from app.page import AnswerPage, Page, said
from app.session import Session, remove_folder
from app.settings import Settings
from app.shared import line, runs, runtime
from app.theme import theme
from latentomni.memory import limit_malloc

__all__ = ["build", "launch"]

_FILE_TYPES = ["video", "audio", ".mkv", ".avi", ".gif", ".zip"]
_CLEANING_S = 3600  # how often files of visitors are deleted
_SESSIONS = 64  # that gradio remembers, those used last; 0.5 MB each, also of those that have left
_EVENTS = 1000  # that gradio remembers for statistics nobody reads
_SECRET = "latentomni"  # of what the browser keeps: nothing in it is secret, and it must outlive this server
_TABS = {"matter": matter_tab, "map": map_tab, "attention": attention_tab, "compare": compare_tab, "runs": runs_tab}


def build(settings: Settings) -> gr.Blocks:
    """The whole page, for the model of these settings."""
    if settings.cache:  # every component remembers the folder that is set while it is made
        os.environ["GRADIO_TEMP_DIR"] = str(Path(settings.cache).absolute())
        runs.owns_uploads = True
    runtime.use(settings.model, settings.quantization)
    if IS_LENT:  # what is on the GPU must be there before the first process is forked
        runtime.get()
    line.limits = runs.limits = settings.limits
    cleaning_s = (_CLEANING_S, int(settings.limits.uploads_s))
    with gr.Blocks(title="LatentOmni", analytics_enabled=False, delete_cache=cleaning_s, fill_width=True) as demo:
        parts = {
            "session": gr.State(Session(), delete_callback=remove_folder),
            "history": gr.BrowserState([], storage_key=runs_tab.STORAGE_KEY, secret=_SECRET),
            "kept": gr.BrowserState({}, storage_key=choices.STORAGE_KEY, secret=_SECRET),
        }
        parts["header"] = gr.HTML(model_picker.header(settings.model), apply_default_css=False, elem_id="header")
        Guide(list(GUIDE), elem_id="guide")
        parts["examples"] = Examples(cards(), elem_id="examples", visible=bool(cards()))
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="left"):
                _clip(parts)
                controls = _question(parts, is_public=settings.is_public)
            with gr.Column(elem_id="right"), gr.Tabs(elem_id="tabs") as parts["tabs"]:
                with gr.Tab(LABELS["tab_latents"], id="latents"):
                    _answer(parts)
                tabs = {}
                for name, module in _TABS.items():
                    with gr.Tab(LABELS[f"tab_{name}"], id=name, elem_id=f"tab-{name}") as tabs[name]:
                        parts |= module.build_tab()
        _wire(parts, controls)
        for name, module in _TABS.items():
            module.wire(parts, tabs[name], controls)
        _wire_settings(demo, parts, controls)
        model_picker.wire(parts, controls[0])
        demo.unload(handlers.leave)
        api.publish()
    return demo


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


def _question(parts: dict[str, gr.Component], *, is_public: bool) -> list[gr.Component]:
    """The question, its buttons and settings; returns the controls of `choices.Choices`."""
    parts["question"] = gr.Textbox(
        label=LABELS["question"], placeholder=LABELS["placeholder"], lines=1, max_lines=5, elem_id="question"
    )
    with gr.Row(elem_id="buttons"):
        parts["ask"] = gr.Button(LABELS["ask"], variant="primary", elem_id="ask", min_width=60, scale=2)
        parts["stop"] = gr.Button(LABELS["stop"], interactive=False, elem_id="stop", min_width=60)
        parts["retry"] = gr.Button(LABELS["retry"], interactive=False, elem_id="retry", min_width=60)
        parts["clear"] = gr.Button(LABELS["clear"], elem_id="clear", min_width=60)
    parts["status"] = Status(said("idle"), elem_id="status")
    parts["suggestions"] = Suggestions(elem_id="suggestions")
    controls = choices.controls(parts)
    parts.update(model_picker.build_picker(is_public=is_public))
    with gr.Row(elem_id="selftest-row"):
        parts["selftest"] = gr.Button(LABELS["selftest"], size="sm", elem_id="selftest", min_width=90)
        gr.HTML(f'<p class="lo-quiet">{LABELS["selftest_intro"]}</p>', apply_default_css=False, min_width=150)
    return controls


def _answer(parts: dict[str, gr.Component]) -> None:
    parts["conversation"] = Conversation(elem_id="conversation")
    parts["inspector"] = Inspector(elem_id="inspector")
    with gr.Row(visible=False, elem_id="downloads") as parts["downloads"]:
        parts["trace"] = gr.DownloadButton(LABELS["trace"], size="sm", elem_id="download-trace")
        parts["report"] = gr.DownloadButton(LABELS["report"], size="sm", elem_id="download-report")
        parts["cut"] = gr.Button(LABELS["reel"], size="sm", elem_id="make-reel")
        parts["reel"] = gr.DownloadButton(LABELS["reel_file"], size="sm", visible=False, elem_id="download-reel")


def _wire(parts: dict[str, gr.Component], controls: list[gr.Component]) -> None:
    session, history = parts["session"], parts["history"]
    files = _files(parts)
    page, answer_page = ([parts[name] for name in kind._fields] for kind in (Page, AnswerPage))
    clicked = [parts["ask"].click, parts["question"].submit]
    begun = [
        gr.on(clicked, asking.begin, [session, parts["question"]], page, **AT_ONCE),
        parts["retry"].click(asking.retry, session, page, **AT_ONCE),
    ]
    answered = [event.then(asking.answer, [session, *controls], answer_page, **MODEL) for event in begun]
    drawn = parts["selftest"].click(selftest.draw, session, page, **BACKGROUND)
    answered.append(drawn.then(selftest.take, session, answer_page, **MODEL))
    for event in answered:
        event.then(runs_tab.keep, [session, history], history, **BACKGROUND).then(
            downloads.export, session, files, **BACKGROUND
        )
    parts["stop"].click(asking.stop, None, page, **AT_ONCE)
    parts["clear"].click(handlers.clear, session, page, **AT_ONCE)
    parts["suggestions"].select(handlers.suggest, parts["suggestions"], page, **AT_ONCE)
    shown = [
        *(
            parts[name].change(handlers.bring, [session, parts[name]], page, **BACKGROUND)
            for name in ("file", "webcam", "microphone")
        ),
        parts["examples"].select(handlers.choose_example, session, page, **AT_ONCE),
        parts["conversation"].select(handlers.choose_turn, session, page, **AT_ONCE),
    ]
    for event in shown:
        event.then(downloads.export, session, files, **BACKGROUND)
        event.then(choices.plan, [session, *controls], parts["plan"], **BACKGROUND)  # loads the model, which takes a while
    parts["cut"].click(downloads.begin_reel, None, parts["status"], **AT_ONCE).then(
        downloads.reel, session, [parts["status"], parts["reel"]], **BACKGROUND
    )


def _files(parts: dict[str, gr.Component]) -> list[gr.Component]:
    """What `downloads.export` fills."""
    return [parts[name] for name in ("downloads", "trace", "report", "reel")]


def _wire_settings(demo: gr.Blocks, parts: dict[str, gr.Component], controls: list[gr.Component]) -> None:
    """Settings and runs come back from the browser; a link that names a run opens it."""
    session = parts["session"]
    page = [parts[name] for name in Page._fields]
    demo.load(choices.restored, parts["kept"], controls, **AT_ONCE)
    demo.load(runs_tab.open_link, session, page, **AT_ONCE).then(
        downloads.export, session, _files(parts), **BACKGROUND
    )
    changed = gr.on([control.input for control in controls], choices.remembered, controls, parts["kept"], **AT_ONCE)
    cleared = parts["reset"].click(choices.plain, None, [*controls, parts["kept"], parts["status"]], **AT_ONCE)
    for event in (changed, cleared):
        event.then(choices.plan, [session, *controls], parts["plan"], trigger_mode="always_last", **BACKGROUND)


def launch(demo: gr.Blocks, settings: Settings, **more) -> None:
    """Serve the page until it is stopped; `more` goes to gradio's launch, which returns at once with prevent_thread_lock."""
    log_to_stderr(settings.log)
    limit_malloc(arenas=2)
    runs.sweep()
    css = Path(__file__).with_name("theme.css").read_text(encoding="utf-8")
    waiting = settings.limits.queue
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", str(_EVENTS))
    demo.queue(max_size=64 + waiting, default_concurrency_limit=8)
    demo.launch(
        server_name=settings.host, server_port=settings.port, max_file_size=LIMITS.max_bytes, theme=theme(), css=css, head=page_head(),
        footer_links=["settings"], run_history=False, ssr_mode=False, share=False, mcp_server=api.has_mcp(),
        max_threads=40 + waiting, state_session_capacity=_SESSIONS, app_kwargs={"routes": service.routes()}, **{**more, "prevent_thread_lock": True},
    )  # fmt: skip
    if not more.get("prevent_thread_lock"):
        service.until_stopped(demo)
