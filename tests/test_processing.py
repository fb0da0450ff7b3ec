"""Patches equal the library's, sizes keep their bounds, and the prompt is laid out as it was taught."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from latentomni.attention_flow import Kind
from latentomni.config import Mode, VideoSpec
from latentomni.errors import RequestError
from latentomni.processing import MAX_QUESTION_CHARS, add_question, check_question, new_sequence, patchify, resized_size

SPECS = [VideoSpec(), VideoSpec(min_pixels=128 * 28 * 28, max_pixels=768 * 28 * 28)]


def sizes(count=4000):
    """Heights and widths from one pixel up, most of any shape, some very long."""
    draw = random.Random(0)
    return [(round(2 ** draw.uniform(0, 13)), round(2 ** draw.uniform(0, 13))) for _ in range(count)]


@pytest.mark.parametrize("spec", SPECS)
def test_sizes_are_whole_patches_within_the_bounds(spec):
    for height, width in sizes():
        rows, columns = resized_size(height, width, spec)
        assert rows % 28 == columns % 28 == 0 and min(rows, columns) >= 28
        assert rows * columns <= spec.max_pixels, (height, width)
        assert resized_size(width, height, spec) == (columns, rows)
        assert resized_size(rows, columns, spec) == (rows, columns) or rows * columns < spec.min_pixels
        if max(height, width) < 8 * min(height, width):
            assert rows * columns >= spec.min_pixels, (height, width)
            assert abs(math.log(rows / columns * width / height)) < math.log(2.1)


@pytest.mark.parametrize("spec", SPECS)
def test_sizes_equal_the_librarys(spec):
    for height, width in sizes():
        if min(height, width) >= 28 and max(height, width) <= 200 * min(height, width):
            assert resized_size(height, width, spec) == smart_resize(
                height, width, 28, spec.min_pixels, spec.max_pixels
            )


def frames(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def library_picture(frame, spec):
    """The library's patches of one picture: what two equal frames give."""
    out = Qwen2VLImageProcessorPil(size={"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels})(
        Image.fromarray(frame), return_tensors="pt"
    )
    return out["pixel_values"], tuple(out["image_grid_thw"][0].tolist())


@pytest.mark.parametrize("height, width", [(56, 56), (84, 140), (448, 252)])
def test_patches_of_still_frames_equal_the_librarys(height, width):
    spec = VideoSpec()
    for frame in frames(3, height, width):
        ours, grid = patchify(np.stack([frame, frame]), spec)
        theirs, their_grid = library_picture(frame, spec)
        assert grid == their_grid == (1, height // 14, width // 14)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("height, width", [(100, 180), (30, 45), (700, 500)])
def test_resizing_equals_the_librarys_within_a_grey_level(height, width):
    frame = np.asarray(Image.fromarray(frames(1, 9, 7)[0]).resize((width, height)))
    ours, grid = patchify(np.stack([frame, frame]), VideoSpec())
    theirs, their_grid = library_picture(frame, VideoSpec())
    assert grid == their_grid
    assert (ours - theirs).abs().max() * 0.26 * 255 < 1.5


def test_patches_of_moving_frames_equal_the_librarys_video_processor():
    pytest.importorskip("torchvision")
    from transformers import Qwen2VLVideoProcessor

    clip = frames(5, 84, 140)
    out = Qwen2VLVideoProcessor()(videos=[clip], do_resize=False, do_sample_frames=False, return_tensors="pt")
    ours, grid = patchify(clip, VideoSpec())
    assert grid == tuple(out["video_grid_thw"][0].tolist())
    torch.testing.assert_close(ours, out["pixel_values_videos"], rtol=0, atol=1e-6)


def test_each_patch_holds_its_own_place_and_time():
    """Frame f, row r and column c are written into the pixels and read back from the patches, merge by merge."""
    clip = np.zeros((3, 56, 84, 3), np.uint8)
    for f in range(3):
        for r in range(4):
            for c in range(6):
                clip[f, 14 * r : 14 * r + 14, 14 * c : 14 * c + 14] = (50 * f, 10 * r, 10 * c)
    patches, grid = patchify(clip, VideoSpec())
    assert grid == (2, 4, 6)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    levels = (patches.view(2, 2, 3, 2, 2, 3, 2, 14, 14).mean((-2, -1)) * std[:, None] + mean[:, None]) * 255
    for t in range(2):
        for r in range(4):
            for c in range(6):
                expected = torch.tensor([[50.0 * min(2 * t + k, 2), 10 * r, 10 * c] for k in (0, 1)]).T
                torch.testing.assert_close(levels[t, r // 2, c // 2, r % 2, c % 2], expected, rtol=0, atol=1e-3)


def prompt(thinker, row):
    return thinker.tokenizer.decode([t for t, kind in zip(row.token_ids, row.kinds, strict=True) if kind != Kind.MEDIA])


@pytest.mark.parametrize("mode, instruction", [(Mode.LATENT, ""), (Mode.DIRECT, " Answer directly.")])
def test_the_prompt_is_clip_question_and_the_assistants_turn(tiny, make_clip, mode, instruction):
    row = new_sequence(tiny.encode_clip(make_clip(0, 2.0)), tiny.spec, tiny.ids, tiny.encode_text)
    add_question(row, "  What\nis seen? ", mode, tiny.encode_text)
    start, end = "<|im_start|>", "<|im_end|>"
    assert prompt(tiny, row) == f"{start}user\nWhat is seen?{instruction}{end}\n{start}assistant\n"
    assert str(row.flow) == ("open" if mode is Mode.DIRECT else "strict")
    assert tiny.tokenizer.decode(row.question_ids) == "What is seen?"


def test_media_tokens_take_their_features_in_order_of_time(tiny, make_clip):
    features = tiny.encode_clip(make_clip(0, 5.0))
    row = new_sequence(features, tiny.spec, tiny.ids, tiny.encode_text)
    cells = math.prod(features.grid)
    sources = [s for s, kind in zip(row.sources, row.kinds, strict=True) if kind == Kind.MEDIA and s >= 0]
    assert sorted(sources) == list(range(len(features.vectors)))
    spans = [(s // cells) // 2 if s < len(features.visual) else (s - len(features.visual)) // 50 for s in sources]
    assert spans == sorted(spans)  # chunks of two seconds
    assert sources[: 2 * cells + 1] == [*range(2 * cells), len(features.visual)]
    embeds = tiny.embed_rows([row], torch.tensor([row.token_ids]))[0]
    media = [i for i, kind in enumerate(row.kinds) if kind == Kind.MEDIA and row.sources[i] >= 0]
    assert torch.equal(embeds[media], features.vectors[sources])
    others = [i for i in range(len(row)) if i not in media]
    assert torch.equal(embeds[others], tiny.embed(torch.tensor([row.token_ids[i] for i in others])))


def test_layout_tokens_typed_into_a_question_are_words(tiny, make_clip):
    row = new_sequence(tiny.encode_clip(make_clip(0, 1.0)), tiny.spec, tiny.ids, tiny.encode_text)
    start = len(row)
    add_question(row, "Is <|VIDEO|> in <Unified_Latent>?", Mode.LATENT, tiny.encode_text)
    assert set(row.kinds[start:]) == {Kind.TEXT}
    assert set(row.sources[start:]) == {-1}


@pytest.mark.parametrize("question", ["", "  \n\t", "\x00\x1b"])
def test_an_empty_question_is_refused(question):
    with pytest.raises(RequestError, match="empty"):
        check_question(question)


@pytest.mark.parametrize("question", [None, 7, ["What?"], {"text": "What?"}, b"What?"])
def test_a_question_is_text(question):
    with pytest.raises(RequestError, match=r"A question is text, got .*; type it in words"):
        check_question(question)


def test_questions_are_cleaned_and_bounded():
    assert check_question(" What\x00is \n seen? ") == "What is seen?"
    assert check_question("何が見えますか?") == "何が見えますか?"
    assert check_question("x" * MAX_QUESTION_CHARS)
    with pytest.raises(RequestError, match="2001 characters; at most 2000"):
        check_question("x" * (MAX_QUESTION_CHARS + 1))
