"""The plan of a run: it counts what reading and processing then really make, and says what does not fit."""

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import latentomni.plan
from latentomni import checkpoints
from latentomni.config import Mode, ReadingSpec, SamplingSpec
from latentomni.errors import CheckpointError, RequestError
from latentomni.events import Finished
from latentomni.generation import read_prefix
from latentomni.media import probe
from latentomni.memory import give_back, resident_bytes
from latentomni.plan import Pace, check_room, parameter_counts, plan_run, weight_bytes
from latentomni.processing import add_question
from latentomni.runtime import Runtime

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTION = "What is seen while the bell rings?"
PROMPT = ("visual", "audio", "text")


@pytest.fixture(scope="module")
def runtime(tiny):
    return Runtime(tiny)


def prompt_row(runtime, clip, mode=Mode.LATENT, latent=None):
    row = runtime.conversation(clip, latent)
    add_question(row, QUESTION, mode, runtime.thinker.encode_text)
    return row


READINGS = [
    ReadingSpec(), ReadingSpec(fps=4), ReadingSpec(fps=0.5), ReadingSpec(max_pixels=112 * 112), ReadingSpec(start_s=1.5, end_s=4.2),
    ReadingSpec(end_s=0.7, fps=10), ReadingSpec(sound=False), ReadingSpec(picture=False, start_s=2), ReadingSpec(max_pixels=448 * 448, fps=1),
]  # fmt: skip


@pytest.mark.parametrize("reading", READINGS, ids=lambda r: str(r.changes))
@pytest.mark.parametrize("name", ["1-colour.mp4", "3-place.mp4"])
def test_a_files_plan_is_the_row_that_reading_it_makes(runtime, name, reading):
    clip = runtime.read(EXAMPLES / name, reading=reading)
    row, info = prompt_row(runtime, clip), probe(EXAMPLES / name)
    plans = [plan_run(runtime, source, reading, question=QUESTION) for source in (info, clip)]
    for plan in plans:
        assert plan.frames == len(clip.frames)
        assert sum(plan.tokens[part] for part in PROMPT) == len(row)
        assert plan.tokens["visual"] == len(row.clip.visual) and plan.tokens["audio"] == len(row.clip.audio)
    assert plans[0].tokens == plans[1].tokens


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.5, 3.01, 4.38, 7.77])
@pytest.mark.parametrize("picture, sound", [(True, True), (True, False), (False, True)])
def test_a_clips_plan_is_its_row(runtime, make_clip, seconds, picture, sound):
    clip = make_clip(0, seconds, picture=picture, sound=sound)
    plan = plan_run(runtime, clip, question=QUESTION)
    assert sum(plan.tokens[part] for part in PROMPT) == len(prompt_row(runtime, clip))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("latent", [None, {"instants": 5}, {"flow": "paper"}])
def test_no_answer_grows_beyond_its_plan(tiny64, make_clip, mode, latent):
    runtime, clip = Runtime(tiny64), make_clip(0)
    row = runtime.conversation(clip, latent)
    for _ in runtime.stream(clip, QUESTION, mode, SamplingSpec(max_new_tokens=12, max_blocks=3), row, latent=latent):
        pass
    plan = plan_run(runtime, clip, None, latent, mode, 12, max_blocks=3, question=QUESTION)
    assert len(row) <= sum(plan.tokens.values())
    n_latents = tiny64.spec.changed(latent).n_latents
    assert plan.tokens["latent"] == (3 * n_latents if mode is Mode.LATENT else 0)
    assert len(row.latents) <= plan.tokens["latent"]


def test_kv_bytes_are_those_of_a_real_cache(tiny, make_clip):
    row = prompt_row(Runtime(tiny), make_clip(0))
    cache = read_prefix(tiny, [row], [len(row)]).cache
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    plan = plan_run(tiny, make_clip(0), question=QUESTION)
    assert plan.kv_bytes * len(row) == held * sum(plan.tokens.values())


def test_a_model_without_weights_is_planned_as_the_loaded_one(tiny, make_clip, tmp_path):
    checkpoints.save(tiny, tmp_path, dtype=torch.float32)
    sizes = checkpoints.load(str(tmp_path), device="meta")
    assert all(p.is_meta for p in sizes.model.parameters())
    assert parameter_counts(sizes) == parameter_counts(tiny)
    assert sum(parameter_counts(tiny).values()) == sum(p.numel() for part in (tiny.model, tiny.head) for p in part.parameters())
    assert weight_bytes(sizes) == weight_bytes(tiny) == 4 * sum(parameter_counts(tiny).values())
    before, after = (plan_run(model, make_clip(0)) for model in (sizes, tiny))
    assert (before.tokens, before.kv_bytes, before.peak_bytes) == (after.tokens, after.kv_bytes, after.peak_bytes)


