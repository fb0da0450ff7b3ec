"""Traces: stream equals fold, saved equals loaded, and malformed files are refused with a sentence."""

import json
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

import latentomni
from latentomni.bench.abuse import flaw
from latentomni.clock import Window
from latentomni.errors import TraceError
from latentomni.events import (
    ClipRecord,
    Finished,
    LatentClosed,
    LatentOpened,
    LatentStep,
    Moments,
    Started,
    TextDelta,
)
from latentomni.evidence import EvidenceBank
from latentomni.trace import Plane, Trace, project
from latentomni.truth import Truth

WIDTH = 12


def make_moments(rng, n, cells, width=WIDTH):
    start_s = (np.arange(n) // cells).astype(np.float32)
    return Moments(
        start_s,
        start_s + 1,
        np.tile(np.float32([0, 0, 0.5, 1]), (n, 1)),
        rng.normal(size=(n, width)).astype(np.float32),
    )


def make_events(blocks=2, null=True, sound=True, seed=0):
    """A stream of one text piece, then `blocks` times a block of 2 visual and 1 audio latents and a text piece."""
    rng = np.random.default_rng(seed)
    clip = ClipRecord(
        name="bell and circle.mp4", sha256="ab" * 32, duration_s=6.0, thumbnails=(b"\xff\xd8one", b"\xff\xd8two"),
        thumbnail_times_s=np.array([0.0, 3.0]), sound=rng.integers(-9, 9, 16_000).astype(np.int16) if sound else None,
        notices=() if sound else ("This clip has no sound.",),
    )  # fmt: skip
    visual, audio = make_moments(rng, 12, 2), make_moments(rng, 6 if sound else 0, 1)
    spec, sampling = {"instants": 1, "rows": 1, "columns": 2}, {"seed": 0}
    names = ("When does the bell ring?", "latent", "strict", "nano", "nano")
    yield Started(*names, spec, sampling, clip, visual, audio, 321, null)
    banks = {"visual": EvidenceBank(visual), "audio": EvidenceBank(audio)}
    yield TextDelta("Let me ", (5, 6), 0.25)
    for b in range(blocks):
        yield LatentOpened(b, Window(2, 4.0), "model", 0.5 + b)
        for k, modality in enumerate(("visual", "visual", "audio")):
            vector = rng.normal(size=WIDTH).astype(np.float32)
            scores = banks[modality].by_time(banks[modality].nearest(vector[None]))[0]
            cell = (0, k) if modality == "visual" else None
            matches, p = banks[modality].matches(vector), 0.01 if null else None
            yield LatentStep(b, k, modality, 0, cell, 3.0, vector, matches, p, 0.6 + b, scores)
        yield LatentClosed(b, (0.02, 0.03, 0.5) if null else None, 0.7 + b)
        yield TextDelta("né\N{BELL} ", (7,), 0.8 + b)
    yield Finished("stop", "at 3 seconds", 9, 0.25, 3.0, ("a notice",))


@pytest.fixture
def trace():
    return Trace.from_events(make_events())


@pytest.mark.parametrize("settings", [{}, {"blocks": 0}, {"null": False}, {"sound": False}])
def test_saved_equals_loaded(tmp_path, settings):
    trace = Trace.from_events(make_events(**settings))
    trace.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == trace
    trace.save(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "t.zip").read_bytes()


def test_a_file_written_before_cells_and_levels_were_kept_opens(tmp_path, trace):
    def without(header):
        for block in header["blocks"]:
            for z in block["latents"]:
                del z["cell_scores"], z["null_level"]

    trace.save(tmp_path / "t.zip")
    rewrite(tmp_path / "t.zip", edit_json(without))
    assert Trace.load(tmp_path / "t.zip") == trace


def test_every_prefix_folds_saves_and_grows(tmp_path):
    events = list(make_events())
    whole = Trace.from_events(events)
    step = Trace.from_events(events[:1])
    for end in range(1, len(events) + 1):
        prefix = Trace.from_events(events[:end])
        step = step if end == 1 else step.after(events[end - 1])
        assert prefix == step
        assert (prefix.reason == "running") == (end < len(events))
        assert whole.text.startswith(prefix.text)
        for part, full in zip(prefix.blocks, whole.blocks, strict=False):
            assert (part.window, part.text_offset, part.opened_s) == (full.window, full.text_offset, full.opened_s)
            for z, full_z in zip(part.latents, full.latents, strict=False):
                assert (z.matches, z.p) == (full_z.matches, full_z.p)
        prefix.save(tmp_path / "t.zip")
        assert Trace.load(tmp_path / "t.zip") == prefix
    assert step == whole


def test_equality_sees_a_single_changed_value(trace):
    others = list(make_events())
    others[3].vector[0] += 0.5
    assert Trace.from_events(others) != trace
    assert Trace.from_events(make_events()) == trace
    assert Trace.from_events(list(make_events())[:-1]) != trace


def test_fold_keeps_what_the_events_said(trace):
    assert trace.text == "Let me né\N{BELL} né\N{BELL} "
    assert [b.text_offset for b in trace.blocks] == [7, 11]
    assert [d.token_ids for d in trace.deltas] == [(5, 6), (7,), (7,)]
    assert [z.is_evidence for z in trace.blocks[0].latents] == [True, True, False]
    assert trace.blocks[1].closed_s == 1.7
    assert (trace.answer, trace.reason, trace.tokens, trace.notices) == ("at 3 seconds", "stop", 9, ("a notice",))
    np.testing.assert_allclose(trace.blocks[0].latents[0].vector, list(make_events())[3].vector, rtol=1e-3)


def test_p_is_provisional_until_the_block_closes_and_absent_without_a_null():
    events = list(make_events())
    assert [z.is_evidence for z in Trace.from_events(events[:6]).blocks[0].latents] == [True, True, True]
    without = Trace.from_events(make_events(null=False))
    assert {z.is_evidence for b in without.blocks for z in b.latents} == {None}


def test_an_empty_stream_is_refused():
    with pytest.raises(TraceError, match="ended before it began"):
        Trace.from_events(())


def test_long_clips_stay_under_25_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    started, *rest = make_events(blocks=1)
    start_s = np.arange(4_500, dtype=np.float32)
    cells = np.tile(np.float32([0, 0, 1, 1]), (4_500, 1))
    visual = Moments(start_s, start_s + 1, cells, rng.standard_normal((4_500, 700), dtype=np.float32))
    pictures = tuple(rng.bytes(20_000) for _ in range(600))
    sound = rng.integers(-20_000, 20_000, 400 * 16_000).astype(np.int16)
    clip = ClipRecord("long.mp4", "cd" * 32, 400.0, pictures, np.linspace(0, 399, 600), sound)
    fields = {**vars(started), "visual": visual, "clip": clip}
    trace = Trace.from_events([Started(**fields), *[e for e in rest if not isinstance(e, LatentStep)][:2]])
    assert trace.sound_hz == 8_000
    assert len(trace.clip.sound) == 400 * 8_000
    assert len(trace.clip.thumbnails) == len(trace.clip.thumbnail_times_s) == 200
    width = trace.visual.features.shape[1]
    assert width == 256
    cosine = np.corrcoef(visual.features[0], visual.features[0] + visual.features[1])[0, 1]
    a, b = project(np.stack([visual.features[0], visual.features[0] + visual.features[1]]), width)
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(cosine, abs=0.15)
    trace.save(tmp_path / "t.zip")
    assert (tmp_path / "t.zip").stat().st_size < 25 * 2**20
    assert Trace.load(tmp_path / "t.zip") == trace


def test_too_large_a_run_is_refused_when_saving(tmp_path, monkeypatch, trace):
    monkeypatch.setattr("latentomni.bundle.MAX_BUNDLE_BYTES", 1_000)
    with pytest.raises(TraceError, match="shorter clip"):
        trace.save(tmp_path / "t.zip")
    assert not (tmp_path / "t.zip").exists()


def rewrite(path, change):
    """Apply `change` to the members of a saved trace."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edit_json(edit):
    def change(members):
        header = json.loads(members["trace.json"])
        edit(header)
        members["trace.json"] = json.dumps(header).encode()

    return change


def edit_arrays(edit):
    def change(members):
        arrays = load(members["arrays.safetensors"])
        edit(arrays)
        members["arrays.safetensors"] = save(arrays)

    return change


def latent(header):
    return header["blocks"][0]["latents"][0]


def with_planes(trace, n=1):
    for k in range(n):
        trace = trace.with_plane(Plane("umap", f"{k:016x}", np.full((4, 2), k, np.float32)))
    return trace


def test_planes_are_kept_with_the_run_and_the_oldest_go(tmp_path, trace):
    kept = with_planes(trace, 9)
    assert [plane.points[0, 0] for plane in kept.planes] == list(range(1, 9))
    again = kept.with_plane(Plane("umap", f"{3:016x}", np.full((4, 2), 99, np.float32)))
    assert [plane.points[0, 0] for plane in again.planes] == [1, 2, 4, 5, 6, 7, 8, 99]
    again.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip") == again != trace


def test_traces_from_before_there_were_planes_open(tmp_path, trace):
    trace.save(tmp_path / "t.zip")
    rewrite(tmp_path / "t.zip", edit_json(lambda h: h.pop("planes")))
    assert Trace.load(tmp_path / "t.zip") == trace


@pytest.mark.parametrize(
    "points", [np.zeros((4, 3), np.float32), np.zeros((4, 2)), np.full((4, 2), np.nan, np.float32)], ids=["wide", "double", "nan"]
)
def test_planes_that_are_none_are_refused(tmp_path, trace, points):
    trace.with_plane(Plane("umap", "k", points)).save(tmp_path / "t.zip")
    with pytest.raises(TraceError, match="a plane"):
        Trace.load(tmp_path / "t.zip")


MALFORMED = {
    "no json": lambda m: m.pop("trace.json"),
    "no arrays": lambda m: m.pop("arrays.safetensors"),
    "no sound": lambda m: m.pop("sound.wav"),
    "no thumbnail": lambda m: m.pop("thumbnails/0001.jpg"),
    "path trick": lambda m: m.update({"../../evil.py": b"x"}),
    "pickle": lambda m: m.update({"data.pkl": b"cos\nsystem\n(S'true'\ntR."}),
    "too many members": lambda m: m.update({f"thumbnails/{i:04d}.jpg": b"" for i in range(2100)}),
    "bomb": lambda m: m.update({"thumbnails/0000.jpg": bytes(3 * 2**20)}),
    "json bomb": lambda m: m.update({"trace.json": b"[" * 100_000}),
    "json of another kind": lambda m: m.update({"trace.json": b"[]"}),
    "not text": lambda m: m.update({"trace.json": b"\xff\xfe"}),
    "bad wav": lambda m: m.update({"sound.wav": b"RIFF"}),
    "wav with a part that ends outside": lambda m: m.update({"sound.wav": b"RIFF\x14\0\0\0WAVELIST\xe8\x03\0\0" + bytes(64)}),
    "arrays that say unprintable things": lambda m: m.update({"arrays.safetensors": (20).to_bytes(8, "little") + b'{"a":{"dtype":"\x7f\n"}}'}),
    "endless schema": edit_json(lambda h: h.update(schema="x" * 100_000)),
    "endless field": edit_json(lambda h: h.update({"x" * 100_000: 1})),
    "endless modality": edit_json(lambda h: latent(h).update(modality="x" * 100_000)),
    "lines in a name": edit_json(lambda h: h.update({"a\nb\u2028c\x1b[2J": 1})),
    "too many blocks": edit_json(lambda h: h.update(blocks=[h["blocks"][1] | {"latents": []}] * 65)),
    "bad arrays": lambda m: m.update({"arrays.safetensors": b"\xff" * 64}),
    "schema": edit_json(lambda h: h.update(schema="latentomni.trace/2")),
    "missing field": edit_json(lambda h: h.pop("question")),
    "unknown field": edit_json(lambda h: h.update(extra=1)),
    "wrong type": edit_json(lambda h: h.update(question=7)),
    "bool for int": edit_json(lambda h: h.update(tokens=True)),
    "nan": edit_json(lambda h: h["clip"].update(duration_s=float("nan"))),
    "infinite": edit_json(lambda h: h["clip"].update(duration_s=float("inf"))),
    "negative length": edit_json(lambda h: h["clip"].update(duration_s=-1.0)),
    "short tuple": edit_json(lambda h: latent(h).update(cell=[1])),
    "empty window": edit_json(lambda h: h["blocks"][0]["window"].update(end_s=1.0)),
    "offset outside the text": edit_json(lambda h: h["blocks"][0].update(text_offset=999)),
    "modality": edit_json(lambda h: latent(h).update(modality="smell")),
    "cell of a sound": edit_json(lambda h: h["blocks"][0]["latents"][2].update(cell=[0, 0])),
    "moment that is not there": edit_json(lambda h: latent(h)["matches"][0].update(moment=12)),
    "p above one": edit_json(lambda h: latent(h).update(p=1.5)),
    "array used twice": edit_json(lambda h: h["blocks"][0]["latents"][1].update(vector=latent(h)["vector"])),
    "too many latents": edit_json(lambda h: h["spec"].update(columns=1)),
    "no grid": edit_json(lambda h: h["spec"].pop("rows")),
    "sound rate": edit_json(lambda h: h.update(sound_hz=0)),
    "array of another shape": edit_arrays(lambda a: a.update({"visual.cells": a["visual.cells"][:, :3].copy()})),
    "rows disagree": edit_arrays(lambda a: a.update({"visual.features": a["visual.features"][:3].copy()})),
    "flat features": edit_arrays(lambda a: a.update({"visual.features": a["visual.features"][:, 0].copy()})),
    "array without shape": edit_arrays(lambda a: a.update({"visual.features": np.array(1, np.float16)})),
    "array of another type": edit_arrays(
        lambda a: a.update({"visual.features": a["visual.features"].astype(np.float64)})
    ),
    "nan in an array": edit_arrays(lambda a: a["visual.features"].__setitem__((0, 0), np.nan)),
    "latents of two widths": edit_arrays(lambda a: a.update({"blocks.0.latents.0.vector": np.zeros(3, np.float16)})),
    "scores of another length": edit_arrays(lambda a: a.update({"blocks.0.latents.0.scores": np.zeros(3, np.float16)})),
    "text for cells": edit_json(lambda h: latent(h).update(cell_scores="none")),
    "level of another kind": edit_json(lambda h: latent(h).update(null_level="high")),
    "thumbnails out of order": edit_arrays(lambda a: a.update({"clip.thumbnail_times_s": np.float32([3, 0])})),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_traces_are_refused_in_one_sentence(tmp_path, trace, change):
    path = tmp_path / "t.zip"
    trace.save(path)
    rewrite(path, change)
    with pytest.raises(TraceError) as refusal:
        Trace.load(path)
    assert not flaw(str(refusal.value), str(tmp_path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_packed_in_no_other_way(tmp_path, trace, compression):
    trace.save(tmp_path / "t.zip")
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "t.zip", "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(TraceError, match="stored or deflated"):
        Trace.load(tmp_path / "t.zip")


def test_more_moments_than_any_clip_has_are_refused(tmp_path, trace):
    n = 250_001
    many = Moments(np.zeros(n, np.float32), np.ones(n, np.float32), np.zeros((n, 4), np.float32), np.zeros((n, 1), np.float16))
    replace(trace, audio=many).save(tmp_path / "t.zip")
    with pytest.raises(TraceError, match="250001 audio moments"):
        Trace.load(tmp_path / "t.zip")


def test_traces_written_before_a_field_was_known_still_open(tmp_path, trace):
    def older(header):
        header.pop("reading")
        header.pop("truth")
        header["clip"].pop("file_sha256")

    path = tmp_path / "t.zip"
    trace.save(path)
    rewrite(path, edit_json(older))
    assert latentomni.open_trace(path) == trace  # the plain reading
    assert Trace.load(path).clip.file_sha256 == trace.clip.sha256


def test_what_is_true_is_kept_beside_the_answer(tmp_path, trace):
    path, truth = tmp_path / "t.zip", Truth("at 5 seconds", False, (Window(4.5, 5.5), Window(0.0, 1.0)), ("audio", "both"))
    assert str(truth) == "at 5 seconds, the answer is wrong; [4.5-5.5 s] audio, [0.0-1.0 s] both"
    told = replace(trace, truth=truth)
    told.save(path)
    assert Trace.load(path) == told != trace
    for modalities in (["audio"], ["audio", "smell"]):
        rewrite(path, edit_json(lambda header, modalities=modalities: header["truth"].update(modalities=modalities)))
        with pytest.raises(TraceError, match="2 true windows have the modalities"):
            Trace.load(path)


def test_a_reading_is_kept(tmp_path):
    started, *rest = make_events()
    trace = Trace.from_events([replace(started, reading={"start_s": 2.0, "end_s": None}), *rest])
    trace.save(tmp_path / "t.zip")
    assert Trace.load(tmp_path / "t.zip").reading == {"start_s": 2.0, "end_s": None}


def test_damaged_files_never_raise_anything_else(tmp_path, trace):
    """Every truncation and 300 single flipped bytes: loaded as it was, or refused."""
    path = tmp_path / "t.zip"
    trace.save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [good[: len(good) * i // 40] for i in range(40)]
    for at in rng.integers(0, len(good), 300):
        damaged.append(good[:at] + bytes([good[at] ^ int(rng.integers(1, 256))]) + good[at + 1 :])
    for data in damaged:
        path.write_bytes(data)
        with suppress(TraceError):
            assert isinstance(Trace.load(path), Trace)


def test_files_that_are_no_trace_are_refused(tmp_path):
    (tmp_path / "t.zip").write_bytes(b"hello")
    for path in (tmp_path / "t.zip", tmp_path / "missing.zip", tmp_path):
        with pytest.raises(TraceError):
            Trace.load(path)


def test_opens_without_torch():
    code = "import sys; sys.modules['torch'] = None; from latentomni import open_trace; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
