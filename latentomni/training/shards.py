"""Pack a training file and its clips into tar shards, as the webdataset layout has them: what a process reads lies together."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from latentomni.errors import require
from latentomni.media import probe
from latentomni.training.members import Member
from latentomni.training.records import read_records

__all__ = ["write_shards"]


def write_shards(file: Path, out: Path, shards: int, at: str = "") -> dict[str, int]:
    """Deal the clips of a training file to so many shards in `out`, a clip once however many rows ask about it, and write a
    training file beside them, of the same name, that says where each clip lies. at: a URL under which the shards will be found, unless beside it.

    Inside a shard a clip is KEY.SUFFIX and its rows are KEY.json. Raises DataError and MediaError for data that cannot be trained on."""
    index = out / file.name
    require(not index.exists(), f"{index} is there already; choose another --out.")
    records = read_records(file)
    require(not any(record.member for record in records), f"{file} is packed already; pack the file that it was made of.")
    lines = file.read_bytes().splitlines()
    rows = [json.loads(lines[record.line - 1]) for record in records]
    clips: dict[Path, list[int]] = {}
    for number, record in enumerate(records):
        clips.setdefault(record.media, []).append(number)
    require(shards <= len(clips), f"{len(clips)} clips cannot fill {shards} shards; give --shards {len(clips)} or fewer.")
    out.mkdir(parents=True, exist_ok=True)
    dealt = list(enumerate(clips.items()))
    for number in range(shards):
        name = f"{number:05d}.tar"
        for key, places in _write_shard(out / name, f"{at.rstrip('/')}/{name}" if at else name, dealt[number::shards], rows).items():
            for place, member in places:
                rows[place] |= {"media": f"{name}/{key}", "member": member.to_dict()}
    partial = out / f"{file.name}.partial"
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.rename(index)
    return {"shards": shards, "clips": len(clips), "rows": len(rows), "bytes": sum(f.stat().st_size for f in out.glob("*.tar"))}


def _write_shard(file: Path, shard: str, dealt: list[tuple[int, tuple[Path, list[int]]]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write one tar; returns, by the clip's name in it, the numbers of its rows with the clip's Member."""
    partial, infos, digests, places = file.with_suffix(".partial"), {}, {}, {}
    with tarfile.open(partial, "w") as tar:
        for number, (media, numbers) in dealt:
            name, data = f"{number:08d}{media.suffix}", media.read_bytes()
            infos[name], digests[name], places[name] = probe(media), hashlib.sha256(data).hexdigest(), numbers
            _add(tar, name, data)
            _add(tar, f"{number:08d}.json", json.dumps([rows[n] for n in numbers], ensure_ascii=False).encode())
    with tarfile.open(partial) as tar:
        offsets = {entry.name: entry.offset_data for entry in tar if entry.name in infos}
    partial.rename(file)
    members = {name: Member(shard, offsets[name], digests[name], infos[name]) for name in infos}
    return {name: [(n, members[name]) for n in places[name]] for name in infos}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
