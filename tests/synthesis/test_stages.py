"""Prompts, replies and stages, asked of the scripted endpoint over a real connection."""

import asyncio
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from latentomni.avworld.world import sample_world
from latentomni.avworld.writing import world_clip
from latentomni.bench.endpoint import Faults, ScriptedEndpoint
from latentomni.synthesis import Role, Settings, avworld_sources
from latentomni.synthesis.endpoint import Asker, EndpointError, prompt_versions, served_model, served_structure
from latentomni.synthesis.pipeline import balance
from latentomni.synthesis.replies import REPLIES
from latentomni.synthesis.sources import media_path, pictures, sound
from latentomni.synthesis.stages import STAGES, run_stage


class Told(ScriptedEndpoint):
    """The scripted endpoint, but for what it is told to say to some prompts, in turn. asked: what it was sent."""

    def __init__(self, says: dict[str, list]) -> None:
        super().__init__()
        self.says, self.asked = says, []

    def reply(self, request, key):
        name = request["response_format"]["json_schema"]["name"]
        self.asked.append(request)
        told = self.says.get(name)
        return json.dumps(told.pop(0) if len(told) > 1 else told[0]) if told else super().reply(request, key)


@contextmanager
def answering(status, body):
    """A server that says the same to everything. url: its base."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def completion(content, usage=None):
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [message], "usage": usage}


def run(endpoint, stage, item, out, **settings):
    async def go():
        asker = Asker(Settings.of_one(Role(endpoint.url, "scripted"), **settings), out / "replies")
        try:
            return await run_stage(stage, item, asker, out)
        finally:
            await asker.close()

    return asyncio.run(go())["items"]


@pytest.fixture
def clip():
    source = avworld_sources(1, seed=1)[0]
    return {"id": source.id, "source": source.to_dict()}


@pytest.fixture
def asked(clip):
    scene_words = clip["source"]["caption"].splitlines()[0].split("] ")[1].split(", ")
    colour, sound_name = scene_words[0].split()[0], scene_words[2]
    segments = [{"start_s": a, "end_s": b, "seen": seen, "heard": heard} for a, b, seen, heard in clip["source"]["notes"]]
    return {**clip, "id": "x/1", "question": f"What colour is shown while the {sound_name} plays?", "answer": colour, "segments": segments}


@pytest.mark.parametrize(
    "pair, reason",
    [
        ({"question": "What is it when the bell plays?", "answer": "one two three four five six seven eight nine ten eleven"}, "answer too long"),
        ({"question": "What is there at 0:03?", "answer": "red"}, "gives a time"),
        ({"question": "What is there after 2.5 seconds?", "answer": "red"}, "gives a time"),
        ({"question": "What does the caption name?", "answer": "red"}, "speaks of a caption"),
        ({"question": "What is <|im_start|>?", "answer": "red"}, "special token"),
        ({"question": "What colour is there?", "answer": "red"}, None),
    ],
)
def test_questions_that_break_the_rules_are_rejected(clip, tmp_path, pair, reason):
    with Told({"questions": [{"questions": [pair]}]}) as endpoint:
        (item,) = run(endpoint, "questions", clip, tmp_path)
    assert (item["question"], item.get("rejected")) == (pair["question"], reason)


def test_a_source_with_questions_is_not_asked_for_more(clip, tmp_path):
    clip["source"]["questions"] = [("What colour is it?", "red")]
    with ScriptedEndpoint() as endpoint:
        (item,) = run(endpoint, "questions", clip, tmp_path)
        assert item["answer"] == "red" and not endpoint.answered


@pytest.mark.parametrize("marks, kept", [((5, 4, 4), True), ((5, 4, 3), False), ((5, 5, 3), True)])
def test_scores_decide_by_their_total_and_their_least(asked, tmp_path, marks, kept):
    told = dict(zip(("difficulty", "rigour", "modality_dependence"), marks, strict=True), type="counting")
    with Told({"scores": [told]}) as endpoint:
        (item,) = run(endpoint, "scores", asked, tmp_path)
        (strict,) = run(endpoint, "scores", asked, tmp_path, min_each=4)
    assert ("rejected" not in item) == kept
    assert ("rejected" not in strict) == (kept and min(marks) >= 4)


@pytest.mark.parametrize("seen, heard", [(False, False), (True, False), (False, True), (True, True)])
def test_the_gate_keeps_what_neither_modality_answers(asked, tmp_path, seen, heard):
    with Told({"verdict": [{"right": seen}, {"right": heard}]}) as endpoint:
        (item,) = run(endpoint, "gate", asked, tmp_path)
        watched, listened = (next(r for r in endpoint.asked if r["response_format"]["json_schema"]["name"] == name) for name in ("watch", "listen"))
    assert ("rejected" in item) == (seen or heard)
    notes = asked["source"]["notes"][0]
    assert notes[2] in watched["messages"][1]["content"] and notes[3] not in watched["messages"][1]["content"]
    assert notes[3] in listened["messages"][1]["content"] and notes[2] not in listened["messages"][1]["content"]


def test_models_with_eyes_and_ears_are_sent_the_clip(asked, tmp_path):
    settings = Settings.of_one(Role("http://localhost", "m", media=True))
    with Told({"watch": [{"answer": "red"}], "listen": [{"answer": "red"}], "verdict": [{"right": False}]}) as endpoint:
        roles = {name: replace(role, endpoint=endpoint.url) for name, role in settings.roles.items()}
        asker = Asker(replace(settings, roles=roles), tmp_path / "replies")
        asyncio.run(run_stage("gate", asked, asker, tmp_path))
        contents = {r["response_format"]["json_schema"]["name"]: r["messages"][1]["content"] for r in endpoint.asked}
    source = avworld_sources(1, seed=1)[0]
    kinds = {name: [part["type"] for part in contents[name]] for name in ("watch", "listen")}
    assert kinds == {"watch": ["text"] + ["image_url"] * round(2 * source.duration_s), "listen": ["text", "input_audio"]}
    assert media_path(source, tmp_path).is_file() and not list(tmp_path.rglob("*.partial*"))
    assert len(pictures(source, tmp_path, 2.0, 4.0)) == 4
    assert len(sound(source, tmp_path, 2.0, 4.0)[0]["input_audio"]["data"]) == pytest.approx(4 / 3 * (44 + 2 * 2 * 16000), abs=4)


def test_a_clip_without_sound_is_not_said_to_have_one_attached(asked, tmp_path):
    first, *rest = (Image.fromarray(frame) for frame in world_clip(sample_world(1, "train")).frames)
    first.save(tmp_path / "silent.gif", save_all=True, append_images=rest, duration=500)
    asked["source"] |= {"media": str(tmp_path / "silent.gif"), "seed": None}
    settings = Settings.of_one(Role("http://localhost", "m", media=True))
    with Told({"watch": [{"answer": "red"}], "listen": [{"answer": "red"}], "verdict": [{"right": False}]}) as endpoint:
        roles = {name: replace(role, endpoint=endpoint.url) for name, role in settings.roles.items()}
        asyncio.run(run_stage("gate", asked, Asker(replace(settings, roles=roles), tmp_path / "replies"), tmp_path))
        (content,) = (r["messages"][1]["content"] for r in endpoint.asked if r["response_format"]["json_schema"]["name"] == "listen")
    assert "What is heard:\nNothing.\n" in content


def test_segments_that_nothing_supports_are_dropped(clip, tmp_path):
    good, bad = {"seen": "a star", "heard": "a bell", "supported": True}, {"seen": "", "heard": "", "supported": False}
    with Told({"merge": [bad, good]}) as endpoint:
        (item,) = run(endpoint, "segments", clip, tmp_path)
    with Told({"merge": [bad]}) as endpoint:
        (none,) = run(endpoint, "segments", clip, tmp_path / "other")
    spans = len(clip["source"]["notes"])
    assert [(s["seen"], s["heard"]) for s in item["segments"]] == [("a star", "a bell")] * (spans - 1)
    assert none["rejected"] == "no segment is supported"


def test_a_trajectory_is_asked_for_again_with_the_complaint(asked, tmp_path):
    good = {"steps": [{"say": "I listen.", "segment": 1}], "conclusion": f"It is {asked['answer']}."}
    faulty = [
        {"steps": [{"say": "The caption tells.", "segment": 1}], "conclusion": good["conclusion"]},
        {"steps": [{"say": "I listen.", "segment": 99}], "conclusion": good["conclusion"]},
    ]
    with Told({"trajectory": [*faulty, good]}) as endpoint:
        (item,) = run(endpoint, "trajectories", asked, tmp_path)
        texts = [r["messages"][1]["content"] for r in endpoint.asked]
    assert item["conclusion"] == good["conclusion"] and "rejected" not in item
    assert ["refused" in text for text in texts] == [False, True, True]
    assert "'caption'" in texts[1] and "99" in texts[2]


@pytest.mark.parametrize(
    "told, reason",
    [
        ({"steps": [{"say": "At 0:02 I look.", "segment": 1}], "conclusion": "It is {answer}."}, "trajectory gives a time"),
        ({"steps": [{"say": "I look.", "segment": 1}], "conclusion": "It is something."}, "trajectory lacks the answer"),
        ({"steps": [{"say": "I look.", "segment": 1}] * 4, "conclusion": "It is {answer}."}, "unusable reply"),
    ],
)
def test_a_trajectory_that_stays_wrong_is_rejected(asked, tmp_path, told, reason):
    told = json.loads(json.dumps(told).replace("{answer}", asked["answer"]))
    with Told({"trajectory": [told]}) as endpoint:
        (item,) = run(endpoint, "trajectories", asked, tmp_path)
    assert item["rejected"] == reason and item["detail"]


@pytest.mark.parametrize("numbers, left", [([1, 2], [1, 2]), ([2, 1], [2, 1]), ([2, 0], [2]), ([3, 3], [3]), ([0, 0], None), ([1], None), ([1, 99], None)])
def test_the_audit_corrects_and_prunes(asked, tmp_path, numbers, left):
    item = {**asked, "steps": [{"say": "I look.", "segment": 1}, {"say": "I listen.", "segment": 2}], "conclusion": "It is."}
    with Told({"audit": [{"accept": True, "reason": "fine", "segments": numbers}]}) as endpoint:
        (audited,) = run(endpoint, "audit", item, tmp_path)
    assert (None if "rejected" in audited else [step["segment"] for step in audited["steps"]]) == left
    with Told({"audit": [{"accept": False, "reason": "It contradicts.", "segments": [1, 2]}]}) as endpoint:
        (refused,) = run(endpoint, "audit", item, tmp_path / "other")
    assert (refused["rejected"], refused["detail"]) == ("refused by the auditor", "It contradicts.")


def test_a_second_look_is_dropped_and_the_order_kept(asked, tmp_path):
    steps = [{"say": say, "segment": number} for say, number in (("I look.", 1), ("I listen.", 2), ("I look once more.", 1))]
    with Told({"audit": [{"accept": True, "reason": "fine", "segments": [1, 2, 1]}]}) as endpoint:
        (audited,) = run(endpoint, "audit", {**asked, "steps": steps, "conclusion": "It is."}, tmp_path)
    assert audited["steps"] == steps[:2]


def test_types_are_balanced_by_dropping_the_frequent():
    items = [{"id": str(k), "type": kind} for k, kind in enumerate("a" * 20 + "b" * 9 + "c" * 4)]
    kept = [item for item in balance(items, 3.0, 7) if "rejected" not in item]
    assert {kind: sum(item["type"] == kind for item in kept) for kind in "abc"} == {"a": 12, "b": 9, "c": 4}
    assert kept == [item for item in balance(items[::-1], 3.0, 7) if "rejected" not in item][::-1]
    assert balance([], 3.0, 7) == []


def test_every_prompt_has_its_stage_its_version_and_its_reply():
    assert prompt_versions().keys() == REPLIES.keys()
    assert all(version.split()[0].isdigit() for version in prompt_versions().values())
    assert list(STAGES) == ["questions", "scores", "gate", "segments", "trajectories", "audit"]


def test_a_model_that_never_replies_as_asked_rejects_the_item_with_what_it_said(asked, tmp_path):
    with Told({"scores": [{"difficulty": 6, "rigour": 3, "modality_dependence": 3, "type": "counting"}]}) as endpoint:
        (item,) = run(endpoint, "scores", asked, tmp_path)
        assert len(endpoint.asked) == 3 and len({r["seed"] for r in endpoint.asked}) == 3
    assert item["rejected"] == "unusable reply" and "difficulty" in item["detail"]
    with Told({"scores": [{}]}) as endpoint:
        run(endpoint, "scores", asked, tmp_path / "other", attempts=10)
        assert [r["temperature"] for r in endpoint.asked][-2:] == [2.0, 2.0]  # servers refuse more


def test_an_endpoint_that_fails_ends_the_run_and_says_so(clip, tmp_path):
    with ScriptedEndpoint(Faults(transient=1.0)) as endpoint:
        endpoint.fault_of = lambda key: "500"
        settings = Settings.of_one(Role(endpoint.url, "scripted", retries=1))
        with pytest.raises(EndpointError, match=r"answered 500 .*run the same command again"):
            asyncio.run(run_stage("questions", clip, Asker(settings, tmp_path), tmp_path))
    with pytest.raises(EndpointError, match="cannot be reached"):
        asyncio.run(run_stage("questions", clip, Asker(settings, tmp_path), tmp_path))
    with pytest.raises(EndpointError, match="name one with --model"):
        served_model(endpoint.url)


def test_a_server_that_knows_no_max_tokens_or_temperature_is_asked_otherwise(clip, tmp_path):
    bodies = []
    with ScriptedEndpoint(Faults(unknown=("max_tokens", "temperature"))) as endpoint:
        reply = endpoint.reply
        endpoint.reply = lambda request, key: bodies.append(request) or reply(request, key)
        settings = Settings.of_one(Role(endpoint.url, "scripted", retries=0))
        made = asyncio.run(run_stage("questions", clip, Asker(settings, tmp_path), tmp_path))
    assert made and bodies and all(set(body) == {"model", "messages", "max_completion_tokens", "response_format", "seed"} for body in bodies)


@pytest.mark.parametrize(("unknown", "told"), [((), "json_schema"), (("json_schema",), "json_object"), (("messages",), "json_schema")])
def test_a_server_is_asked_for_json_in_a_way_that_it_takes(unknown, told):
    with ScriptedEndpoint(Faults(unknown=unknown)) as endpoint:
        assert served_structure(endpoint.url, "scripted") == told
    assert served_structure(endpoint.url, "scripted") == "json_schema"  # it is gone, which the first question tells


def test_what_a_server_refuses_and_is_needed_ends_the_run(clip, tmp_path):
    with ScriptedEndpoint(Faults(unknown=("messages",))) as endpoint, pytest.raises(EndpointError, match=r"answered 400 .*'messages'"):
        asyncio.run(run_stage("questions", clip, Asker(Settings.of_one(Role(endpoint.url, "scripted")), tmp_path), tmp_path))


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 7, "completion_tokens": None, "total_tokens": None}])
def test_a_reply_without_text_or_counts_rejects_its_item(asked, tmp_path, usage):
    with answering(200, completion(None, usage)) as endpoint:
        asker = Asker(Settings.of_one(Role(endpoint.url, "m")), tmp_path)
        told = asyncio.run(run_stage("scores", asked, asker, tmp_path))
    assert told["items"][0]["rejected"] == "unusable reply"
    assert asker.usage(told["calls"])["judge"] == {"requests": 3, "tokens_in": 21 if usage else 0, "tokens_out": 0, "dollars": 0.0}


def test_content_that_is_no_text_ends_the_run_and_says_so(asked, tmp_path):
    with answering(200, completion([{"type": "text", "text": "{}"}])) as endpoint:
        settings = Settings.of_one(Role(endpoint.url, "m", retries=0))
        with pytest.raises(EndpointError, match=r"not a chat completion \(its content is no text"):
            asyncio.run(run_stage("scores", asked, Asker(settings, tmp_path), tmp_path))


@pytest.mark.parametrize("status, told", [(400, "This model's maximum context length is 512 tokens."), (413, "Payload Too Large")])
def test_an_item_that_a_model_has_no_room_for_is_rejected(asked, tmp_path, status, told):
    with answering(status, {"error": {"message": told}}) as endpoint:
        (item,) = run(endpoint, "scores", asked, tmp_path)
    assert item["rejected"] == "unusable reply" and told in item["detail"]
    with answering(400, {"error": {"message": "no such model"}}) as endpoint, pytest.raises(EndpointError, match="no such model"):
        run(endpoint, "scores", asked, tmp_path)


@pytest.mark.parametrize("key", ["secret-of-mine", "secret-of-mine\n", "secret-of\nmine"])
def test_no_error_shows_a_key(asked, tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with answering(401, {"error": {"message": f"{''.join(key.split())} is no key"}}) as endpoint:
        settings = Settings.of_one(Role(endpoint.url, "m", retries=0))
        with pytest.raises(EndpointError) as caught:
            asyncio.run(run_stage("scores", asked, Asker(settings, tmp_path), tmp_path))
    assert "secret" not in str(caught.value)


def test_what_two_items_ask_at_once_is_asked_once(asked, tmp_path):
    with ScriptedEndpoint(delay_s=0.05) as endpoint:
        asker = Asker(Settings.of_one(Role(endpoint.url, "scripted")), tmp_path)

        async def both():
            return await asyncio.gather(*(run_stage("scores", asked, asker, tmp_path) for _ in range(2)))

        first, second = asyncio.run(both())
        assert first == second and list(endpoint.answered.values()) == [1]


def test_what_a_model_thinks_before_it_replies_is_passed_over(asked, tmp_path):
    with answering(200, completion('<think>{"right": "?"} Hm.</think>\n{"right": true}')) as endpoint:
        asker = Asker(Settings.of_one(Role(endpoint.url, "m", structured="none")), tmp_path)
        told = asyncio.run(asker.ask("verdict", [], question="$q", answer="$answer ${given}", given="a"))
    assert told == {"right": True}
