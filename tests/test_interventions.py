"""The causal arms: the intact one repeats the run exactly, every other changes what it says and nothing else."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from latentomni.attention_flow import Kind, attention_mask
from latentomni.clock import Window
from latentomni.config import AttentionFlow, LatentSpec, Mode, PositionVariant, SamplingSpec
from latentomni.events import LatentClosed
from latentomni.generation import generate, read_prefix, score
from latentomni.interventions import Arm, Material, black_out, intervene, other_window, reopen, shift_sound
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import collate

FIELDS = ("token_ids", "kinds", "blocks", "turns", "flows", "sources", "positions", "windows", "builder")
REMOVED = (Arm.REMOVED_MARKERS_KEPT, Arm.MARKERS_REMOVED)
WORDS = 8


@contextmanager
def recorded_logits(thinker):
    seen = []
    handle = thinker.model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    yield seen
    handle.remove()


def ask(thinker, clip, question="What is seen while the bell rings?"):
    row = new_sequence(thinker.encode_clip(clip), thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, question, Mode.LATENT, thinker.encode_text)
    return row


def answer(thinker, row, blocks, words=WORDS, prefix=None):
    """Let the row's answer be written, or its rest; returns the logits of every choice."""
    sampling = SamplingSpec(max_new_tokens=words, max_blocks=blocks)
    with recorded_logits(thinker) as seen:
        list(generate(thinker, [row], [Mode.LATENT], sampling, prefix=prefix))
    return seen


def same(a, b):
    return all(getattr(a, name) == getattr(b, name) for name in FIELDS)


def end(row):
    """Index behind the last close."""
    return max(i for i, kind in enumerate(row.kinds) if kind == Kind.LATENT) + 2


def blocks_of(row):
    return torch.stack(row.latents).view(-1, row.spec.n_latents, row.latents[0].shape[-1])


@pytest.fixture(scope="module")
def finished(tiny64, make_clip):
    """finished(blocks, flow): a row with its whole answer."""
    rows = {}

    def finish(blocks=1, flow=AttentionFlow.STRICT):
        if (blocks, flow) not in rows:
            thinker = replace(tiny64, spec=replace(tiny64.spec, flow=flow))
            rows[blocks, flow] = ask(thinker, make_clip(0))
            answer(thinker, rows[blocks, flow], blocks)
        return rows[blocks, flow]

    return finish


@pytest.fixture
def material(tiny64):
    """Every arm is defined for an answer of two blocks."""
    drawn = torch.randn(5, 2, tiny64.spec.n_latents, tiny64.hidden_size, generator=torch.Generator().manual_seed(1)).double()
    bank = torch.cat([drawn[0], drawn[1] * 2 + 1, drawn[2]])
    return Material(bank, tiny64.embed(torch.tensor(tiny64.ids.latent_pad)), *drawn[2:])


def apply(row, arm, material, seed=0, where=None):
    return intervene(row, arm, material, torch.Generator().manual_seed(seed), where)


