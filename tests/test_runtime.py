"""The runtime: a stream folds into its trace, requests do not touch one another, and any clip is answered."""

import gc
import subprocess
import sys
import weakref
from dataclasses import fields, is_dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch

from latentomni import checkpoints, modeling, plan
from latentomni.clip_evidence import audio_moments, visual_moments
from latentomni.config import Mode, ReadingSpec, SamplingSpec
from latentomni.errors import MediaError, RequestError
from latentomni.events import Finished, LatentClosed, LatentOpened, LatentStep, Started
from latentomni.evidence import DonorBank
from latentomni.runtime import Runtime, ask
from latentomni.trace import Trace

QUESTION = "What is seen while the bell rings?"
SAMPLING = SamplingSpec(max_new_tokens=6, max_blocks=2)
TIMES = {"elapsed_s": 0.0, "ttft_s": 0.0, "memory_bytes": 0, "opened_s": 0.0, "closed_s": 0.0}


@pytest.fixture(scope="module")
def donors(tiny64):
    spec = tiny64.spec
    return DonorBank(np.random.default_rng(0).normal(size=(spec.n_latents, 199, tiny64.hidden_size)), spec.n_visual)


@pytest.fixture
def runtime(tiny64, donors):
    return Runtime(tiny64, donors)


def timeless(value):
    """A trace or an event with every time of computing set to zero."""
    if isinstance(value, tuple):
        return tuple(map(timeless, value))
    if not is_dataclass(value):
        return value
    names = [f.name for f in fields(value)]
    return replace(value, **{n: TIMES[n] if n in TIMES else timeless(getattr(value, n)) for n in names})


def answer(runtime, clip, **settings):
    return timeless(runtime.answer(clip, QUESTION, sampling=SAMPLING, **settings))


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e-6])
def test_a_temperature_next_to_zero_is_greedy(runtime, make_clip, temperature):
    samplings = [SamplingSpec(temperature=t, max_new_tokens=8) for t in (0.0, temperature)]
    texts = [runtime.answer(make_clip(0), QUESTION, "direct", sampling).text for sampling in samplings]
    assert texts[0] == texts[1]


def test_the_answer_is_the_fold_of_the_stream_and_every_beginning_folds(runtime, make_clip, tmp_path):
    clip = make_clip(0)
    events = [timeless(e) for e in runtime.stream(clip, QUESTION, sampling=SAMPLING)]
    whole = Trace.from_events(events)
    assert answer(runtime, clip) == whole
    assert [type(e) for e in events[:1] + events[-1:]] == [Started, Finished]
    for end in range(1, len(events)):
        part = Trace.from_events(events[:end])
        assert (part.reason, whole.text.startswith(part.text)) == ("running", True)
        assert part.blocks[:-1] == whole.blocks[: max(len(part.blocks) - 1, 0)]
        assert part.after(events[end]) == Trace.from_events(events[: end + 1])
    whole.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == whole


def test_a_trace_tells_the_run(runtime, make_clip):
    trace = answer(runtime, make_clip(0))
    assert (trace.question, trace.mode, trace.flow, trace.model, trace.weights) == (
        QUESTION,
        "latent",
        "strict",
        "tiny",
        "random",
    )
    assert trace.spec == runtime.spec.to_dict() and trace.sampling["max_blocks"] == 2 and trace.has_null
    assert (trace.clip.name, trace.clip.duration_s, len(trace.clip.thumbnails), len(trace.clip.sound)) == (
        "clip 0.mp4",
        4.0,
        8,
        64_000,
    )
    assert (trace.reason, trace.tokens, trace.notices) == ("length", 6, ("The answer was cut at the token limit.",))
    assert [len(block.latents) for block in trace.blocks] == [9, 9]
    for block in trace.blocks:
        for latent in block.latents:
            moments = trace.moments(latent.modality)
            assert [m.rank for m in latent.matches] == [1, 2, 3, 4, 5]
            assert all(
                (m.start_s, m.end_s) == (moments.start_s[m.moment], moments.end_s[m.moment]) for m in latent.matches
            )
            assert 1 / 200 <= latent.p <= latent.p_corrected + 1e-12 <= 1 + 1e-12
            assert len(latent.scores) == len(np.unique(moments.start_s))
            assert len(latent.cell_scores) == (moments.start_s == latent.matches[0].start_s).sum()
            assert latent.cell_scores.max() == latent.scores.max() == np.float16(latent.matches[0].score)
            assert (latent.p <= 0.05) == (latent.matches[0].score > latent.null_level)