def test_the_published_models_are_planned_without_the_hub():
    sizes = checkpoints.load("Qwen/Qwen2.5-Omni-7B", device="meta")
    assert (sizes.name, sizes.weights) == ("Qwen/Qwen2.5-Omni-7B", "pretrained")
    assert 8.8e9 < sum(parameter_counts(sizes).values()) < 9.0e9
    assert sum(parameter_counts(sizes).values()) == sum(p.numel() for p in sizes.model.parameters())


def test_a_model_that_has_no_room_is_refused_before_a_weight_is_read(monkeypatch):
    free = weight_bytes(checkpoints.load("nano", device="meta"), "nf4")
    monkeypatch.setattr(latentomni.plan, "available_bytes", lambda device: free)
    with pytest.raises(CheckpointError, match=r"^'nano' takes 0\.0 GiB and 0\.0 GiB are free: load it with --quantization nf4 \(in training: .+\)\.$"):
        checkpoints.load("nano")
    assert checkpoints.load("nano", quantization="nf4").name == "nano"
    free = 2**20
    with pytest.raises(CheckpointError, match=r"are free: choose a smaller model or a machine with more memory\.$"):
        checkpoints.load("nano", quantization="nf4")


def test_what_nobody_uses_any_more_is_given_back_before_a_model_is_refused(monkeypatch):
    sizes = checkpoints.load("nano", device="meta")
    give_back()
    limit = resident_bytes() + weight_bytes(sizes) + 100 * 2**20
    monkeypatch.setattr(latentomni.plan, "available_bytes", lambda device: limit - resident_bytes())
    gc.disable()
    try:
        former = {"weights": torch.ones(200 * 2**20, dtype=torch.uint8)}
        former["itself"] = former
        with pytest.raises(CheckpointError, match="are free"):
            check_room(sizes, "cpu")  # it is still in use
        del former
        assert check_room(sizes, "cpu") is None
    finally:
        gc.enable()


def test_what_a_gpu_has_no_room_for_goes_into_main_memory(monkeypatch):
    sizes = checkpoints.load("Qwen/Qwen2.5-Omni-7B", device="meta", dtype=torch.bfloat16)
    free = {"cuda": 12 * 2**30, "cpu": 60 * 2**30}
    monkeypatch.setattr(latentomni.plan, "available_bytes", lambda device: free[torch.device(device).type])
    assert weight_bytes(sizes) > free["cuda"]
    placed = check_room(sizes, "cuda")
    assert placed == {0: int(0.85 * free["cuda"]), "cpu": free["cpu"]}
    assert check_room(sizes, "cuda", "nf4") is None  # it fits
    free["cpu"] = 2**30
    with pytest.raises(CheckpointError, match=r"takes 16\.\d GiB and 12\.0 GiB are free: load it with --quantization int8 \(in training: .+\)\.$"):
        check_room(sizes, "cuda")
    free["cuda"] = 2**40
    assert check_room(sizes, "cuda") is None


def test_a_run_that_has_no_room_is_refused_before_it_begins(runtime, make_clip, monkeypatch):
    clip = make_clip(0, 6.0)
    monkeypatch.setattr(latentomni.plan, "available_bytes", lambda device: 2**20)
    with pytest.raises(RequestError, match=r"^This run needs about 0\.0 GiB and 0\.0 GiB are free: "):
        next(runtime.stream(clip, QUESTION))
    monkeypatch.undo()
    assert next(runtime.stream(clip, QUESTION)).question == QUESTION


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_the_bytes_of_a_quantised_model_are_those_it_then_has(quantization):
    held = 0
    for p in checkpoints.load("nano", quantization=quantization).model.parameters():
        state, extra = getattr(p, "quant_state", None), getattr(p, "SCB", None)
        held += p.numel() * p.element_size() + (0 if extra is None else extra.nbytes)
        held += 0 if state is None else state.absmax.nbytes + state.state2.absmax.nbytes
    planned = weight_bytes(replace(checkpoints.load("nano", device="meta"), head=None), quantization)
    assert planned == pytest.approx(held, rel=0.002)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_a_model_is_planned_before_it_is_loaded_as_it_is_after(quantization):
    info = probe(EXAMPLES / "1-colour.mp4")
    before = plan_run(checkpoints.load("nano", device="meta"), info, quantization=quantization)
    after = plan_run(checkpoints.load("nano", quantization=quantization), info)
    assert before.peak_bytes == pytest.approx(after.peak_bytes, rel=0.01)


