"""Shards: the same clips and rows as the folder's, each process reads its own, and features made beforehand are those of training."""

import json
import shutil
import tarfile
from dataclasses import fields, is_dataclass
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file

from latentomni import checkpoints
from latentomni.cli import main
from latentomni.errors import DataError, MediaError, RequestError
from latentomni.training.finetune import encode_clips, finetune
from latentomni.training.recipes import read_recipe
from latentomni.training.records import read_records, validate
from latentomni.training.shards import write_shards
from latentomni.training.source import Source

STEPS = [(stage, step) for stage in range(3) for step in range(2)]


@pytest.fixture
def packed(train_file, tmp_path):
    """packed(n) -> the training file of n shards."""

    def pack(shards):
        write_shards(train_file, tmp_path / f"packed-{shards}", shards)
        return tmp_path / f"packed-{shards}" / train_file.name

    return pack


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    checkpoints.save(tiny, folder, dtype=torch.float32)
    return str(folder)


def recipe(data="", model="tiny", **changes):
    phases = {kind: {"steps": 2} for kind in ("anchors", "jacobi", "rollout")}
    few = {"latent": {"instants": 3, "rows": 2, "columns": 1}, "video": {"max_pixels": 56 * 56}, "fit": {"log_every": 1, "save_every": 1}}
    return read_recipe("latentomni", {"model": model, "data": str(data), "phases": phases, "samples": 2, "tokens": 500, "lr": 1e-3, **few, **changes})


def source(tiny, data, processes=1, **changes):
    return Source(tiny, read_records(data), recipe(**changes), processes)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)) if is_dataclass(a) else a == b


def test_a_shard_holds_every_clip_once_beside_its_rows(train_file, packed):
    data = packed(2)
    rows = [json.loads(line) for line in train_file.read_text().splitlines()]
    seen = {}
    for shard in sorted(data.parent.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            assert [Path(name).stem for name in names[::2]] == [Path(name).stem for name in names[1::2]]  # one sample's files follow one another
            for clip, told in zip(names[::2], names[1::2], strict=True):
                about = json.load(tar.extractfile(told))
                (media,) = {row["media"] for row in about}
                assert tar.extractfile(clip).read() == (train_file.parent / media).read_bytes()
                assert about == [row for row in rows if row["media"] == media]
                seen[f"{shard.name}/{clip}"] = media
    assert len(seen) == len(set(seen.values())) == 3
    assert validate(data) == (7, [])
    for record, row in zip(read_records(data), rows, strict=True):
        assert seen[str(record.media.relative_to(data.parent))] == row["media"]
        with record.member.at_hand() as file:
            assert file.read_bytes() == (train_file.parent / row["media"]).read_bytes() and file.suffix == Path(row["media"]).suffix
        assert not file.exists()
    first = [shard.read_bytes() for shard in sorted(data.parent.glob("*.tar"))]
    shutil.rmtree(data.parent)
    assert [shard.read_bytes() for shard in sorted(packed(2).parent.glob("*.tar"))] == first


def test_one_shard_gives_the_batches_of_the_folder(tiny, train_file, packed):
    shard, folder = source(tiny, packed(1)), source(tiny, train_file)
    for step in STEPS:
        ours, theirs = shard.draw(*step), folder.draw(*step)
        assert ours.chosen == theirs.chosen
        assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))