def test_without_donors_there_are_ranks_and_no_p(tiny64, make_clip):
    trace = answer(Runtime(tiny64), make_clip(0))
    latents = [z for block in trace.blocks for z in block.latents]
    assert not trace.has_null and latents
    assert {(z.p, z.p_corrected, z.null_level, z.is_evidence, len(z.matches)) for z in latents} == {(None, None, None, None, 5)}


@pytest.mark.parametrize(
    "picture, sound, seconds", [(False, True, 4.0), (True, False, 4.0), (True, True, 0.5), (False, True, 0.05)]
)
@pytest.mark.parametrize("mode", Mode)
def test_any_clip_is_answered_and_its_trace_can_be_saved(runtime, make_clip, tmp_path, picture, sound, seconds, mode):
    trace = answer(runtime, make_clip(0, seconds, picture=picture, sound=sound), mode=mode)
    assert trace.tokens == 6
    assert len(trace.blocks) == (2 if mode is Mode.LATENT else 0)
    for block in trace.blocks:
        for latent in block.latents:
            has_moments = len(trace.moments(latent.modality).features) > 0
            assert (latent.p is not None) == (latent.p_corrected is not None) == bool(latent.matches) == has_moments
    trace.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == trace


@pytest.mark.parametrize("event_type", [Started, LatentOpened, LatentStep, LatentClosed])
def test_a_stopped_stream_leaks_nothing(runtime, tiny64, donors, make_clip, event_type):
    """Closed anywhere, the next answer is that of a runtime never asked before; the stopped conversation is let go."""
    clip, other = make_clip(0), make_clip(1)
    row = runtime.conversation(clip)
    stream = runtime.stream(clip, "And what sounds?", sampling=SAMPLING, conversation=row)
    next(e for e in stream if isinstance(e, event_type))
    stream.close()
    kept = weakref.ref(row)
    del row, stream
    gc.collect()
    assert kept() is None
    fresh = Runtime(tiny64, donors)
    assert answer(runtime, clip) == answer(fresh, clip)
    assert answer(runtime, other) == answer(fresh, other)


def test_a_stop_is_honoured_while_a_clip_is_encoded(runtime, tiny64, donors, make_clip, monkeypatch):
    clip, sizes, tower = make_clip(0, 8.0), [], tiny64.model.get_video_features
    monkeypatch.setattr(modeling, "_PATCHES_AT_ONCE", 1)
    monkeypatch.setattr(tiny64.model, "get_video_features", lambda patches, grid: (sizes.append(grid[0, 0].item()), tower(patches, grid))[1])
    for begin in (lambda stop: next(runtime.stream(clip, QUESTION, cancelled=stop)), lambda stop: runtime.conversation(clip, cancelled=stop)):
        sizes.clear()
        with pytest.raises(MediaError, match=r"^Reading clip 0.mp4 was stopped\.$"):
            begin(lambda: len(sizes) == 3)
        assert sizes == [1, 1, 1]
        assert not runtime._known
    assert answer(runtime, clip) == answer(Runtime(tiny64, donors), clip)


def test_a_conversation_about_a_clip_that_does_not_fit_is_refused_before_it_is_encoded(runtime, make_clip, monkeypatch):
    monkeypatch.setattr(plan, "available_bytes", lambda device: 1000)
    with pytest.raises(RequestError, match="This run needs about"):
        runtime.conversation(make_clip(0))
    assert not runtime._known


