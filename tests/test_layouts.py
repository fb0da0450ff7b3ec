"""Layouts: the published sizes to the parameter, padded vocabularies, seeded weights, and the rows that latent tokens take."""

import weakref

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from latentomni import checkpoints, layouts
from latentomni.config import LatentSpec, VideoSpec
from latentomni.modeling import LATENT_TOKENS

SIZES = (*layouts.OMNI_SIZES, "nano", "tiny")


def weights(thinker):
    return {**thinker.model.state_dict(), **{f"head.{k}": v for k, v in thinker.head.state_dict().items()}}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "size, text, head, audio, vision",
    [
        ("qwen2.5-omni-7b", 7_070_619_136, 544_997_376, 639_647_232, 676_550_144),
        ("qwen2.5-omni-3b", 3_085_938_688, 311_164_928, 637_676_544, 668_684_288),
        ("qwen2.5-omni-0.1b", 62_019_072, 16_384_000, 3_586_560, 5_050_496),
    ],
)
def test_true_layouts_are_built_without_memory(tokenizer, size, text, head, audio, vision):
    thinker = layouts.build(size, tokenizer, seed=0, device="meta", dtype=torch.bfloat16)
    towers = thinker.towers
    parts = (thinker.text_model, thinker.model.lm_head, towers.audio_tower, towers.visual)
    assert tuple(map(parameters, parts)) == (text, head, audio, vision)
    assert parameters(thinker.model) == text + head + audio + vision
    assert {p.device.type for p in thinker.model.parameters()} == {"meta"}
    assert thinker.dtype == torch.bfloat16
    assert (thinker.spec, thinker.video, thinker.head, thinker.weights) == (LatentSpec(), VideoSpec(), None, "random")
    assert thinker.mel.feature_size == 128


@pytest.mark.parametrize("size", SIZES)
def test_a_layout_fits_together(tokenizer, size):
    config = layouts.layout(size, tokenizer)
    text = config.text_config
    assert 2 * sum(text.rope_parameters["mrope_section"]) == text.hidden_size // text.num_attention_heads
    assert config.vision_config.out_hidden_size == config.audio_config.output_dim == text.hidden_size
    assert config.vision_config.fullatt_block_indexes[-1] == config.vision_config.depth - 1
    assert not text.tie_word_embeddings and not config.tie_word_embeddings
    rows = {"qwen2.5-omni-7b": 152_064, "qwen2.5-omni-3b": 151_936, "qwen2.5-omni-0.1b": 32_000}
    assert text.vocab_size == rows.get(size, len(tokenizer))
    ids = (config.audio_token_index, config.video_token_index, config.vision_start_token_id, config.audio_end_token_id)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|AUDIO|>", "<|VIDEO|>", "<|vision_bos|>", "<|audio_eos|>"]


def test_published_layouts_have_the_published_positions(tokenizer):
    for size in layouts.OMNI_SIZES[:2]:
        rope = layouts.layout(size, tokenizer).text_config.rope_parameters
        assert (rope["rope_theta"], rope["mrope_section"]) == (1_000_000.0, [16, 24, 24])


def test_same_seed_same_weights_and_the_callers_random_state_is_left_alone(tiny, tokenizer):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    again = layouts.build("tiny", tokenizer, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(weights(tiny).values(), weights(again).values(), strict=True))
    other = layouts.build("tiny", tokenizer, seed=1)
    assert not torch.equal(other.model.lm_head.weight, tiny.model.lm_head.weight)


def test_only_the_stock_model_is_built_in_half_precision(tokenizer):
    thinker = layouts.build("tiny", tokenizer, seed=0, dtype=torch.bfloat16)
    assert {p.dtype for p in thinker.model.parameters()} == {torch.bfloat16}
    assert thinker.head.weight.dtype == torch.float32


@torch.no_grad()
def test_random_weights_are_the_same_quantised_and_then_made_one_after_the_other(monkeypatch):
    """So that a layout is tried in four bits where it has no room in full."""
    drawn, alive, read = [], [], layouts._Drawn.__getitem__

    def watched(self, whole):
        weight = read(self, whole)
        drawn.append(weakref.ref(weight))
        alive.append(sum(ref() is not None for ref in drawn))
        return weight

    name = "random:qwen2.5-omni-0.1b"
    plain = dict(checkpoints.load(name, device="cpu").model.named_modules())
    monkeypatch.setattr(layouts._Drawn, "__getitem__", watched)
    quantised = dict(checkpoints.load(name, device="cpu", quantization="nf4").model.named_modules())
    parts = {name: module for name, module in plain.items() if isinstance(module, torch.nn.Linear)}
    changed = [name for name, module in parts.items() if type(quantised[name]) is not torch.nn.Linear]
    assert len(changed) == 12 * 7 and len(drawn) == sum(1 for module in plain.values() for _ in module.parameters(recurse=False))
    assert max(alive) <= len(drawn) - len(changed) + 1  # what is quantised is gone before the next is made
    for name, module in parts.items():
        x = torch.randn(3, module.in_features, generator=torch.Generator().manual_seed(0))
        error = (quantised[name](x) - module(x)).norm() / module(x).norm()
        assert 0 < error < 0.12 if name in changed else error == 0, name


def published(*absent):
    """A tokenizer of words without the latent tokens."""
    words = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|IMAGE|>", "<|AUDIO|>", "<|VIDEO|>", "<|vision_bos|>",
             "<|vision_eos|>", "<|audio_bos|>", "<|audio_eos|>", "a", "b")  # fmt: skip
    vocab = {word: i for i, word in enumerate(word for word in words if word not in absent)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="a")))


def test_latent_tokens_take_the_next_rows_in_the_authors_order():
    tokenizer, (trigger, close, pad) = published(), LATENT_TOKENS
    layouts.add_latent_tokens(tokenizer, vocab_size=15)
    assert tokenizer.convert_tokens_to_ids([pad, trigger, close]) == [12, 13, 14]
    assert tokenizer(trigger)["input_ids"] == [13]
    assert tokenizer.decode([13, 10], skip_special_tokens=True) == "a"
    layouts.add_latent_tokens(tokenizer, vocab_size=15)  # one that has them keeps them
    assert len(tokenizer) == 15


def test_a_tokenizer_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="14 rows has no room for the 15 tokens"):
        layouts.add_latent_tokens(published(), vocab_size=14)
    with pytest.raises(ValueError, match=r"lacks <\|AUDIO\|>, <\|audio_bos\|>$"):
        layouts.add_latent_tokens(published("<|AUDIO|>", "<|audio_bos|>"), vocab_size=20)
