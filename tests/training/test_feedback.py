"""Training reads what generation writes: same tokens, same hidden states; self-fed latents are those of decoding."""

from dataclasses import fields, replace

import pytest
import torch

from latentomni.attention_flow import Kind, Layout, attention_mask
from latentomni.avworld.questions import Question
from latentomni.clock import Window
from latentomni.config import AttentionFlow, Mode, SamplingSpec
from latentomni.generation import generate
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import collate
from latentomni.training.examples import build_example
from latentomni.training.losses import batch_losses, make_batch, self_fed_latents


def question(text, window, closing, lead="The bell rings in "):
    values = dict.fromkeys([f.name for f in fields(Question)], 0.5)
    return Question(**values | {"text": text, "window": window, "lead": lead, "closing": closing})


QUESTIONS = [
    question("What is seen while the bell rings?", Window(0.0, 2.0), " The object is red."),
    question("Which sound plays?", Window(1.5, 3.0), " It is a buzz.", lead="From "),
    question("Where is the red circle while the bell rings?", Window(2.0, 4.0), " It is at the top left."),
]


@pytest.fixture(scope="module", params=list(AttentionFlow))
def thinker(request, tiny64):
    return replace(tiny64, spec=replace(tiny64.spec, flow=request.param))


@pytest.fixture(scope="module")
def clips(tiny64, make_clip):
    return [
        tiny64.encode_clip(clip)
        for clip in (make_clip(0), make_clip(1, 3.0, sound=False), make_clip(2, 4.0, picture=False))
    ]


def generated(thinker, clip, asked, mode, forced):
    """The row that generation makes where it says what the training example says."""
    text = thinker.encode_text
    row = new_sequence(clip, thinker.spec, thinker.ids, text)
    add_question(row, asked.text, mode, text)
    said = [*text(asked.closing), thinker.ids.end_of_turn]
    if mode is Mode.LATENT:
        said = [*text(asked.lead), thinker.ids.trigger, *text(str(asked.window)), *said]
    with forced(thinker, said):
        list(generate(thinker, [row], [mode], SamplingSpec(max_new_tokens=64)))
    return row


def places(example, row=0):
    """(n,) predictors of a row, text then latents."""
    return [i for i, _, _ in example.text_targets] + [i for i, _ in example.latent_targets]


@torch.no_grad()
@pytest.mark.parametrize("mode", Mode)
def test_the_training_forward_equals_generation_on_the_same_tokens(thinker, clips, forced, mode):
    latent, direct = (QUESTIONS[:1], []) if mode is Mode.LATENT else ([], QUESTIONS[:1])
    example = build_example(thinker, clips[0], latent, direct, None)
    row = generated(thinker, clips[0], QUESTIONS[0], mode, forced)
    trained = example.sequence
    for name in ("token_ids", "kinds", "blocks", "turns", "flows", "sources", "positions", "windows"):
        assert getattr(row, name) == getattr(trained, name), name
    batch = make_batch(thinker, [example])
    (_, positions, layout), own = collate([row]), torch.stack(row.latents) if row.latents else torch.zeros(0, 32)
    assert torch.equal(batch.mask, attention_mask(layout, layout))
    assert torch.equal(batch.positions, positions)
    embeds = batch.embeds.index_put((batch.latents[0], batch.latents[2]), own.to(batch.embeds.dtype))
    hidden = thinker.forward(embeds, batch.positions, batch.mask)
    torch.testing.assert_close(hidden, thinker.full([row]), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        thinker.latent(hidden[batch.latents[0], batch.latents[1]]), own.to(hidden.dtype), rtol=0, atol=1e-9
    )


@torch.no_grad()
def test_a_packed_row_equals_each_question_alone(thinker, clips):
    parts = [
        (QUESTIONS[:1], [], None),
        (QUESTIONS[1:2], [], None),
        ([], QUESTIONS[2:], None),
        ([], [], "A red circle."),
    ]
    packed = build_example(thinker, clips[0], QUESTIONS[:2], QUESTIONS[2:], "A red circle.")
    alone = [build_example(thinker, clips[0], *part) for part in parts]
    together = make_batch(thinker, [packed])
    hidden = thinker.forward(together.embeds, together.positions, together.mask)
    text, latents = iter(range(together.text.shape[1])), iter(range(together.latents.shape[1]))
    for example in alone:
        batch = make_batch(thinker, [example])
        own = thinker.forward(batch.embeds, batch.positions, batch.mask)
        for targets, numbers, everything in (
            (batch.text, text, together.text),
            (batch.latents, latents, together.latents),
        ):
            chosen = everything[:, [next(numbers) for _ in range(targets.shape[1])]]
            torch.testing.assert_close(hidden[chosen[0], chosen[1]], own[targets[0], targets[1]], rtol=0, atol=1e-9)
            assert torch.equal(together.positions[:, 0, chosen[1]], batch.positions[:, 0, targets[1]])
    assert next(text, None) is next(latents, None) is None