def test_a_cancelled_stream_finishes_and_its_conversation_goes_on(runtime, make_clip):
    """What was said stays, the block begun is gone, and the follow-up folds into a trace of its own."""
    clip, events = make_clip(0), []
    row = runtime.conversation(clip)
    stream = runtime.stream(
        clip, QUESTION, sampling=SAMPLING, conversation=row, cancelled=lambda: isinstance(events[-1], LatentStep)
    )
    for event in stream:
        events.append(event)
    trace = Trace.from_events(events)
    assert (trace.reason, trace.notices) == ("cancelled", ("The answer was stopped.",))
    assert [len(block.latents) for block in trace.blocks] == [1]
    assert row.windows == [] and row.latents == []
    follow_up = Trace.from_events(runtime.stream(clip, "And what sounds?", sampling=SAMPLING, conversation=row))
    assert [len(block.latents) for block in follow_up.blocks] == [9, 9]
    third = Trace.from_events(runtime.stream(clip, "Sure?", sampling=SAMPLING, conversation=row))
    assert [len(block.latents) for block in third.blocks] == [9, 9]
    assert len(row.windows) == 4


def test_a_model_of_single_questions_is_asked_each_behind_the_clip_alone(tiny64, donors, make_clip):
    clip = make_clip(0)
    runtime = Runtime(replace(tiny64, spec=replace(tiny64.spec, single_turn=True)), donors)
    row = runtime.conversation(clip)
    for _ in range(2):
        asked = runtime.stream(clip, QUESTION, sampling=SAMPLING, conversation=row)
        assert timeless(Trace.from_events(asked)) == answer(runtime, clip)


def test_two_streams_in_turns_equal_two_answers(runtime, make_clip):
    clips = [make_clip(0), make_clip(1)]
    steps = zip_longest(*(runtime.stream(clip, QUESTION, sampling=SAMPLING) for clip in clips))
    for clip, events in zip(clips, zip(*steps, strict=True), strict=True):
        assert timeless(Trace.from_events(e for e in events if e)) == answer(runtime, clip)


def test_clips_are_encoded_once_and_only_the_last_are_kept(runtime, make_clip):
    first = runtime.encode(make_clip(0, 1.0))
    assert runtime.encode(make_clip(0, 1.0))[0] is first[0]
    kept = weakref.ref(first[0])
    for seed in range(1, 4):
        runtime.encode(make_clip(seed, 1.0))
    assert runtime.encode(make_clip(0, 1.0))[0] is first[0]  # used last, hence kept
    for seed in range(4, 8):
        runtime.encode(make_clip(seed, 1.0))
    del first
    gc.collect()
    assert kept() is None


def test_moments_are_the_clips_own_features_in_place_and_time(tiny, make_clip):
    features = tiny.encode_clip(make_clip(0, 4.3))
    visual, audio = visual_moments(features), audio_moments(features)
    n_cells = features.grid[0] * features.grid[1]
    assert np.array_equal(visual.features, features.visual.numpy())
    assert visual.start_s.tolist() == [t for t in (0.0, 1.0, 2.0, 3.0, 4.0) for _ in range(n_cells)]
    assert visual.end_s[-1] == pytest.approx(4.5)
    heights, widths = visual.cells[:, 2] - visual.cells[:, 0], visual.cells[:, 3] - visual.cells[:, 1]
    assert (heights * widths)[:n_cells].sum() == pytest.approx(1.0)
    assert audio.start_s.tolist() == [k / 2 for k in range(9)]
    assert audio.end_s.tolist() == pytest.approx([*(k / 2 for k in range(1, 9)), len(features.audio) / 25])
    tokens = features.audio.numpy()[13:25]  # tokens that begin in [0.5, 1.0)
    weights = np.square(tokens).sum(1, keepdims=True)
    np.testing.assert_allclose(audio.features[1], (tokens * weights).sum(0) / weights.sum(), rtol=1e-5)


