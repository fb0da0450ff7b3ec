"""The controlled attention flow: the mask on toy ids, and what it keeps from the answer in a running model."""

from dataclasses import replace

import pytest
import torch

from latentomni.attention_flow import FLOW_CODES, Kind, Layout, attention_mask
from latentomni.clock import Window
from latentomni.config import AttentionFlow, Mode
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import collate

KINDS = {
    "t": Kind.TEXT,
    "m": Kind.MEDIA,
    "T": Kind.TRIGGER,
    "E": Kind.ECHO,
    "W": Kind.WINDOW,
    "L": Kind.LATENT,
    "-": Kind.PAD,
}


def toy(kinds, blocks, turns, flow):
    """A row from three strings of one character a token; flow: one, or one for every turn. Turns a, b are asked apart."""
    flows = {str(turn): f for turn, f in enumerate(flow)} if isinstance(flow, list) else dict.fromkeys("01234ab", flow)
    fields = (
        range(len(kinds)),
        [int(KINDS[c]) for c in kinds],
        [-1 if c == "." else int(c) for c in blocks],
        [int(c) if c.isdigit() else ord("a") - ord(c) - 1 for c in turns],
        [FLOW_CODES[flows[c]] for c in turns],
        [0] * len(kinds),
    )
    return Layout(*(torch.tensor([[*values]]) for values in fields))


def seen(layout):
    """One string a query: "x" for every key that it may see."""
    return ["".join("x" if v else "." for v in row) for row in attention_mask(layout, layout)[0].tolist()]


ONE_TURN = ("tmmtTEWLtTWLt", "....0000.111.", "0001111111111")


def test_open_is_causal():
    layout = toy(*ONE_TURN, AttentionFlow.OPEN)
    assert seen(layout) == ["x" * (i + 1) + "." * (12 - i) for i in range(13)]


def test_paper_hides_media_from_text_after_the_first_trigger():
    assert seen(toy(*ONE_TURN, AttentionFlow.PAPER)) == [
        "x............",
        "xx...........",
        "xxx..........",
        "xxxx.........",  # the question still sees
        "xxxxx........",
        "xxxxxx.......",
        "xxxxxxx......",
        "xxxxxxxx.....",
        "x..xxxxxx....",  # text does not any more
        "xxxxxxxxxx...",
        "xxxxxxxxxxx..",
        "xxxxxxxxxxxx.",
        "x..xxxxxxxxxx",
    ]


def test_strict_leaves_the_latents_as_the_only_road():
    assert seen(toy(*ONE_TURN, AttentionFlow.STRICT)) == [
        "x............",
        "xx...........",
        "xxx..........",
        "x..x.........",  # the question
        "xxxxx........",  # trigger
        "xxxxxx.......",  # echo
        "xxxxxxx......",  # window
        "xxxxxxxx.....",  # latent
        "x..x...xx....",  # text: latents yes; trigger, echo and window no
        "xxxx...xxx...",  # the second block sees the media and the first block's latents
        "xxxx...xxxx..",
        "xxxx...xxxxx.",
        "x..x...xx..xx",
    ]


TWO_TURNS = ("mtTWLtt", "..000..", "0111122")


@pytest.mark.parametrize("flow", [AttentionFlow.STRICT, AttentionFlow.OPEN, AttentionFlow.PAPER])
def test_a_strict_block_stays_closed_in_a_later_turn_of_any_flow(flow):
    rows = seen(toy(*TWO_TURNS, [AttentionFlow.STRICT, AttentionFlow.STRICT, flow]))
    media = "." if flow is AttentionFlow.STRICT else "x"
    assert rows[5:] == [f"{media}x..xx.", f"{media}x..xxx"]


def test_paper_counts_triggers_of_its_own_turn_only():
    rows = seen(toy(*TWO_TURNS, AttentionFlow.PAPER))
    assert rows[5:] == ["xxxxxx.", "xxxxxxx"]


def test_turns_asked_apart_are_blind_to_one_another():
    rows = seen(toy("mtTWLttTWLt", "..000..111.", "0aaaaabbbbb", AttentionFlow.STRICT))
    assert rows[6:] == [
        ".." + "...." + "x....",
        "x....." + "xx...",
        "x....." + "xxx..",
        "x....." + "xxxx.",
        "......x..xx",
    ]


