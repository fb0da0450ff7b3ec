"""The terms: what each is the mean over, what it pulls on, and the presets of the paper and of the released code."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from latentomni.attention_flow import Kind
from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.errors import RequestError
from latentomni.sequence import no_clip
from latentomni.training.batches import make_batch, pack
from latentomni.training.examples import build_example
from latentomni.training.feedback import Phase
from latentomni.training.losses import PRESETS, LossSpec, Objective, synchrony
from latentomni.training.turns import Segment, Turn
from tests.training.conftest import ALOUD, DIRECT, ONE, TWO

EVERYTHING = LossSpec(alignment=1.0, alignment_reduction="mean", clock=1.0, search=1.0)
NARRATION = Turn("Describe the clip.", Mode.DIRECT, ("A red circle.",), "narration")
TOLD = Turn("Is it a star?", Mode.DIRECT, ("I see a circle,", " so no."), "comparison", given=True)


def means(objective, batch, phase=None):
    terms, _ = objective(batch, phase or Phase())
    counts = objective.counts(batch)
    assert set(terms) == set(counts)
    return {name: term / max(counts[name], 1) for name, term in terms.items()}


def mixed(thinker, features):
    return [
        build_example(thinker, features[0], [ONE, TWO, DIRECT, NARRATION], isolated=True),
        build_example(thinker, features[1], [TWO, ALOUD]),
        build_example(thinker, features[2], [DIRECT]),
        build_example(thinker, features[0], [ALOUD, ONE]),
        build_example(thinker, no_clip(thinker.hidden_size), [TOLD]),
    ]


def test_of_a_turn_whose_texts_are_given_the_last_alone_is_learned(tiny64):
    example = build_example(tiny64, no_clip(tiny64.hidden_size), [TOLD])
    assert [group for _, _, group in example.text_targets] == ["comparison"] * len(example.text_targets)
    learned = [token for _, token, _ in example.text_targets]
    assert tiny64.tokenizer.decode(learned) == " so no.<|im_end|>" and example.sequence.token_ids[-len(learned) :] == learned


@pytest.mark.parametrize("turn", [TWO, ALOUD], ids=lambda t: str(t.mode))
def test_reasoning_that_is_given_is_read_behind_no_media_and_nothing_of_it_learned(tiny64, features, turn):
    given = replace(turn, group="comparison", given=True)
    told, learned = (build_example(tiny64, features[0], [t], shown=t is not given) for t in (given, turn))
    assert Kind.MEDIA in learned.sequence.kinds and Kind.MEDIA not in told.sequence.kinds
    words, learned_words = ([t for t, k in zip(e.sequence.token_ids, e.sequence.kinds, strict=True) if k != Kind.MEDIA] for e in (told, learned))
    assert words == learned_words  # the same is read, and stands where it does behind the media
    ends = zip(told.sequence.positions, learned.sequence.positions, strict=True)
    assert all(axis[-40:] == true[-40:] for axis, true in ends) and told.sequence.positions[0][-1] > len(words)
    assert {group for _, _, group in told.text_targets} == {"comparison"} and told.asked == []
    assert len(told.text_targets) == sum(group == "answer" for _, _, group in learned.text_targets)
    assert all(torch.equal(a, b) for a, b in zip(told.anchors, learned.anchors, strict=True))
    batch = make_batch(tiny64, [told])
    assert not batch.exists.any() and Objective(tiny64, EVERYTHING).counts(batch)["alignment"] == 0
    assert torch.equal(Phase().fill(tiny64, batch)[0], batch.anchors)  # the clip's own features stand in the slots
    assert len(batch.anchors) == (2 * tiny64.spec.n_latents if turn is TWO else 0)


@pytest.mark.parametrize("phase", [Phase(), Phase("jacobi", 2), Phase("rollout")], ids=lambda p: p.kind)
def test_packed_rows_batches_and_single_rows_have_the_same_losses_and_gradients(tiny64, features, phase):
    objective, examples = Objective(tiny64, EVERYTHING), mixed(tiny64, features)
    weight = tiny64.text_model.layers[0].self_attn.k_proj.weight.requires_grad_(True)

    def summed(batches):
        totals, gradient = {}, 0
        for batch in batches:
            terms, _ = objective(batch, phase)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach()
            gradient = gradient + torch.autograd.grad(sum(terms.values()), weight)[0]
        return totals, gradient

    single = summed([make_batch(tiny64, [e]) for e in examples])
    halves = [make_batch(tiny64, examples[:3], [3]), make_batch(tiny64, examples[3:])]
    for batches in ([make_batch(tiny64, examples)], [make_batch(tiny64, examples, [1, 4])], halves):
        totals, gradient = summed(batches)
        for name, term in single[0].items():
            torch.testing.assert_close(totals[name], term, rtol=1e-6, atol=1e-6, msg=name)
        torch.testing.assert_close(gradient, single[1], rtol=1e-5, atol=1e-5)


def test_rows_are_filled_up_to_the_budget_and_no_sample_is_lost():
    order, packs = pack([50, 300, 120, 90, 700, 60], 400)
    assert sorted(order) == list(range(6)) and sum(packs) == 6
    lengths, start = [], 0
    for n in packs:
        lengths.append(sum([50, 300, 120, 90, 700, 60][i] for i in order[start : start + n]))
        start += n
    assert sorted(lengths) == [230, 390, 700]


def test_every_term_is_reached_and_pulls_on_the_language_model_alone(tiny64, features):
    objective = Objective(tiny64, EVERYTHING)
    tiny64.model.requires_grad_(False)
    tiny64.text_model.requires_grad_(True)
    try:
        losses = means(objective, make_batch(tiny64, mixed(tiny64, features)))
        groups = {"answer", "caption", "comparison", "narration", "text", "window"}
        assert set(losses) == {f"ce_{name}" for name in groups} | {"alignment", "alignment_first", "sync", "clock", "search"}
        assert not losses.pop("alignment_first").requires_grad and objective.weight("alignment_first") == 0
        weight = tiny64.text_model.layers[0].self_attn.q_proj.weight
        for name, loss in losses.items():
            assert torch.autograd.grad(loss, weight, retain_graph=True)[0].abs().max() > 0, name
        sum(losses.values()).backward()
        assert all(p.grad is None for p in (*tiny64.towers.visual.parameters(), *tiny64.towers.audio_tower.parameters()))
        assert objective.log_sharpness.grad.abs() > 0
    finally:
        tiny64.model.requires_grad_(True)
        tiny64.model.zero_grad(set_to_none=True)


def test_alignment_counts_what_the_clip_has_by_name_of_its_reduction(tiny64, features):
    """A sound-only clip has no visual anchors; whatever stands in their place does not count."""
    batch = make_batch(tiny64, [build_example(tiny64, features[2], [ONE, TWO], isolated=True)])
    assert batch.exists.tolist() == ([False] * 6 + [True] * 3) * 3
    changed = replace(batch, anchors=torch.where(batch.exists[:, None], batch.anchors, 99.0))
    hidden = tiny64.forward(batch.embeds(tiny64, batch.anchors), batch.positions, batch.mask)
    predicted = tiny64.latent(hidden[batch.latents[0], batch.latents[1]]).float()[batch.exists]
    squares = (predicted - batch.anchors[batch.exists]).square()
    cosine = 1 - F.cosine_similarity(predicted, batch.anchors[batch.exists])
    expected = {("mse", "mean"): squares.mean(), ("mse", "sum"): squares.sum(1).mean(), ("cosine", "mean"): cosine.mean()}
    for (kind, reduction), value in expected.items():
        objective = Objective(tiny64, LossSpec(alignment_kind=kind, alignment_reduction=reduction, sync=0.0))
        for each in (batch, changed):
            terms = objective.terms(hidden, each, [])
            torch.testing.assert_close(terms["alignment"] / objective.counts(each)["alignment"], value)


def test_first_latents_are_watched_apart_from_those_that_could_copy_them(tiny64, features):
    objective = Objective(tiny64, LossSpec(alignment_reduction="mean"))
    batch = make_batch(tiny64, [build_example(tiny64, f, [ONE, TWO], isolated=True) for f in (features[0], features[2])])
    hidden = tiny64.forward(batch.embeds(tiny64, batch.anchors), batch.positions, batch.mask)
    predicted = tiny64.latent(hidden[batch.latents[0], batch.latents[1]]).float()
    first = [0, 9, 18]  # of the blocks of nine of the clip with a picture; the other has no visual latents to speak of
    assert objective.counts(batch)["alignment_first"] == 3
    value = (predicted[first] - batch.anchors[first]).square().mean()
    torch.testing.assert_close(objective.terms(hidden, batch, [])["alignment_first"] / 3, value)


def test_synchrony_is_infonce_between_the_moments_of_one_sample(tiny64, features):
    """By hand, for a sample with two windows of three instants, one of them asked about twice, beside one without sound."""
    late = Segment(Window(2.0, 3.5), "buzz")
    turns = [ONE, Turn("And then?", Mode.LATENT, ("It buzzes.", late, "It is blue.")), ONE]
    batch = make_batch(tiny64, [build_example(tiny64, features[0], turns, isolated=True), build_example(tiny64, features[1], [ONE])])
    predicted = torch.randn(len(batch.anchors), 32, generator=torch.Generator().manual_seed(0))
    sharpness = torch.tensor(1.3, requires_grad=True)
    blocks = predicted[:27].view(3, 9, 32)
    visual, audio = blocks[:, :6].view(3, 3, 2, 32).sum(2), blocks[:, 6:]
    visual, audio = (torch.cat([x[0] + x[2], x[1]]) for x in (visual, audio))
    logits = F.normalize(visual, dim=1) @ F.normalize(audio, dim=1).T * sharpness.exp()
    rows, columns = logits.log_softmax(1).diagonal(), logits.log_softmax(0).diagonal()
    value = synchrony(predicted, batch, sharpness)
    torch.testing.assert_close(value, -(rows + columns).sum() / 2)
    assert Objective(tiny64, LossSpec()).counts(batch)["sync"] == 6
    assert torch.autograd.grad(value, sharpness)[0].abs() > 0


def test_a_batch_without_latents_has_no_latent_terms_to_divide_by(tiny64, features):
    objective = Objective(tiny64, EVERYTHING)
    batch = make_batch(tiny64, [build_example(tiny64, features[0], [DIRECT, ALOUD])])
    counts = objective.counts(batch)
    assert counts["alignment"] == counts["sync"] == 0
    terms, vectors = objective(batch, Phase("rollout"))
    assert terms["alignment"] == terms["sync"] == 0 and vectors.shape == (0, 32)


def test_presets_hold_the_numbers_of_the_paper_and_of_the_released_code():
    paper, upstream = PRESETS["paper"], PRESETS["upstream"]
    assert (paper.alignment, paper.alignment_reduction, paper.sync) == (0.005, "sum", 1.0)
    assert (upstream.alignment, upstream.alignment_reduction, upstream.sync) == (0.1, "mean", 1.0)
    assert 170 < paper.alignment / (upstream.alignment / 3584) < 190  # one weight for the sum, one for the mean over 3,584
    with pytest.raises(RequestError, match="mse or cosine"):
        LossSpec(alignment_kind="l1")
    assert LossSpec(groups={"window": 2.0}).weight("ce_window") == 2 and LossSpec().weight("ce_text") == 1
