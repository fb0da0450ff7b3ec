"""The cache of features: towers run once a clip, and again exactly where what they would say has changed."""

import logging
import os
import shutil
import wave
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentomni import checkpoints
from latentomni.errors import MediaError, RequestError
from latentomni.media import read_clip
from latentomni.training.features import FeatureCache

CLIPS = sorted((Path(__file__).parents[2] / "examples").glob("*.mp4"))[:2]


@pytest.fixture
def thinker(tokenizer):
    return checkpoints.build("tiny", tokenizer, seed=0)


@contextmanager
def tower_runs(thinker):
    """A list that grows by one with every run of either tower."""
    runs = []
    hooks = [tower.register_forward_hook(lambda *_: runs.append(1)) for tower in (thinker.towers.visual, thinker.towers.audio_tower)]
    yield runs
    for hook in hooks:
        hook.remove()


def assert_same(a, b):
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, torch.Tensor):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)
        elif isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y)
        else:
            assert x == y


def test_a_second_read_runs_no_tower(thinker, tmp_path):
    expected = thinker.encode_clip(read_clip(CLIPS[0], fps=thinker.video.fps))
    with tower_runs(thinker) as runs:
        cache = FeatureCache(tmp_path / "cache", thinker)
        made = cache.features(CLIPS[0])
        assert len(runs) == 2
        for again in (cache, FeatureCache(tmp_path / "cache", thinker)):
            assert_same(again.features(str(CLIPS[0])), made)
        assert len(runs) == 2
        cache.features(CLIPS[1])
        assert len(runs) == 4
    assert_same(made, expected)
    files = list((tmp_path / "cache").iterdir())
    assert [file.suffix for file in files] == [".safetensors"] * 2
    assert cache.size_bytes == sum(file.stat().st_size for file in files) > 0


def test_a_clip_is_known_by_its_bytes(thinker, tmp_path):
    cache, file = FeatureCache(tmp_path / "cache", thinker), tmp_path / "clip.mp4"
    with tower_runs(thinker) as runs:
        first = cache.features(CLIPS[0])
        shutil.copy(CLIPS[0], file)
        assert_same(cache.features(file), first)
        assert len(runs) == 2
        shutil.copy(CLIPS[1], file)
        os.utime(file, ns=(1, 1))
        assert_same(cache.features(file), cache.features(CLIPS[1]))
        assert len(runs) == 4


def change_weight(thinker):
    with torch.no_grad():
        next(thinker.towers.audio_tower.parameters()).view(-1)[0] += 1e-3


def change_video(thinker):
    thinker.video = replace(thinker.video, fps=1.0)


def change_head(thinker):
    with torch.no_grad():
        thinker.head.weight += 1


@pytest.mark.parametrize(
    ("change", "runs_again"), [(change_weight, True), (change_video, True), (lambda thinker: None, False), (change_head, False)]
)
def test_what_towers_would_say_otherwise_is_encoded_again(change, runs_again, thinker, tmp_path):
    FeatureCache(tmp_path, thinker).features(CLIPS[0])
    change(thinker)
    with tower_runs(thinker) as runs:
        features = FeatureCache(tmp_path, thinker).features(CLIPS[0])
        assert bool(runs) == runs_again
    assert_same(features, thinker.encode_clip(read_clip(CLIPS[0], fps=thinker.video.fps)))


def test_number_format_and_mel_bands_are_part_of_the_name(thinker, tmp_path):
    made = FeatureCache(tmp_path, thinker).features(CLIPS[0])
    cache = FeatureCache(tmp_path, thinker, torch.float16)
    half = cache.features(CLIPS[0])
    assert torch.equal(half.visual, made.visual.half())
    assert torch.equal(half.audio, made.audio.half())
    assert_same(cache.features(CLIPS[0]), half)
    assert len(list(tmp_path.iterdir())) == 2
    thinker.mel = type(thinker.mel)(feature_size=thinker.mel.feature_size + 1)
    with tower_runs(thinker), pytest.raises(RuntimeError, match="channels"):  # asked again, the tower refuses
        FeatureCache(tmp_path, thinker).features(CLIPS[0])


def test_a_clip_without_a_picture_is_kept_too(thinker, tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(np.random.default_rng(0).integers(-9999, 9999, 16_000).astype("<i2").tobytes())
    cache = FeatureCache(tmp_path / "cache", thinker)
    made = cache.features(tmp_path / "a.wav")
    assert (len(made.visual), len(made.audio)) == (0, 50)
    assert_same(cache.features(tmp_path / "a.wav"), made)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file):
    file.write_bytes(b"")


def replace_by_other(file):
    save_file({"visual": torch.zeros(2, 3)}, file)


def lose_a_row(file):
    tensors = load_file(file)
    save_file(tensors | {"audio": tensors["audio"][1:].clone()}, file)


@pytest.mark.parametrize("damage", [truncate, empty, replace_by_other, lose_a_row])
def test_a_damaged_file_is_replaced_with_one_warning(damage, thinker, tmp_path, caplog):
    cache = FeatureCache(tmp_path, thinker)
    made = cache.features(CLIPS[0])
    (file,) = tmp_path.iterdir()
    damage(file)
    with tower_runs(thinker) as runs, caplog.at_level(logging.WARNING):
        assert_same(cache.features(CLIPS[0]), made)
        assert_same(cache.features(CLIPS[0]), made)
        assert len(runs) == 2
    (message,) = caplog.messages
    assert message.startswith(f"{file.name} of the feature cache is damaged (")
    assert message.endswith(f"{CLIPS[0].name} is encoded again.")


def test_what_cannot_be_read_or_written_is_said(thinker, tmp_path):
    with pytest.raises(MediaError, match=r"There is no file .*nowhere\.mp4; check the path"):
        FeatureCache(tmp_path, thinker).features(tmp_path / "nowhere.mp4")
    (tmp_path / "taken").write_text("")
    with pytest.raises(RequestError, match=r"The feature cache .*taken cannot be written \(.*\); free space or name another folder"):
        FeatureCache(tmp_path / "taken", thinker).features(CLIPS[0])
