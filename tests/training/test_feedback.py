"""Training reads what generation writes: same tokens, same hidden states; latents that are fed back are those of decoding."""

from dataclasses import replace

import pytest
import torch

from latentomni.attention_flow import Kind, attention_mask
from latentomni.config import AttentionFlow, Mode, SamplingSpec
from latentomni.errors import RequestError
from latentomni.generation import generate
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import collate
from latentomni.training.batches import make_batch
from latentomni.training.examples import build_example
from latentomni.training.feedback import Phase, jacobi, open_prefix, rollout
from latentomni.training.turns import Segment
from tests.training.conftest import ALOUD, DIRECT, ONE, TWO


@pytest.fixture(scope="module", params=list(AttentionFlow))
def thinker(request, tiny64):
    return replace(tiny64, spec=replace(tiny64.spec, flow=request.param))


def generated(thinker, clip, turns, forced):
    """The conversation that generation makes where it says what the turns say."""
    text = thinker.encode_text
    row = new_sequence(clip, thinker.spec, thinker.ids, text)
    for turn in turns:
        add_question(row, turn.question, turn.mode, text)
        said = []
        for place, part in enumerate(turn.parts):
            if not isinstance(part, Segment):
                aloud = turn.mode is Mode.TEXT_COT and place and isinstance(turn.parts[place - 1], Segment)
                said += text(" " + part if aloud else part)
            elif turn.mode is Mode.LATENT:
                said += [thinker.ids.trigger, *text(str(part.window))]
            elif turn.mode is Mode.TEXT_COT:
                said += text(f" {part.window}") + text(f" {part.caption}")
        with forced(thinker, [*said, thinker.ids.end_of_turn]):
            list(generate(thinker, [row], [turn.mode], SamplingSpec(max_new_tokens=128)))
    return row


def sequential(thinker, features, conversations, forced):
    rows = [generated(thinker, clip, turns, forced) for clip, turns in zip(features, conversations, strict=True)]
    return rows, torch.stack([vector for row in rows for vector in row.latents])