def test_training_from_a_shard_is_training_from_the_folder_through_a_stop(base, train_file, packed, tmp_path):
    finetune(recipe(train_file, base), tmp_path / "folder")
    data = packed(1)
    late = data.with_name("00000.tar")
    short = recipe(data, base)
    whole = late.read_bytes()
    members = {record.media: record.member for record in read_records(data)}
    order = [row for step in range(3) for row in Source(checkpoints.load(base), read_records(data), short).rows(0, step)]
    media = [read_records(data)[row].media for row in order]
    new = next(m for m in media[2:] if m not in media[:2])  # the first step can do without it
    damaged = bytearray(whole)
    damaged[members[new].offset_bytes + 100] ^= 1
    late.write_bytes(damaged)
    with pytest.raises(MediaError, match="is not what was packed"):
        finetune(short, tmp_path / "shard")
    late.write_bytes(whole)
    finetune(short, tmp_path / "shard", resume=True)
    a, b = (load_file(tmp_path / run / "state" / "trained.safetensors") for run in ("folder", "shard"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_process_reads_its_own_shards_alone(tiny, packed):
    data, samples = packed(2), 4
    sources = [source(tiny, data, 2, samples=samples, tokens=400) for _ in range(2)]
    shard_of = [record.member.shard for record in sources[0].records]
    drawn = {0: [], 1: []}
    for step in STEPS:
        plans = [s.draw(*step).chosen for s in sources]
        assert plans[0] == plans[1] and len(plans[0]) % 2 == 0
        for process in (0, 1):
            rows = [row for part in plans[0][process::2] for row in part]
            assert len(rows) == samples // 2 and {shard_of[row] for row in rows} == {sorted(set(shard_of))[process]}
            drawn[process] += rows
    for process, epochs in ((0, 4), (1, 3)):  # 12 rows of 3, and of 4
        own = [row for row, shard in enumerate(shard_of) if shard == sorted(set(shard_of))[process]]
        assert sorted(drawn[process]) == sorted(own * epochs)
    Path(sorted(set(shard_of))[1]).unlink()
    batches = sources[0].draw(0, 0)
    assert batches[0].ids.numel()
    with pytest.raises(MediaError, match=r"cannot be read from .*00001\.tar"):
        batches[1]


def test_shards_may_lie_where_a_url_says(tiny, train_file, tmp_path):
    packed = write_shards(train_file, tmp_path / "packed", 3, "memory://far")
    assert packed["clips"] == 3
    files = fsspec.filesystem("memory")
    for shard in (tmp_path / "packed").glob("*.tar"):
        files.pipe_file(f"/far/{shard.name}", shard.read_bytes())
        shard.unlink()
    far, folder = source(tiny, tmp_path / "packed" / train_file.name, 1, samples=7), source(tiny, train_file, 1, samples=7)
    for row in range(7):
        assert far.records[row].member.shard.startswith("memory://far/")
        assert same(far._build((row,)), folder._build((row,)))


def towers_run(run):
    """The result of `run`, and how often a tower was asked."""
    asked = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: asked.append(1) if "VisionEncoder" in type(module).__name__ or "AudioEncoder" in type(module).__name__ else None
    )
    try:
        return run(), len(asked)
    finally:
        hook.remove()


@pytest.mark.parametrize("shards", [None, 2])
def test_after_features_training_encodes_nothing(base, train_file, packed, tmp_path, shards, capsys):
    data, kept = packed(shards) if shards else train_file, tmp_path / "kept"
    whole = recipe(data, base, features=str(kept))
    done, asked = towers_run(lambda: encode_clips(whole, 0, 2))
    assert asked and 0 < done["encoded"] == done["clips"] < 3
    (tmp_path / "recipe.json").write_text(json.dumps(recipe(data, base).to_dict()))
    command = ["data", "features", str(tmp_path / "recipe.json"), "--features", str(kept), "--part", "2/2", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["part"], told["encoded"], told["clips"] + done["clips"]) == ("2/2", told["clips"], 3)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["encoded"] == 0
    files = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert len(files) == 3
    _, asked = towers_run(lambda: finetune(whole, tmp_path / "run"))
    assert asked == 0
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == files


def test_what_cannot_be_packed_or_shared_is_refused(tiny, base, train_file, packed, tmp_path):
    data = packed(3)
    for shards, said in ((3, "is there already"), (4, "3 clips cannot fill 4 shards")):
        with pytest.raises(RequestError, match=said):
            write_shards(train_file, data.parent if shards == 3 else tmp_path / "new", shards)
    with pytest.raises(RequestError, match="is packed already"):
        write_shards(data, tmp_path / "again", 1)
    with pytest.raises(RequestError, match="3 shards cannot be shared by 2 processes"):
        source(tiny, data, 2)
    with pytest.raises(RequestError, match="keeps no features"):
        encode_clips(recipe(train_file, base), 0, 1)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for wrong, said in (({"shard": 5}, "a part has another type"), ({"depth": 1}, "depth"), ({"shard": "no.tar"}, "There is no file")):
        data.write_text(json.dumps({**rows[0], "member": {**rows[0]["member"], **wrong}}))
        with pytest.raises(DataError, match=said):
            read_records(data)