@pytest.mark.parametrize("flow", AttentionFlow)
@pytest.mark.parametrize("blocks", [1, 2])
def test_intact_goes_on_exactly_as_the_uninterrupted_run(tiny64, make_clip, material, blocks, flow):
    thinker = replace(tiny64, spec=replace(tiny64.spec, flow=flow))
    row = ask(thinker, make_clip(0))
    whole = answer(thinker, row, blocks)
    words = len(row) - end(row)
    assert words == WORDS - blocks
    again = apply(row, Arm.INTACT, material)
    rest = answer(thinker, again, 0, words)
    assert same(again, row)
    assert torch.equal(blocks_of(again), blocks_of(row))
    torch.testing.assert_close(torch.cat(rest), torch.cat(whole[-words:]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("positions", PositionVariant)
@pytest.mark.parametrize("writes_window", [True, False])
def test_intact_goes_on_exactly_under_every_variant(tiny64, make_clip, material, positions, writes_window):
    spec = LatentSpec(instants=2, rows=1, columns=3, positions=positions, writes_window=writes_window)
    thinker = replace(tiny64, spec=spec, head=None)
    row = ask(thinker, make_clip(1))
    whole = answer(thinker, row, 1)
    again = apply(row, Arm.INTACT, material)
    rest = answer(thinker, again, 0, len(row) - end(row))
    assert same(again, row)
    torch.testing.assert_close(torch.cat(rest), torch.cat(whole[-len(rest) :]), rtol=0, atol=1e-9)


def test_own_latents_as_oracle_change_nothing(tiny64, finished, material):
    row = finished(2)
    own = replace(material, oracle=blocks_of(row), donor=blocks_of(row), other_time=blocks_of(row))
    for arm in (Arm.ORACLE, Arm.OTHER_CLIP, Arm.OTHER_TIME):
        intact, changed = apply(row, Arm.INTACT, own), apply(row, arm, own)
        assert same(changed, intact)
        assert torch.equal(blocks_of(changed), blocks_of(intact))
        expected, rest = (torch.cat(answer(tiny64, r, 0)) for r in (intact, changed))
        assert torch.equal(rest, expected)


@pytest.mark.parametrize("arm", [arm for arm in Arm if arm not in REMOVED])
@pytest.mark.parametrize("blocks", [1, 2])
def test_an_arm_changes_its_latents_and_nothing_else(tiny64, finished, material, arm, blocks):
    row = finished(blocks)
    before = list(row.latents)
    given = replace(material, **{name: getattr(material, name)[:blocks] for name in ("donor", "other_time", "oracle")})
    changed, own, n = apply(row, arm, given), blocks_of(row), row.spec.n_visual
    assert same(changed, apply(row, Arm.INTACT, given))
    assert len(changed) == end(row) and changed.positions == tuple(axis[: end(row)] for axis in row.positions)
    new, mean = blocks_of(changed), material.bank.mean(0).expand_as(own)
    assert new.shape == own.shape and new.dtype == own.dtype
    expected = {
        Arm.INTACT: own,
        Arm.ZERO: torch.zeros_like(own),
        Arm.MEAN: mean,
        Arm.OTHER_CLIP: given.donor,
        Arm.OTHER_TIME: given.other_time,
        Arm.ORACLE: given.oracle,
        Arm.PAUSE_TOKENS: material.pad.expand_as(own),
        Arm.VISUAL_ONLY: torch.cat([own[:, :n], mean[:, n:]], 1),
        Arm.AUDIO_ONLY: torch.cat([mean[:, :n], own[:, n:]], 1),
    }
    if arm in expected:
        assert torch.equal(new, expected[arm])
    assert (arm is Arm.INTACT) == torch.equal(new, own)
    assert len(row.latents) == len(before) and all(a is b for a, b in zip(row.latents, before, strict=True))


def test_shuffled_latents_stay_in_their_block_and_modality(finished, material):
    row = finished(2)
    own, new = blocks_of(row), blocks_of(apply(row, Arm.SHUFFLED, material))
    for block, other in zip(own, new, strict=True):
        n = row.spec.n_visual
        for part, moved in ((block[:n], other[:n]), (block[n:], other[n:])):
            assert not torch.equal(part, moved)
            assert sorted(map(tuple, part.tolist())) == sorted(map(tuple, moved.tolist()))


def test_noise_has_mean_and_covariance_of_its_slot_and_the_norm_of_what_it_replaces(finished):
    row = finished(2)
    own, d = blocks_of(row), row.latents[0].shape[-1]
    direction = torch.zeros(d, dtype=torch.float64)
    direction[3] = 1
    spread = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)  # one slot varies along one direction only
    bank = torch.ones(4, row.spec.n_latents, d, dtype=torch.float64)
    bank[:, 0] += spread[:, None] * direction
    new = torch.stack([blocks_of(apply(row, Arm.NOISE, Material(bank, own[0, 0]), seed)) for seed in range(400)])
    torch.testing.assert_close(new.norm(dim=-1), own.norm(dim=-1).expand(400, *own.shape[:2]))
    raw = new[:, 0, 0] / new[:, 0, 0, :1]  # its first component is the mean's, 1, but for the scale
    assert torch.allclose(raw[:, [0, 1, 2, *range(4, d)]], torch.ones(400, d - 1, dtype=torch.float64))
    assert abs(raw[:, 3].mean() - 1) < 0.3 and abs(raw[:, 3].std() - spread.std()) < 0.2
    torch.testing.assert_close(new[0, :, 1:], new[1, :, 1:])  # where the bank does not vary, nor does noise
    assert torch.equal(blocks_of(apply(row, Arm.NOISE, Material(bank, own[0, 0]), 7)), new[7])


def test_an_arm_without_its_material_is_undefined(finished, material):
    def undefined(bank):
        return [arm for arm in Arm if apply(finished(), arm, Material(bank, material.pad)) is None]

    given = [Arm.OTHER_CLIP, Arm.OTHER_TIME, Arm.ORACLE]
    assert undefined(material.bank) == given
    assert undefined(None) == [Arm.MEAN, Arm.NOISE, *given[:2], Arm.VISUAL_ONLY, Arm.AUDIO_ONLY, given[2]]


@pytest.mark.parametrize("arm", [Arm.ZERO, Arm.SHUFFLED, Arm.OTHER_CLIP, Arm.AUDIO_ONLY])
def test_what_is_not_meant_stays(finished, material, arm):
    row = finished(2)
    where = torch.rand(2, row.spec.n_latents, generator=torch.Generator().manual_seed(2)) < 0.5
    own, everywhere, here = blocks_of(row), *(blocks_of(apply(row, arm, material, where=w)) for w in (None, where))
    assert torch.equal(here, torch.where(where[:, :, None], everywhere, own)) and not torch.equal(here, own)


@pytest.mark.parametrize("flow", AttentionFlow)
@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("arm", REMOVED)
def test_one_block_is_removed_and_the_other_sees_and_says_what_it_did(tiny64, finished, material, arm, gone, flow):
    row, k = finished(2, flow), finished(2, flow).spec.n_latents
    where = torch.tensor([[b == gone] * k for b in range(2)])
    intact, cut = apply(row, Arm.INTACT, material), apply(row, arm, material, where=where)
    lost = [i for i, n in enumerate(intact.blocks) if n == gone and (arm is Arm.MARKERS_REMOVED or intact.kinds[i] == Kind.LATENT)]
    if arm is Arm.MARKERS_REMOVED:
        lost.append(max(lost) + 1)
    kept = [i for i in range(len(intact)) if i not in lost]
    assert cut.token_ids == [intact.token_ids[i] for i in kept] and cut.windows == [row.windows[1 - gone]]
    assert torch.equal(blocks_of(cut)[0], blocks_of(row)[1 - gone])
    for r in (intact, cut):
        r.add_text([5, 6])
    assert [axis[-2:] for axis in cut.positions] == [axis[-2:] for axis in intact.positions]
    kept += [len(intact) - 2, len(intact) - 1]
    (*_, layout), (*_, before) = collate([cut]), collate([intact])
    expected = attention_mask(before, before)[0][kept][:, kept]
    assert torch.equal(attention_mask(layout, layout)[0], expected)
    start, logits = len(cut), answer(tiny64, cut, 0)
    assert len(cut) == start + WORDS and len(cut.latents) == k
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(logits), tiny64.logits(tiny64.full([cut])[0, start - 1 : -1]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("flow", AttentionFlow)
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("arm", REMOVED)
def test_removal_leaves_the_positions_and_the_sight_of_what_stays(tiny64, finished, material, arm, blocks, flow):
    row = finished(blocks, flow)
    intact, cut = apply(row, Arm.INTACT, material), apply(row, arm, material)
    lost = {Kind.LATENT} if arm is Arm.REMOVED_MARKERS_KEPT else {Kind.LATENT, Kind.TRIGGER, Kind.ECHO, Kind.WINDOW}
    kept = [i for i, kind in enumerate(intact.kinds) if kind not in lost]
    if arm is Arm.MARKERS_REMOVED:
        kept = [i for i in kept if intact.token_ids[i] != tiny64.ids.close]
    assert len(intact) - len(cut) >= blocks * row.spec.n_latents
    for now, before in ((cut.token_ids, intact.token_ids), (cut.kinds, intact.kinds), *zip(cut.positions, intact.positions, strict=True)):
        assert now == [before[i] for i in kept]
    assert cut.latents == [] and cut.windows == [] and not any(n >= 0 for n in cut.blocks)
    for r in (intact, cut):
        r.add_text([5, 6])
    assert [axis[-2:] for axis in cut.positions] == [axis[-2:] for axis in intact.positions]
    kept += [len(intact) - 2, len(intact) - 1]
    (*_, layout), (*_, before) = collate([cut]), collate([intact])
    assert torch.equal(attention_mask(layout, layout)[0], attention_mask(before, before)[0][kept][:, kept])


@pytest.mark.parametrize("arm", REMOVED)
def test_a_row_without_latents_goes_on_as_one_forward(tiny64, finished, material, arm):
    cut = apply(finished(2), arm, material)
    start, logits = len(cut), answer(tiny64, cut, 0)
    assert len(cut) == start + WORDS  # the markers are no open block that the end of an answer would take back
    with torch.no_grad():
        hidden = tiny64.full([cut])[0, start - 1 : -1]
        torch.testing.assert_close(torch.cat(logits), tiny64.logits(hidden), rtol=0, atol=1e-9)


def test_only_the_last_turn_is_changed(tiny64, finished, material):
    row = apply(finished(1), Arm.INTACT, material)
    answer(tiny64, row, 0, 3)
    add_question(row, "And what sounds?", Mode.LATENT, tiny64.encode_text)
    answer(tiny64, row, 1)
    k = row.spec.n_latents
    assert len(row.latents) == 2 * k
    zero = apply(row, Arm.ZERO, material)
    assert torch.equal(blocks_of(zero)[0], blocks_of(row)[0]) and not blocks_of(zero)[1].any()
    for arm in REMOVED:
        cut = apply(row, arm, material)
        assert len(cut.latents) == k and len(cut.windows) == 1
        assert cut.kinds.count(Kind.LATENT) == k
        assert cut.kinds.count(Kind.TRIGGER) == (2 if arm is Arm.REMOVED_MARKERS_KEPT else 1)
        answer(tiny64, cut, 0, 2)


@pytest.mark.parametrize("arm", Arm)
def test_arms_go_on_from_a_shared_prefix(tiny64, finished, material, arm):
    rows = [finished(2), finished(1)]
    counts = [row.kinds.index(Kind.TRIGGER) - 1 for row in rows]
    prefix = read_prefix(tiny64, rows, counts)
    one = replace(material, **{name: getattr(material, name)[:1] for name in ("donor", "other_time", "oracle")})

    def changed():
        return [apply(rows[0], arm, material), apply(rows[1], arm, one)]

    together, alone = changed(), changed()
    sampling = SamplingSpec(max_new_tokens=5, max_blocks=0)
    for _ in range(2):  # what one arm adds is not there for the next
        together = changed()
        with recorded_logits(tiny64) as seen:
            list(generate(tiny64, together, [Mode.LATENT] * 2, sampling, prefix=prefix))
    for b, row in enumerate(alone):
        torch.testing.assert_close(torch.cat(seen[b::2]), torch.cat(answer(tiny64, row, 0, 5)), rtol=0, atol=1e-9)
        assert row.token_ids == together[b].token_ids


def test_a_score_is_the_log_probability_of_every_word(tiny64, finished, material):
    texts = [tiny64.encode_text("A red circle."), tiny64.encode_text("Yes.")]
    rows = [finished(2), finished(1)]
    prefix = read_prefix(tiny64, rows, [row.kinds.index(Kind.TRIGGER) - 1 for row in rows])
    expected = []
    for row, text in zip(rows, texts, strict=True):
        intact = apply(row, Arm.INTACT, material)
        start = len(intact)
        intact.add_text(text)
        with torch.no_grad():
            p = tiny64.logits(tiny64.full([intact])[0]).log_softmax(-1)
        expected.append(sum(float(p[start - 1 + i, token]) for i, token in enumerate(text)))
    for given in (None, prefix):
        intact = [apply(row, Arm.INTACT, material) for row in rows]
        assert score(tiny64, intact, texts, given) == pytest.approx(expected, abs=1e-4)  # logits are judged in float32


@pytest.mark.parametrize("block", [0, 1])
def test_a_reopened_block_is_computed_anew(tiny64, make_clip, finished, block):
    row, k = finished(2), finished(2).spec.n_latents
    again = reopen(row, block, row.clip)
    events = generate(tiny64, [again], [Mode.LATENT], SamplingSpec(max_new_tokens=3, max_blocks=0))
    closed = next(event for _, event in events if isinstance(event, LatentClosed))
    assert closed.block == block
    events.close()
    torch.testing.assert_close(torch.stack(again.latents), torch.stack(row.latents[: (block + 1) * k]), rtol=0, atol=1e-9)
    assert again.windows == row.windows[: block + 1]
    other = reopen(row, block, tiny64.encode_clip(make_clip(5)))
    list(generate(tiny64, [other], [Mode.LATENT], SamplingSpec(max_new_tokens=3, max_blocks=0)))
    assert (torch.stack(other.latents)[-k:] - torch.stack(row.latents[block * k : (block + 1) * k])).norm() > 0.01
    assert len(row.latents) == 2 * k


def test_a_half_written_window_is_finished(tiny64, make_clip):
    row = ask(tiny64, make_clip(0))
    row.open_block()
    row.add_window_tokens(tiny64.encode_text("[2"))
    answer(tiny64, row, 1)
    text = tiny64.tokenizer.decode([t for t, kind in zip(row.token_ids, row.kinds, strict=True) if kind == Kind.WINDOW])
    assert text.startswith("[2") and len(text) > 2
    assert len(row.latents) == row.spec.n_latents


def test_a_window_is_made_black_and_silent(make_clip):
    clip = make_clip(0, 4.0)
    dark = black_out(clip, Window(1.0, 2.5))
    inside = [1.0 <= i / 2 < 2.5 for i in range(8)]
    assert not dark.frames[inside].any()
    assert np.array_equal(dark.frames[[not i for i in inside]], clip.frames[[not i for i in inside]])
    assert not dark.waveform[16_000:40_000].any()
    assert np.array_equal(np.delete(dark.waveform, np.s_[16_000:40_000]), np.delete(clip.waveform, np.s_[16_000:40_000]))
    assert clip.frames[2].any() and clip.waveform[20_000:30_000].any()
    assert black_out(make_clip(0, sound=False), Window(0.0, 1.0)).waveform is None
    mute = black_out(clip, Window(1.0, 2.5), picture=False)
    assert np.array_equal(mute.frames, clip.frames) and np.array_equal(mute.waveform, dark.waveform)


def test_sound_is_moved_and_leaves_silence(make_clip):
    clip = make_clip(0, 4.0)
    own, s = clip.waveform, 16_000
    late, early = shift_sound(clip, 0.5).waveform, shift_sound(clip, -1.0).waveform
    assert np.array_equal(late[s // 2 :], own[: -s // 2]) and not late[: s // 2].any()
    assert np.array_equal(early[:-s], own[s:]) and not early[-s:].any()
    part = shift_sound(clip, 0.5, Window(1.0, 2.0)).waveform
    assert np.array_equal(np.delete(part, np.s_[s : 5 * s // 2]), np.delete(own, np.s_[s : 5 * s // 2]))
    assert not part[s : 3 * s // 2].any()
    assert np.array_equal(part[3 * s // 2 : 2 * s], own[s : 3 * s // 2])
    assert np.array_equal(part[2 * s : 5 * s // 2], own[2 * s : 5 * s // 2] + own[3 * s // 2 : 2 * s])
    assert not shift_sound(clip, 10.0).waveform.any() and np.array_equal(shift_sound(clip, 0.5).frames, clip.frames)


def test_another_window_is_as_long_and_apart():
    def others(window, duration_s, avoid=()):
        return {other_window(window, duration_s, avoid, np.random.default_rng(seed)) for seed in range(40)}

    assert others(Window(2.0, 4.0), 8.0) == {Window(0.0, 2.0), Window(4.0, 6.0), Window(6.0, 8.0)}
    assert others(Window(2.0, 4.0), 8.0, [Window(5.0, 6.5)]) == {Window(0.0, 2.0)}
    assert others(Window(1.5, 3.5), 6.0) == {Window(3.5, 5.5)}
    assert others(Window(1.5, 3.0), 4.0) == {Window(0.0, 1.5)}
    assert others(Window(1.0, 3.0), 4.9) == {None}
    assert others(Window(1.0, 3.0), 5.4) == {Window(3.0, 5.0)}
    by_half_seconds = {Window(start_s, start_s + 2) for start_s in (3.5, 4.0, 4.5, 5.0)}
    assert others(Window(1.0, 3.0), 7.0, [Window(3.0, 3.5), Window(6.9, 7.0)]) == by_half_seconds - {Window(5.0, 7.0)}
