"""Rows to micro-batches: nothing is lost, budgets hold, processes agree, and how rows are put together changes no loss."""

from dataclasses import replace

import pytest
import torch

from latentomni.anchors import pool_anchors
from latentomni.attention_flow import Kind
from latentomni.clock import Window
from latentomni.config import LatentSpec, VideoSpec
from latentomni.errors import RequestError
from latentomni.positions import latent_places
from latentomni.training.batches import make_batch
from latentomni.training.examples import build_example
from latentomni.training.feedback import Phase
from latentomni.training.losses import LossSpec, Objective
from latentomni.training.recipes import read_recipe
from latentomni.training.records import read_records
from latentomni.training.source import MicroBatches, Source, split_batches
from tests.training.conftest import CLIPS, ONE, TWO


@pytest.fixture(scope="session")
def records(train_file):
    return read_records(train_file)


def recipe(**changes):
    phases = {kind: {"steps": steps} for kind, steps in (("anchors", 2), ("jacobi", 2), ("rollout", 1))}
    return read_recipe("latentomni", {"model": "tiny", "phases": phases, "samples": 4, **changes})


def chosen(source, steps=((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))):
    return [source.draw(stage, step).chosen for stage, step in steps]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("multiple", [1, 2, 3, 6])
def test_micro_batches_hold_every_sample_once_within_the_budget(packing, multiple):
    lengths = [900, 120, 80, 330, 330, 60, 1500, 40, 210, 90, 75, 400]
    parts = split_batches(lengths, 1000, packing=packing, multiple=multiple)
    assert sorted(i for part in parts for i in part) == list(range(12))
    assert len(parts) % multiple == 0 and all(parts)
    for part in parts:
        tokens = sum(lengths[i] for i in part) if packing else len(part) * max(lengths[i] for i in part)
        assert tokens <= 1000 or part == [6]
    totals = [sum(lengths[i] for i in part) for part in parts]
    assert totals == sorted(totals, reverse=True)
    assert len(parts) < 12
    assert len(split_batches(lengths, 1, packing=packing, multiple=multiple)) == 12


def test_every_row_comes_once_an_epoch_and_stages_go_on_where_the_last_one_stopped(tiny, records):
    source = Source(tiny, records, recipe())
    rows = [i for stage, step in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)) for i in source.rows(stage, step)]
    assert len(rows) == 20
    assert sorted(rows[:7]) == sorted(rows[7:14]) == list(range(7))
    assert rows[:7] != rows[7:14]
    other = Source(tiny, records, recipe(fit={"seed": 8}))
    assert [i for step in (0, 1) for i in other.rows(0, step)] != rows[:8]
    everything = Source(tiny, records, recipe(samples=15)).rows(0, 0)
    assert [everything.count(i) for i in range(7)].count(2) == 6 and len(everything) == 15


def test_a_step_is_the_same_for_any_number_of_processes(tiny, records):
    steps = [chosen(Source(tiny, records, recipe(tokens=600), processes)) for processes in (1, 2, 4)]
    for one, two, four in zip(*steps, strict=True):
        assert sorted(i for part in one for i in part) == sorted(i for part in two for i in part) == sorted(i for part in four for i in part)
        assert len(two) % 2 == 0 and len(four) == 4
    assert chosen(Source(tiny, records, recipe(tokens=600), 2)) == steps[1]
    with pytest.raises(RequestError, match="4 samples a step cannot be shared by 3 processes"):
        Source(tiny, records, recipe(), 3)


def test_only_what_is_asked_for_is_built():
    built = []
    batches = MicroBatches([(1, 2), (3,), (4,)], lambda numbers: built.append(numbers) or numbers)
    assert len(batches) == 3 and built == []
    assert batches[1] == (3,) and built == [(3,)]