@torch.no_grad()
@pytest.mark.parametrize("turns", [[ONE], [TWO], [ALOUD], [DIRECT], [ONE, DIRECT, TWO]], ids=["one", "two", "aloud", "direct", "talk"])
def test_the_training_forward_equals_generation_on_the_same_tokens(thinker, features, forced, turns):
    row, trained = generated(thinker, features[0], turns, forced), build_example(thinker, features[0], turns)
    for name in ("token_ids", "kinds", "blocks", "turns", "flows", "sources", "positions", "windows"):
        assert getattr(row, name) == getattr(trained.sequence, name), name
    batch = make_batch(thinker, [trained])
    (_, positions, layout), own = collate([row]), torch.stack(row.latents) if row.latents else torch.zeros(0, 32)
    assert torch.equal(batch.mask, attention_mask(layout, layout))
    assert torch.equal(batch.positions, positions)
    hidden = thinker.forward(batch.embeds(thinker, own), batch.positions, batch.mask)
    torch.testing.assert_close(hidden, thinker.full([row]), rtol=0, atol=1e-9)
    predicted = thinker.latent(hidden[batch.latents[0], batch.latents[1]])
    torch.testing.assert_close(predicted, own.to(hidden.dtype), rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_rollout_is_decoding_and_jacobi_reaches_it_after_all_latents_but_one(thinker, features, forced):
    """Rows of one, two and three blocks: S * K - 1 passes, and not one fewer; every pass makes one more latent exact."""
    conversations = [[ONE], [TWO], [TWO, DIRECT, ONE]]
    rows, expected = sequential(thinker, features, conversations, forced)
    batch = make_batch(thinker, [build_example(thinker, c, t) for c, t in zip(features, conversations, strict=True)])
    feedback, k = open_prefix(thinker, batch, grad=False), thinker.spec.n_latents
    torch.testing.assert_close(rollout(feedback), expected, rtol=0, atol=1e-9)
    starts = [0, k, 3 * k]
    for passes in (1, 4, k - 1, k, 2 * k - 1, 2 * k, 3 * k - 1):
        fed = jacobi(feedback, passes)
        for start, row in zip(starts, rows, strict=True):
            exact = min(passes + 1, len(row.latents))
            error = (fed - expected)[start : start + len(row.latents)].abs().amax(-1)
            assert error[:exact].max() < 1e-9
            assert exact == len(row.latents) or error[exact] > 1e-7


@torch.no_grad()
def test_questions_asked_apart_feed_back_as_each_alone(thinker, features, forced):
    turns = [TWO, DIRECT, ONE, ALOUD]
    _, expected = sequential(thinker, [features[0]] * 2, [[TWO], [ONE]], forced)
    batch = make_batch(thinker, [build_example(thinker, features[0], turns, isolated=True)])
    feedback = open_prefix(thinker, batch, grad=False)
    torch.testing.assert_close(rollout(feedback), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(jacobi(feedback, 2 * thinker.spec.n_latents - 1), expected, rtol=0, atol=1e-9)


def test_a_shared_prefix_changes_neither_hidden_states_nor_gradients(thinker, features):
    batch = make_batch(thinker, [build_example(thinker, features[0], [TWO, ONE]), build_example(thinker, features[1], [DIRECT, ONE])])
    vectors = torch.randn(batch.anchors.shape, dtype=torch.float64)
    weight = thinker.text_model.layers[0].self_attn.k_proj.weight.requires_grad_(True)
    real = (batch.layout.kind != Kind.PAD)[..., None]
    once = thinker.forward(batch.embeds(thinker, vectors), batch.positions, batch.mask) * real
    lean = thinker.forward(batch.embeds(thinker, vectors), batch.positions, batch.mask, unread=batch.unread) * real
    cut = open_prefix(thinker, batch, grad=True).patched(vectors)
    assert 0 < batch.unread < batch.ids.shape[1]
    whole, *others = [torch.autograd.grad(hidden[:, batch.unread :].pow(3).sum(), weight)[0] for hidden in (once, lean, cut)]
    for hidden, gradient in zip((lean, cut), others, strict=True):
        torch.testing.assert_close(hidden, once, rtol=0, atol=1e-9)
        torch.testing.assert_close(gradient, whole, rtol=1e-9, atol=1e-9)


def test_gradient_runs_back_through_every_step_of_a_rollout_if_asked(thinker, features):
    batch = make_batch(thinker, [build_example(thinker, features[0], [ONE])])
    feedback = open_prefix(thinker, batch, grad=True)
    through, cut = rollout(feedback, grad=True), rollout(feedback)
    torch.testing.assert_close(through, cut, rtol=0, atol=1e-12)
    assert not cut.requires_grad
    weight = thinker.text_model.layers[0].self_attn.k_proj.weight
    last = torch.autograd.grad(through[-1].sum(), weight, retain_graph=True)[0]
    alone = torch.autograd.grad(open_prefix(thinker, batch, grad=True).patched(cut)[batch.latents[0], batch.latents[1]][-1].sum(), weight)[0]
    assert (last - alone).abs().max() > 1e-6


def test_phase_a_with_the_rollout_for_anchors_is_phase_c(tiny64, features):
    batch = make_batch(tiny64, [build_example(tiny64, clip, [TWO, ONE], isolated=True) for clip in features])
    own, feedback = Phase("rollout").fill(tiny64, batch)
    forced, none = Phase("anchors").fill(tiny64, replace(batch, anchors=own))
    assert none is None
    torch.testing.assert_close(forced, own, rtol=0, atol=0)
    hidden = tiny64.forward(batch.embeds(tiny64, forced), batch.positions, batch.mask)
    real = (batch.layout.kind != Kind.PAD)[..., None]
    torch.testing.assert_close(feedback.patched(own), hidden * real, rtol=0, atol=1e-9)


def test_gradient_checkpointing_gives_the_same_latents_and_one_pass_over_all(tiny64, features):
    batch = make_batch(tiny64, [build_example(tiny64, features[0], [TWO])])
    expected, _ = Phase("jacobi", 3).fill(tiny64, batch)
    layer = tiny64.text_model.layers[0]
    layer.gradient_checkpointing = True
    try:
        vectors, feedback = Phase("jacobi", 3).fill(tiny64, batch)
    finally:
        layer.gradient_checkpointing = False
    assert feedback is None
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-12)


def test_a_share_of_the_blocks_stays_at_its_anchors_and_noise_is_drawn_from_the_seed(tiny64, features):
    batch = make_batch(tiny64, [build_example(tiny64, clip, [TWO, ONE], isolated=True) for clip in features])
    k, own = tiny64.spec.n_latents, Phase("rollout").fill(tiny64, batch)[0]
    mixed = Phase("rollout", share=0.5).fill(tiny64, batch, seed=3)[0]
    fed = (mixed == own).all(1).view(-1, k)
    assert torch.equal(fed.all(1), fed.any(1)) and 0 < fed.all(1).sum() < len(fed)
    assert torch.equal(mixed.view(-1, k, 32)[~fed.all(1)].float(), batch.anchors.view(-1, k, 32)[~fed.all(1)])
    noisy = [Phase(noise=0.1).fill(tiny64, batch, seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0], noisy[2])
    assert 0.08 < (noisy[0] - batch.anchors).std() < 0.12


def test_blocks_that_are_given_stay_at_their_anchors(tiny64, features):
    rows = [build_example(tiny64, features[0], [replace(TWO, given=given)], shown=not given) for given in (False, True)]
    batch = make_batch(tiny64, rows)
    own, given = Phase("rollout").fill(tiny64, batch)[0].float().chunk(2)
    learned, anchors = batch.anchors.chunk(2)
    assert torch.equal(given, anchors) and not torch.isclose(own, learned).all(1).any()


def test_unknown_phases_are_refused():
    with pytest.raises(RequestError, match="anchors, jacobi or rollout, got 'magic'"):
        Phase("magic")
    with pytest.raises(RequestError, match="passes >= 1"):
        Phase(passes=0)