def test_a_fine_grid_of_a_long_clip_is_averaged(tiny, make_clip):
    """Uneven sides too; energy weights, every cell in one group."""
    rng, (times, rows, columns) = np.random.default_rng(0), (800, 5, 7)
    features = replace(tiny.encode_clip(make_clip(0, 1.0)), visual=torch.tensor(rng.normal(size=(times * 35, 3)), dtype=torch.float32),
                       visual_times_s=np.arange(times) / 1.0, visual_end_s=np.arange(times) + 1.0, grid=(rows, columns))  # fmt: skip
    moments = visual_moments(features)
    assert len(moments.features) == times * 3 * 4 and moments.start_s.tolist() == np.repeat(np.arange(800.0), 12).tolist()
    assert moments.cells[0].tolist() == pytest.approx([0, 0, 2 / 5, 2 / 7]) and moments.cells[11].tolist() == pytest.approx([4 / 5, 6 / 7, 1, 1])
    areas = (moments.cells[:12, 2] - moments.cells[:12, 0]) * (moments.cells[:12, 3] - moments.cells[:12, 1])
    assert areas.sum() == pytest.approx(1.0)
    group = features.visual.numpy().reshape(times, rows, columns, 3)[5, 2:4, 4:6].reshape(4, 3)
    weights = np.square(group).sum(1, keepdims=True)
    np.testing.assert_allclose(moments.features[5 * 12 + 4 + 2], (group * weights).sum(0) / weights.sum(), rtol=1e-5)


EXAMPLE = Path(__file__).parents[1] / "examples" / "1-colour.mp4"


def test_a_run_is_repeated_from_its_trace(runtime):
    """With a reading, latents and words unlike the model's own."""
    reading = ReadingSpec(fps=4, max_pixels=112 * 112, start_s=1.5, end_s=4.5)
    sampling = SamplingSpec(temperature=1.5, seed=5, max_new_tokens=6, max_blocks=1)
    first = runtime.answer(runtime.read(EXAMPLE, reading=reading), QUESTION, Mode.LATENT, sampling, {"instants": 2, "positions": "relative"})
    assert first.reading == reading.to_dict() and first.clip.duration_s == pytest.approx(3.0)
    assert first.clip.file_sha256 != first.clip.sha256
    assert len(first.visual.features) == 6 * 16  # 4 frames a second in pairs, 4 x 4 cells
    latent = {name: first.spec[name] for name in ("instants", "positions", "flow")}
    again = ask(EXAMPLE, first.question, runtime, first.mode, reading=ReadingSpec.from_dict(first.reading), latent=latent, **first.sampling)
    assert timeless(again) == timeless(first)


def test_every_reading_is_encoded_for_itself(runtime):
    readings = [ReadingSpec(), ReadingSpec(fps=4), ReadingSpec(max_pixels=112 * 112), ReadingSpec(end_s=3), ReadingSpec(sound=False)]
    clips = [runtime.read(EXAMPLE, reading=reading) for reading in readings]
    sizes = [(len(f.visual), len(f.audio)) for f in (runtime.encode(clip)[0] for clip in clips[1:])]
    assert sizes == [(48, 150), (96, 150), (12, 75), (24, 0)]
    assert runtime.encode(clips[-1])[0] is runtime.encode(clips[-1])[0]
    assert len(runtime.encode(replace(clips[0], reading=ReadingSpec(max_pixels=112 * 112)))[0].visual) == 96  # one hash, two readings