def test_a_model_that_fits_only_quantised_is_advised_to_be():
    sizes = checkpoints.load("Qwen/Qwen2.5-Omni-7B", device="meta")
    nf4 = plan_run(sizes, None, quantization="nf4").peak_bytes
    plan = plan_run(sizes, None, free_bytes=nf4 + 1)
    assert not plan.fits
    assert plan.advice.endswith("load the model with --quantization nf4.")
    assert plan_run(sizes, None, free_bytes=nf4 + 1, quantization="nf4").fits


def test_what_does_not_fit_is_advised_and_the_advice_fits(tiny, make_clip):
    clip = replace(make_clip(0, 60.0), reading=ReadingSpec(max_pixels=112 * 112))
    plan = plan_run(tiny, clip)
    needed = plan.peak_bytes - weight_bytes(tiny)
    assert plan_run(tiny, clip, free_bytes=needed).fits and not plan_run(tiny, clip, free_bytes=needed).advice
    short = plan_run(tiny, clip, free_bytes=needed - 1)
    assert (short.fits, short.tokens) == (False, plan.tokens)
    assert "GiB are free: read 1 instead of 2 frames per second." in short.advice
    assert plan_run(tiny, make_clip(0, 30.0), free_bytes=needed - 1).fits
    assert "choose a smaller model" in plan_run(tiny, clip, free_bytes=0).advice
    assert "choose a smaller model" in plan_run(tiny, None, free_bytes=0).advice


def test_more_of_everything_needs_more(runtime):
    info = probe(EXAMPLES / "1-colour.mp4")
    plain = plan_run(runtime, info)
    for reading in (ReadingSpec(fps=4), ReadingSpec(max_pixels=112 * 112)):
        assert plan_run(runtime, info, reading).peak_bytes > plain.peak_bytes
    assert plan_run(runtime, info, ReadingSpec(end_s=3)).peak_bytes < plain.peak_bytes
    assert plan_run(runtime, info, latent={"instants": 9}).kv_bytes > plain.kv_bytes


def test_seconds_come_from_earlier_runs_alone(tiny64, make_clip):
    runtime, clip = Runtime(tiny64), make_clip(0)
    assert plan_run(runtime, clip).seconds is None
    runtime.answer(clip, QUESTION, sampling=SamplingSpec(max_new_tokens=4))
    assert plan_run(runtime, clip).seconds > 0
    assert plan_run(tiny64, clip).seconds is None  # a thinker alone has no past


def test_pace_is_that_of_the_last_run():
    pace = Pace()
    pace.note_encoding(tokens=100, seconds=1.0)
    pace.note_answer(Mode.LATENT, 50, 20, Finished("stop", "", 10, ttft_s=0.5, elapsed_s=2.5))
    assert pace.seconds(Mode.LATENT, 200, 300, 1000) == pytest.approx(200 * 0.01 + 300 * 0.01 + 20 * 0.1)
    assert pace.seconds(Mode.LATENT, 0, 0, 5) == pytest.approx(5 * 0.1)
    assert pace.seconds(Mode.DIRECT, 0, 0, 30) == pytest.approx(30 * 0.1)  # not known yet: as long as it may be
    pace.note_answer(Mode.LATENT, 50, 20, Finished("cancelled", "", 10, ttft_s=50.0, elapsed_s=200.0))
    assert pace.seconds(Mode.LATENT, 0, 0, 5) == pytest.approx(5 * 0.1)


@pytest.mark.parametrize("reading", [ReadingSpec(start_s=6.5), ReadingSpec(picture=False)])
def test_a_reading_that_leaves_nothing_is_refused(runtime, reading):
    info = replace(probe(EXAMPLES / "1-colour.mp4"), audio_codec=None)
    with pytest.raises(RequestError, match=r"Nothing of 1-colour.mp4 is left to read"):
        plan_run(runtime, info, reading)