@torch.no_grad()
def test_jacobi_passes_converge_to_sequential_feedback(thinker, clips, forced):
    """Rows of unlike length with one, two and three questions: after t passes the first t latents of every block are
    those of decoding, after K passes all are; not one pass earlier."""
    examples = [build_example(thinker, clip, QUESTIONS[: n + 1], QUESTIONS[:n], None) for n, clip in enumerate(clips)]
    batch = make_batch(thinker, examples)
    k = thinker.spec.n_latents
    rows = [
        generated(thinker, clip, asked, Mode.LATENT, forced)
        for n, clip in enumerate(clips)
        for asked in QUESTIONS[: n + 1]
    ]
    sequential = torch.stack([torch.stack(row.latents) for row in rows])
    assert sequential.shape == (6, k, 32)
    for passes in range(1, k + 1):
        fed = self_fed_latents(thinker, batch, passes).view(6, k, -1)
        torch.testing.assert_close(fed[:, :passes], sequential[:, :passes], rtol=0, atol=1e-9)
        if passes < k:
            assert ((fed[:, passes] - sequential[:, passes]).abs().amax(-1) > 1e-6).all()


def test_everything_said_is_supervised_and_nothing_else(tiny64, clips):
    example = build_example(tiny64, clips[0], QUESTIONS[:2], QUESTIONS[2:], "A red circle.")
    row, ids = example.sequence, tiny64.ids
    assert all(row.token_ids[i + 1] == token for i, token, _ in example.text_targets)
    assert [j - i for i, j in example.latent_targets] == [1] * (2 * 9)
    assert [row.kinds[j] for _, j in example.latent_targets] == [Kind.LATENT] * (2 * 9)
    supervised = {i + 1 for i, _, _ in example.text_targets}
    answers = [i for i in range(len(row)) if i in supervised or row.kinds[i] not in (Kind.TEXT, Kind.MEDIA)]
    for i in answers:
        assert (i in supervised) == (row.kinds[i] in (Kind.TEXT, Kind.TRIGGER, Kind.WINDOW))
    assert {row.token_ids[i] for i in supervised}.isdisjoint({ids.close, ids.latent_pad, ids.video, ids.audio})
    said = tiny64.tokenizer.decode([token for _, token, group in example.text_targets if group == "answer"])
    assert said == "".join(q.closing + "<|im_end|>" for q in QUESTIONS)
    windows = tiny64.tokenizer.decode([token for _, token, group in example.text_targets if group == "window"])
    assert windows == "[0.0-2.0 s][1.5-3.0 s]"


def test_losses_pull_on_the_model_and_skip_what_a_clip_lacks(tiny64, clips):
    """A sound-only clip has no visual anchors; whatever stands in their place does not count."""
    batch = make_batch(tiny64, [build_example(tiny64, clips[2], QUESTIONS[:2], [], None)])
    assert batch.exists.tolist() == ([False] * 6 + [True] * 3) * 2
    losses = batch_losses(tiny64, batch, batch.anchors)
    assert {"ce_text", "ce_window", "ce_answer", "alignment"} == set(losses)
    changed = replace(batch, anchors=torch.where(batch.exists[:, None], batch.anchors, 99.0))
    assert torch.equal(batch_losses(tiny64, changed, batch.anchors)["alignment"], losses["alignment"])
    predicted = tiny64.latent(
        tiny64.forward(batch.embeds, batch.positions, batch.mask)[batch.latents[0], batch.latents[1]]
    )
    expected = (predicted - batch.anchors)[batch.exists].square().mean()
    torch.testing.assert_close(losses["alignment"], expected.float())
    weight = tiny64.text_model.layers[0].self_attn.q_proj.weight
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        assert gradient.abs().max() > 0, name
    assert not batch.anchors.requires_grad
    assert not self_fed_latents(tiny64, batch, 2).requires_grad


def test_padding_between_rows_changes_no_loss(tiny64, clips):
    """Two unlike rows in a batch: the sum of their targets' losses is that of each alone."""
    examples = [build_example(tiny64, clip, QUESTIONS[: n + 1], [], None) for n, clip in enumerate(clips[:2])]
    together = make_batch(tiny64, examples)
    hidden = tiny64.forward(together.embeds, together.positions, together.mask)
    for b, example in enumerate(examples):
        single = make_batch(tiny64, [example])
        own = tiny64.forward(single.embeds, single.positions, single.mask)[0]
        torch.testing.assert_close(hidden[b, : len(example.sequence)], own, rtol=0, atol=1e-9)
    parts = Layout(*(getattr(together.layout, f.name)[1:] for f in fields(Layout)))
    assert torch.equal(together.mask[1:], attention_mask(parts, parts, packed=True))