def test_sizes_are_known_from_headers(tiny, records):
    source = Source(tiny, records, recipe())
    for number in range(7):
        example, size = source._example(number, source._features(records[number].media)), source.size(number)
        assert (size.tokens, size.targets) == (len(example.sequence), len(example.text_targets))
        assert (size.visual, size.audio) == (len(example.sequence.clip.visual), len(example.sequence.clip.audio))
        assert size.latents == len(example.latent_targets) == sum(len(a) for a in example.anchors)
    few = replace(tiny, video=replace(tiny.video, max_frames=4))
    short = Source(few, records, recipe())
    assert short.size(0).visual == len(short._features(CLIPS[0]).visual) == 2 * source.size(0).visual / (source.size(0).audio // 25)
    assert VideoSpec(**{k: v for k, v in vars(VideoSpec()).items() if k != "max_frames"}) == VideoSpec()  # as older checkpoints have it


@pytest.mark.parametrize("phase", [Phase(), Phase("rollout")], ids=lambda p: p.kind)
def test_packed_padded_and_single_rows_have_the_same_losses(tiny64, records, tmp_path, phase):
    objective = Objective(tiny64, LossSpec())

    def totals(**changes):
        source = Source(tiny64, records, recipe(samples=7, features=str(tmp_path), **changes))
        counts, terms, batches = {}, {}, source.draw(0, 0)
        for number in range(len(batches)):
            batch = batches[number]
            for name, value in objective(batch, phase)[0].items():
                terms[name] = terms.get(name, 0) + float(value)
            for name, n in objective.counts(batch).items():
                counts[name] = counts.get(name, 0) + n
        return len(batches), counts, terms

    with torch.no_grad():
        single, packed, padded = totals(tokens=1), totals(tokens=900), totals(tokens=900, packing=False)
    assert single[0] == 7 > max(packed[0], padded[0])
    assert single[1] == packed[1] == padded[1]
    assert packed[2] == pytest.approx(single[2], rel=1e-5) and padded[2] == pytest.approx(single[2], rel=1e-5)


def test_features_come_from_the_cache_once_it_is_filled(tiny, records, tmp_path):
    source = Source(tiny, records, recipe(features=str(tmp_path / "kept")), 2)
    for process in (0, 1):
        source.fill_cache(process)
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 3
    runs = []
    hooks = [tower.register_forward_hook(lambda *_: runs.append(1)) for tower in (tiny.towers.visual, tiny.towers.audio_tower)]
    kept, fresh = source.draw(0, 0)[0], Source(tiny, records, recipe(), 2).draw(0, 0)
    assert runs == []
    torch.testing.assert_close(kept.features, fresh[0].features)
    assert runs
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", ["anchors", "rollout"])
def test_towers_that_are_trained_get_a_gradient_and_frozen_ones_none(tiny, records, kind):
    source = Source(tiny, records, recipe(train_towers=True, samples=2, tokens=2000))
    towers = [tiny.towers.visual, tiny.towers.audio_tower]
    weights = [next(p for name, p in tower.named_parameters() if name.endswith("weight")) for tower in towers]
    wanted = [p.requires_grad for tower in towers for p in tower.parameters()]
    try:
        for tower in towers:
            tower.requires_grad_(True)
        batch = source._build((0, 6))
        assert not batch.features.requires_grad and not batch.anchors.requires_grad
        torch.testing.assert_close(batch.encode(), batch.features)
        for step in (batch, replace(batch, encode=None)):
            terms, _ = Objective(tiny, LossSpec())(step, Phase(kind))
            found = torch.autograd.grad(sum(terms.values()), weights, allow_unused=True)
            assert all((g is not None and bool(g.abs().max() > 0)) is (step is batch) for g in found)
    finally:
        for p, on in zip([p for tower in towers for p in tower.parameters()], wanted, strict=True):
            p.requires_grad_(on)


@pytest.mark.parametrize("missing", ["visual", "audio"])
def test_a_block_may_have_latents_of_one_modality(tiny64, features, missing):
    spec = replace(tiny64.spec, **{missing: False})
    keep = slice(tiny64.spec.n_visual, None) if missing == "visual" else slice(0, tiny64.spec.n_visual)
    window = Window(0.5, 2.0)
    assert latent_places(window, spec) == latent_places(window, tiny64.spec)[keep]
    for few, whole in zip(pool_anchors(features[0], window, spec), pool_anchors(features[0], window, tiny64.spec), strict=True):
        assert torch.equal(few, whole[keep])
    thinker = replace(tiny64, spec=spec)
    example, full = (build_example(t, features[0], (ONE,)) for t in (thinker, tiny64))
    ids = [[t for t, kind in zip(e.sequence.positions[0], e.sequence.kinds, strict=True) if kind == Kind.LATENT] for e in (example, full)]
    assert ids[0] == ids[1][keep] and len(ids[0]) == spec.n_latents
    objective = Objective(thinker, LossSpec())
    batch = make_batch(thinker, [build_example(thinker, clip, (TWO,)) for clip in features])
    assert objective.counts(batch)["sync"] == 0
    assert set(batch.is_visual.tolist()) == {missing == "audio"}
    for phase in (Phase(), Phase("jacobi", 2), Phase("rollout")):
        terms, vectors = objective(batch, phase)
        assert terms["sync"].item() == 0 and len(vectors) == 6 * spec.n_latents
        assert all(torch.isfinite(term) for term in terms.values())
    assert LatentSpec.from_dict({"instants": 2, "single_turn": True}) == LatentSpec(instants=2, single_turn=True)  # as older checkpoints have it
