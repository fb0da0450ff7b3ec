"""The reel of a recorded example: length, streams, what is written below the picture, and what is refused."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentomni.errors import MediaError, RequestError
from latentomni.media import probe, read_clip
from latentomni.runtime import clip_record
from latentomni.trace import Trace
from visualizers.captions import BAND_PX, WIDTH_PX, Caption, draw_answer, draw_band, fit_picture
from visualizers.reel import reel_parts, write_reel

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    return Trace.load(EXAMPLES / "1-colour.trace.zip")


def agreeing(block):
    """The block, with the matches of its first visual and its first audio latent in all of that kind."""
    firsts = {z.modality: z for z in reversed(block.latents)}
    return replace(block, latents=tuple(replace(z, matches=firsts[z.modality].matches, p_corrected=0.02) for z in block.latents))


def test_parts_are_the_window_and_the_moments_of_every_block(trace):
    parts = reel_parts(replace(trace, blocks=tuple(map(agreeing, trace.blocks))))
    assert [part.caption.headline for part in parts] == [
        "Block 1: stated window 1.0–3.0 s", "Pictures: most similar to 0.0–1.0 s, p 0.02", "Sounds: most similar to 4.0–5.0 s, p 0.02",
        "Block 2: stated window 3.0–5.0 s", "Pictures: most similar to 1.0–2.0 s, p 0.02", "Sounds: most similar to 5.0–6.0 s, p 0.02",
    ]  # fmt: skip
    assert parts[1].caption.detail == "4 of 4 visual latents of block 1"
    for part in parts:
        cited, played = part.caption.cited, part.played
        assert played.start_s <= cited.start_s and cited.end_s <= played.end_s and played.start_s >= 0 and played.end_s <= 6
        assert played.duration_s == max(cited.duration_s, 1.5)


def test_what_is_no_evidence_and_what_has_no_null_is_said(trace, events):
    doubtful = replace(trace, blocks=(replace(trace.blocks[0], latents=tuple(replace(z, p_corrected=0.4) for z in trace.blocks[0].latents)),))
    assert reel_parts(doubtful)[1].caption.detail == "1 of 4 visual latents of block 1, no evidence"
    assert "no null: ranks only" in reel_parts(Trace.from_events(events(null=False)))[1].caption.headline


def test_a_reel_has_the_length_of_its_parts_and_plays_in_a_browser(example, tmp_path):
    write_reel(example, EXAMPLES / "1-colour.mp4", tmp_path / "reel.mp4")
    info = probe(tmp_path / "reel.mp4")
    parts = reel_parts(example)
    assert info.duration_s == pytest.approx(sum(part.played.duration_s for part in parts) + 2.5, abs=0.15)
    assert (info.video_codec, info.audio_codec, info.width_px) == ("h264", "aac", WIDTH_PX)
    assert [path.name for path in tmp_path.iterdir()] == ["reel.mp4"]
    reel = read_clip(tmp_path / "reel.mp4", max_pixels=WIDTH_PX * 700)
    source = read_clip(EXAMPLES / "1-colour.mp4")
    first = round(parts[0].played.start_s * source.sample_fps)
    shown = fit_picture(source.frames[first]).astype(int)
    assert reel.frames[0].shape[0] == shown.shape[0] + BAND_PX
    assert np.abs(reel.frames[0][:-BAND_PX].astype(int) - shown).mean() < 6  # the picture, but for the codec
    written = draw_band(parts[0].caption, parts[0].played.start_s).astype(int)
    assert np.abs(reel.frames[0][-BAND_PX:].astype(int) - written).mean() < 6 < written.std()
    assert np.abs(reel.frames[0].astype(int) - reel.frames[-1]).mean() > 20  # the answer's card
    assert np.abs(reel.waveform).max() > 0.01


def test_a_sound_alone_gets_a_card(example, tmp_path):
    from moviepy import AudioFileClip

    with AudioFileClip(str(EXAMPLES / "1-colour.mp4")) as sound:
        sound.write_audiofile(str(tmp_path / "sound.wav"), logger=None)
    clip = clip_record(read_clip(tmp_path / "sound.wav"))
    block = example.blocks[0]
    heard = replace(example, clip=clip, blocks=(replace(block, latents=tuple(z for z in block.latents if z.modality == "audio")),))
    write_reel(heard, tmp_path / "sound.wav", tmp_path / "reel.mp4")
    info = probe(tmp_path / "reel.mp4")
    assert (info.video_codec, info.audio_codec, info.width_px) == ("h264", "aac", WIDTH_PX)
    assert info.duration_s == pytest.approx(sum(part.played.duration_s for part in reel_parts(heard)) + 2.5, abs=0.15)


def test_what_cannot_be_cut_is_refused_in_a_sentence(example, tmp_path):
    with pytest.raises(RequestError, match="direct mode has none"):
        write_reel(replace(example, mode="direct", blocks=()), EXAMPLES / "1-colour.mp4", tmp_path / "reel.mp4")
    with pytest.raises(RequestError, match=r"about 1-colour.mp4, and 2-shape.mp4 is missing or another"):
        write_reel(example, EXAMPLES / "2-shape.mp4", tmp_path / "reel.mp4")
    with pytest.raises(RequestError, match="missing"):
        write_reel(example, tmp_path / "nothing.mp4", tmp_path / "reel.mp4")
    shutil.copy(__file__, tmp_path / "text.mp4")
    broken = replace(example, clip=replace(example.clip, sha256=hashlib.sha256(Path(__file__).read_bytes()).hexdigest()))
    with pytest.raises(MediaError, match=r"text.mp4 cannot be opened"):
        write_reel(broken, tmp_path / "text.mp4", tmp_path / "reel.mp4")
    assert not (tmp_path / "reel.mp4").exists()


@pytest.mark.parametrize("size", [(16, 9), (90, 160), (448, 448), (1920, 1080), (7, 1000)])
def test_pictures_of_every_shape_fit(size):
    picture = fit_picture(np.full((size[1], size[0], 3), 200, np.uint8))
    assert picture.shape[1] == WIDTH_PX and picture.shape[0] <= 480 and picture.shape[0] % 2 == 0
    assert (picture == 200).all(axis=2).any()


def test_long_words_are_cut_not_run_over_the_edge(trace):
    caption = reel_parts(trace)[0].caption
    long = Caption("why " * 400, "x" * 4000, "“word” – " * 99, caption.cited, 6.0, "visual")
    band = draw_band(long, 99.0)
    assert band.shape == (BAND_PX, WIDTH_PX, 3)
    assert (band[:-40, -16:] == band[0, 0]).all()
    card = draw_answer("why " * 400, "so " * 900, np.zeros((120, WIDTH_PX, 3), np.uint8))
    assert card.shape == (120 + BAND_PX, WIDTH_PX, 3) and (card[:, -8:] == card[:, -1:]).all()