@pytest.mark.parametrize("latent", [{"instants": 2}, {"positions": "relative"}, {"positions": "upstream"}, {"flow": "paper"}, {"flow": "open"}])
def test_latent_settings_of_one_run(runtime, make_clip, tmp_path, latent):
    trace = answer(runtime, make_clip(0), latent=latent)
    spec = runtime.spec.changed(latent)
    assert trace.spec == spec.to_dict() and trace.flow == str(spec.flow)
    (name, asked), own = next(iter(latent.items())), runtime.spec.to_dict()
    assert trace.notices[0] == f"This run used {name} {asked}, and the model was trained with {own[name]}."
    assert {len(block.latents) for block in trace.blocks} == {spec.n_latents}
    latents = [z for block in trace.blocks for z in block.latents]
    assert latents and trace.has_null == all(z.p is not None for z in latents) == (name != "instants")
    assert ("There is no null for blocks of this shape, so matches are ranks only." in trace.notices) == (name == "instants")
    trace.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == trace
    assert answer(runtime, make_clip(0)) == answer(runtime, make_clip(0), latent={name: own[name]})  # nothing stays behind


def test_a_conversation_goes_on_under_the_settings_it_was_begun_with(runtime, make_clip):
    clip, latent = make_clip(0), {"instants": 2}
    row = runtime.conversation(clip, latent)
    for _ in range(2):
        trace = Trace.from_events(runtime.stream(clip, QUESTION, sampling=SAMPLING, conversation=row, latent=latent))
    assert row.turn == 2 and not any("asked behind the clip alone" in notice for notice in trace.notices)
    length = len(row)
    parted = timeless(Trace.from_events(runtime.stream(clip, QUESTION, sampling=SAMPLING, conversation=row)))
    assert len(row) == length and "so this question was asked behind the clip alone." in parted.notices[0]
    assert replace(parted, notices=()) == replace(answer(runtime, clip), notices=())


def test_evidence_of_a_slot_is_what_the_trace_holds(runtime, make_clip):
    trace = answer(runtime, make_clip(0))
    assert trace.evidence(3) == trace.blocks[0].latents[3].matches and trace.evidence(8, block=1) == trace.blocks[1].latents[8].matches
    for slot, block, said in ((9, 0, "Block 0 has 9 latents, counted from 0, and none is number 9"), (0, 2, "has 2 latent blocks"), (-1, 0, "-1")):
        with pytest.raises(RequestError, match=said):
            trace.evidence(slot, block)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"latent": {"instants": 0}}, "1 to 64 instants, got 0"),
        ({"latent": {"columns": 3}}, r"unknown latent settings \['columns'\]"),
        ({"question": "  "}, "question is empty"),
        ({"question": "x" * 2001}, "2001 characters"),
        ({"mode": "loud"}, "unknown Mode 'loud'"),
    ],
)
def test_a_bad_request_is_refused_before_anything_is_computed(runtime, make_clip, changes, message):
    request = {"question": QUESTION, "mode": "latent"} | changes
    with pytest.raises(RequestError, match=message):
        next(runtime.stream(make_clip(0), **request))


_SHORT_OF_MEMORY = """
import resource, sys
from latentomni.bench.peers import bench_clip
from latentomni.checkpoints import load
from latentomni.errors import RequestError
from latentomni.runtime import Runtime
runtime = Runtime(load(sys.argv[1]))
clip, (question, _) = bench_clip(load("random:qwen2.5-omni-0.1b", device="meta"), 0)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 16 * 2**20, resource.RLIM_INFINITY))
try:
    list(runtime.stream(clip, question))
except RequestError as error:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error)
    print(len(list(runtime.stream(clip, question))) > 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory, which other systems do not let a process do")
def test_memory_that_runs_out_is_told_with_the_plan_and_leaves_a_runtime_that_answers(tiny, tmp_path):
    checkpoints.save(tiny, tmp_path, dtype=torch.float32)
    done = subprocess.run([sys.executable, "-c", _SHORT_OF_MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
    told, answers_again = done.stdout.splitlines()
    assert told.startswith("Memory ran out in this run.") and "GiB" in told
    assert answers_again == "True"
