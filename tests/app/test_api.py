"""The named endpoints, called as programs and agents call them: over the network, with the tiny random model."""

import ast
import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from app import api
from app.copy import ERRORS
from app.settings import Settings
from app.ui import build, launch
from latentomni.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = {"/ask_video", "/get_trace", "/decode_latent", "/intervene"}


@pytest.fixture(scope="module")
def client(model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = Settings(str(model_folder), "127.0.0.1", port)
        demo = build(settings)
        launch(demo, settings, prevent_thread_lock=True, quiet=True, _frontend=False)
        yield Client(f"http://127.0.0.1:{port}/", verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
        demo.close()


def test_the_four_endpoints_and_nothing_of_the_page_are_public(client):
    told = client.view_api(return_format="dict")["named_endpoints"]
    assert set(told) == NAMES
    assert [p["parameter_name"] for p in told["/decode_latent"]["parameters"]] == ["run", "block", "latent"]


def test_a_program_asks_decodes_intervenes_and_keeps_the_trace(client, clip):
    asked = client.predict(handle_file(clip), "What is seen?", max_new_tokens=24, api_name="/ask_video")
    trace = Trace.load(client.predict(asked["run"], api_name="/get_trace"))
    assert (trace.question, trace.answer) == ("What is seen?", asked["answer"])
    assert [len(block["latents"]) for block in asked["blocks"]] == [len(block.latents) for block in trace.blocks]
    last = len(trace.blocks[0].latents) - 1
    latent = client.predict(asked["run"], 0, last, api_name="/decode_latent")
    assert latent["modality"] == trace.blocks[0].latents[last].modality == "audio"
    assert [m["start_s"] for m in latent["moments"]] == [m.start_s for m in trace.blocks[0].latents[last].matches]
    again = client.predict(asked["run"], "zero", api_name="/intervene")
    assert again["before"] == asked["answer"] and again["flipped"] == (again["after"] != again["before"])
    assert Trace.load(client.predict(again["run"], api_name="/get_trace")).answer == again["after"]


def test_refusals_are_sentences(client, clip):
    with pytest.raises(AppError, match=r"no run of that name"):
        client.predict("x" * 22, api_name="/get_trace")
    with pytest.raises(AppError, match=r"unknown Mode 'aloud'"):
        client.predict(handle_file(clip), "What is seen?", "aloud", api_name="/ask_video")


def posted(client, name, *values):
    """What a request gets that is not made by gradio's own library, which checks and uploads files first."""
    sent = httpx.post(f"{client.src}gradio_api/call/{name}", json={"data": values})
    if sent.status_code != 200:
        return sent.text
    return httpx.get(f"{client.src}gradio_api/call/{name}/{sent.json()['event_id']}", timeout=60).text


EXAMPLE = EXAMPLES / "1-colour.mp4"
MESSAGES = [{}, {"meta": {"_type": "gradio.FileData"}}, {"meta": {"_type": "x"}}, {"meta": None}, {"orig_name": "a.mp4", "size": 7, "is_stream": True}]
PATHS = [str(EXAMPLE), "examples/1-colour.mp4", "/etc/passwd", f"../../../../../../../..{EXAMPLE}", f"file://{EXAMPLE}", "a\0b", "", 7, None]


@pytest.mark.parametrize("message", MESSAGES, ids=str)
def test_a_file_of_the_server_is_not_read_for_a_program(client, message):
    for path in PATHS if message in MESSAGES[:2] else PATHS[:2]:
        for places in ({"path": path}, {"path": "x.mp4", "url": path}):
            told = posted(client, "ask_video", {**places, **message}, "What is seen?", "direct", 0, 0.0, 4)
            assert "event: error" in told and "answer" not in told and "root:" not in told, (path, told)


def test_another_folder_inside_the_uploads_is_not_left_by_dots(client, clip):
    folder = get_upload_folder()
    told = posted(client, "ask_video", {"path": f"{folder}/../../../../../../../..{EXAMPLE}"}, "What is seen?", "direct", 0, 0.0, 4)
    assert ERRORS["not_uploaded"] in told


@pytest.mark.parametrize("path", ["/etc/passwd", str(EXAMPLES / "index.json"), "app.py", "../../etc/passwd"])
def test_a_file_of_the_server_is_not_handed_out(client, path):
    answer = httpx.get(f"{client.src}gradio_api/file={path}")
    assert answer.status_code in (403, 404) and "root:" not in answer.text


@pytest.mark.parametrize("message", MESSAGES[:2], ids=str)
@pytest.mark.parametrize("field", ["path", "url"])
def test_no_address_of_this_network_is_fetched(client, field, message):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            address = f"http://{host}:{server.getsockname()[1]}/secret.mp4"
            told = posted(client, "ask_video", {"path": "gone.mp4", **message, field: address}, "What is seen?", "direct", 0, 0.0, 4)
            assert "event: error" in told
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"question": 7}, r"question must be text, got 7\."),
        ({"question": ["a"]}, r"question must be text, got \['a'\]\."),
        ({"question": ""}, r"The question is empty"),
        ({"max_new_tokens": "many"}, r"max_new_tokens must be a whole number, got 'many'\."),
        ({"temperature": None}, r"temperature must be a number, got None\."),
        ({"seed": 10**30}, r"seed must be a whole number"),
        ({"mode": {"a": 1}}, r"mode must be text"),
        ({"max_new_tokens": True}, r"max_new_tokens must be a whole number, got True"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_in_a_sentence(client, clip, values, said):
    given = {"question": "What is seen?", "max_new_tokens": 4, **values}
    with pytest.raises(AppError, match=said):
        client.predict(handle_file(clip), **given, api_name="/ask_video")


@pytest.mark.parametrize(
    "values",
    [
        ("ask_video", None, "What?"),
        ("ask_video", "x.mp4", "What?"),
        ("ask_video", 7, "What?"),
        ("ask_video", [], "What?"),
        ("get_trace", "../../etc/passwd"),
        ("get_trace", 7),
        ("get_trace", None),
        ("decode_latent", "x" * 22, "a", []),
        ("decode_latent", {}, 0, 0),
        ("intervene", "..", 5),
        ("intervene", "x" * 22, "zero", None, None, 3, "a", "b"),
    ],
    ids=str,
)
def test_requests_of_the_wrong_shape_are_refused_in_a_sentence(client, values, caplog):
    name, *given = values
    told = posted(client, name, *given)
    assert not [record for record in caplog.records if record.message == "a handler failed"]
    assert "event: error" in told and "Traceback" not in told


def test_a_window_that_is_none_is_refused_in_a_sentence(client, clip):
    run = client.predict(handle_file(clip), "What is seen?", max_new_tokens=24, api_name="/ask_video")["run"]
    for window in ((-1.0, 2.0), (-3.0, -1.0)):
        with pytest.raises(AppError, match=r"A window lies within the clip"):
            client.predict(run, "mute", start_s=window[0], end_s=window[1], api_name="/intervene")


def test_an_agent_finds_the_four_tools_and_decodes_a_latent(client, clip):
    asked = client.predict(handle_file(clip), "What is seen?", max_new_tokens=24, api_name="/ask_video")

    async def visit():
        async with streamablehttp_client(f"{client.src}gradio_api/mcp/") as (read, write, _), ClientSession(read, write) as agent:
            await agent.initialize()
            tools = {tool.name.removeprefix("latentomni_"): tool for tool in (await agent.list_tools()).tools}
            told = await agent.call_tool(tools["decode_latent"].name, {"run": asked["run"], "block": 0, "latent": 0})
            return tools, told

    tools, told = asyncio.run(visit())
    assert {f"/{name}" for name in tools} == NAMES and all(len(tool.description) > 40 for tool in tools.values())
    assert not told.isError
    decoded = ast.literal_eval(told.content[0].text)  # gradio writes what is no text as Python does
    assert decoded == client.predict(asked["run"], 0, 0, api_name="/decode_latent")


@pytest.mark.parametrize("endpoint", ["ask_video", "intervene"])
def test_a_run_speaks_before_it_computes_so_that_it_can_be_ended(client, clip, monkeypatch, endpoint):
    """gradio knows of no run before its first words; one that was left till then would keep its place in the line."""
    request = SimpleNamespace(session_hash="a visitor")
    uploaded_clip = Path(get_upload_folder()) / "early.mp4"
    uploaded_clip.write_bytes(Path(clip).read_bytes())
    run = client.predict(handle_file(clip), "What is seen?", max_new_tokens=24, api_name="/ask_video")["run"]
    for name in ("stream_answer", "change_answer"):
        monkeypatch.setattr(api, name, lambda *args: pytest.fail("it computes"))
    pages = api.ask_video({"path": str(uploaded_clip)}, "What?", request=request) if endpoint == "ask_video" else api.intervene(run, "zero", request=request)
    assert next(pages)["state"] == "running"
    assert api.line.running == 1
    pages.close()
    assert api.line.running == api.line.waiting == 0