def test_samples_of_a_packed_row_are_blind_to_one_another():
    for flow in AttentionFlow:
        alone = toy(*ONE_TURN, flow)
        twice = Layout(*(torch.cat([x, x], 1) for x in vars(alone).values()))
        twice = replace(twice, order=torch.arange(26)[None], sample=torch.arange(26)[None] // 13)
        one, both = attention_mask(alone, alone)[0], attention_mask(twice, twice)[0]
        assert torch.equal(both, torch.block_diag(one, one).bool())


def test_padding_is_never_seen_and_no_query_is_without_a_key():
    layout = toy("m-t-", "....", "0010", AttentionFlow.STRICT)
    rows = seen(layout)
    assert [rows[0], rows[2]] == ["x...", "..x."]
    assert rows[1][1] == rows[3][3] == "x"


def test_rows_of_a_batch_follow_their_own_flow():
    layouts = [toy(*ONE_TURN, flow) for flow in AttentionFlow]
    batch = Layout(*(torch.cat(parts) for parts in zip(*(vars(x).values() for x in layouts), strict=True)))
    together = attention_mask(batch, batch)
    assert all(torch.equal(together[i], attention_mask(x, x)[0]) for i, x in enumerate(layouts))


def test_queries_of_a_slice_see_as_in_the_whole():
    layout = toy(*ONE_TURN, AttentionFlow.STRICT)
    whole = attention_mask(layout, layout)
    assert torch.equal(attention_mask(layout.slice(4, 9), layout), whole[:, 4:9])
    index = torch.tensor([[3, 7, 12]])
    assert torch.equal(attention_mask(layout.select(index), layout), whole[:, [3, 7, 12]])


def answered(thinker, clip, flow):
    """A row with two blocks and an answer, the same tokens for every clip; its latents are fed back one by one."""
    row = new_sequence(thinker.encode_clip(clip), thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, "What is seen while the bell rings?", Mode.LATENT, thinker.encode_text)
    row.flow = flow
    row.flows = [FLOW_CODES[flow]] * len(row)
    for text in ("From ", " and "):
        row.add_text(thinker.encode_text(text))
        row.open_block()
        row.add_window_tokens(thinker.encode_text("[1.0-3.0 s]"))
        first = len(row)
        row.add_latents(Window(1.0, 3.0))
        for k in range(row.spec.n_latents):
            row.latents.append(thinker.latent(thinker.full([row])[0, first + k - 1]))
        row.close_block()
    row.add_text(thinker.encode_text(" a red circle."))
    return row


def answer_logits(thinker, row, *, cut):
    """(n, V) logits of all text behind the first block; cut: with the edges from latents to text removed."""
    ids, positions, layout = collate([row])
    mask = attention_mask(layout, layout)
    if cut:
        mask &= ~((layout.kind == Kind.TEXT)[:, :, None] & (layout.kind == Kind.LATENT)[:, None, :])
    hidden = thinker.forward(thinker.embed_rows([row], ids), positions, mask)
    after = row.kinds.index(Kind.LATENT)
    return thinker.logits(hidden[0, [i for i in range(after, len(row)) if row.kinds[i] == Kind.TEXT]])


@torch.no_grad()
def test_under_strict_the_answer_hangs_on_the_latents_alone(tiny64, make_clip):
    rows = [answered(tiny64, make_clip(seed), AttentionFlow.STRICT) for seed in (0, 1)]
    assert rows[0].token_ids == rows[1].token_ids
    assert torch.equal(*(answer_logits(tiny64, row, cut=True) for row in rows))
    difference = (answer_logits(tiny64, rows[0], cut=False) - answer_logits(tiny64, rows[1], cut=False)).abs()
    assert difference.max(1).values.min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("flow", [AttentionFlow.PAPER, AttentionFlow.OPEN])
def test_under_the_other_flows_there_are_other_roads(tiny64, make_clip, flow):
    rows = [answered(tiny64, make_clip(seed), flow) for seed in (0, 1)]
    assert not torch.equal(*(answer_logits(tiny64, row, cut=True) for row in rows))
