"""Trace files that are damaged or hostile, given to the reader and to what the app draws of them."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from latentomni.avworld import sample_world, world_clip
from latentomni.bench.damage import Attacked, damaged, damaged_json
from latentomni.config import SamplingSpec
from latentomni.media import Clip
from latentomni.runtime import Runtime
from latentomni.trace import Trace

__all__ = ["asked", "packed", "trace_feeder", "unpacked"]

_FILE = Path("upload.trace.zip")
_JSON, _ARRAYS, _SOUND, _PICTURE = "trace.json", "arrays.safetensors", "sound.wav", "thumbnails/0000.jpg"
_PATHS = (
    "../evil.py",
    "../../../../etc/cron.d/x",
    "/etc/passwd",
    "C:\\evil.exe",
    "thumbnails/../../x.jpg",
    "thumbnails/0000.jpg/",
    "thumbnails/00000.jpg",
    "THUMBNAILS/0000.JPG",
    "trace.json\x00.jpg",
    ".",
    "..",
    "",
    "a" * 65_000,
    "thumbnails/\u0660\u0660\u0660\u0660.jpg",
    "thumbnails/0000.jpg\n",
    "\u202egpj.exe",
    "__init__.py",
    "data.pkl",
    "~/.bashrc",
    "trace.json/",
)
_HEADERS = (
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe{\x00}\x00",
    b"[" * 1_000_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b'{"schema":' + b"9" * 5000 + b"}",
    b'{"schema":"' + b"x" * 15_000_000 + b'"}',
    b'{"schema":NaN}',
    b'{"schema":"\\ud800\\n"}',
    b" " * 17_000_000,
)

_TENSORS = (
    '{"a":{"dtype":"F16","shape":[9223372036854775807],"data_offsets":[0,2]}}',
    '{"a":{"dtype":"F16","shape":[0],"data_offsets":[5,1]}}',
    '{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
    '{"a":{"dtype":"Q1","shape":[],"data_offsets":[0,0]}}',
)


@cache
def asked(attacked: Attacked) -> tuple[Runtime, Clip, Trace]:
    """The model, an AV World clip, and its answer to a question about it."""
    runtime, clip = Runtime.load(attacked.model), world_clip(sample_world(attacked.seed, "train"))
    return (
        runtime,
        clip,
        runtime.answer(clip, "What is seen when the bell rings?", None, SamplingSpec(max_new_tokens=64)),
    )


def trace_feeder(kind: str, attacked: Attacked) -> Callable[[np.random.Generator, int], None]:
    """Feeds a trace file, and shows what could be read of it as the app does."""
    asked(attacked)[2].save(_FILE)
    whole = _FILE.read_bytes()
    members = unpacked(whole)
    made = [cache(make) for make in _made(members, whole)]

    def feed(rng: np.random.Generator, number: int) -> None:
        _FILE.write_bytes(
            made[number % len(made)]() if kind == "traces_made" else _damaged(rng, number, members, whole)
        )
        attacked.show(Trace.load(_FILE))

    return feed


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def _damaged(rng: np.random.Generator, number: int, members: dict[str, bytes], whole: bytes) -> bytes:
    """The file's bytes, its values, the bytes of one member, or its arrays."""
    way = number % 4
    if way == 0:
        return damaged(rng, whole, whole)
    if way == 1:
        return packed({**members, _JSON: json.dumps(damaged_json(rng, json.loads(members[_JSON]))).encode()})
    if way == 2:
        name = list(members)[int(rng.integers(len(members)))]
        return packed({**members, name: damaged(rng, members[name], whole)})
    arrays = load(members[_ARRAYS])
    for _ in range(int(rng.integers(1, 3))):
        name = list(arrays)[int(rng.integers(len(arrays)))]
        arrays[name] = _odd_array(rng, arrays[name])
    return packed({**members, _ARRAYS: save(arrays)})


def _odd_array(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    changes = (
        lambda a: a[:0],
        lambda a: a[:1],
        lambda a: np.concatenate([a, a]),
        lambda a: np.full_like(a, np.nan),
        lambda a: np.full_like(a, np.inf),
        lambda a: np.zeros_like(a),
        lambda a: np.full_like(a, 65504),
        lambda a: np.full_like(a, -1),
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.int8),
        lambda a: a.reshape(-1),
        lambda a: a[None],
        lambda a: a[..., :0],
        lambda a: np.array(1.0, a.dtype),
        lambda a: np.full_like(a, 1e-8),
        lambda a: a[::-1],
    )
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(changes[int(rng.integers(len(changes)))](array))


def _made(members: dict[str, bytes], whole: bytes) -> list[Callable[[], bytes]]:
    """Files made by hand, each when it is asked for: bombs, tricks with paths, archives that lie about themselves."""
    made: list[Callable[[], bytes]] = [lambda path=path: _appended(members, path, b"x") for path in _PATHS]
    made += [
        lambda name=name, size=size: packed({**members, name: bytes(size)})
        for name in (_JSON, _ARRAYS, _SOUND, _PICTURE)
        for size in (3 << 20, 80 << 20, 200 << 20)
    ]
    made += [
        lambda name=name: packed({key: value for key, value in members.items() if key != name})
        for name in (_JSON, _ARRAYS, _SOUND, _PICTURE)
    ]
    made += [lambda header=header: packed({**members, _JSON: header}) for header in _HEADERS]
    made += [
        lambda n=n, head=head: packed({**members, _ARRAYS: struct.pack("<Q", n) + head})
        for n, head in (
            (0, b""),
            (2**63, b"{}"),
            (2, b"{}"),
            (2**32, b"{}" * 99),
            (20, b'{"a":' * 4),
            (10**6, b"[" * 10**6),
        )
    ]
    made += [lambda entry=entry: packed({**members, _ARRAYS: _tensors(entry)}) for entry in _TENSORS]
    made += [
        lambda: packed({**members, **{f"thumbnails/{i:04d}.jpg": b"" for i in range(9999)}}),
        lambda: packed({**members, **{f"thumbnails/{i:04d}.jpg": bytes(2 << 20) for i in range(2000)}}),
    ]
    made += [lambda: _appended(members, _JSON, b"{}"), lambda: _appended(members, _PICTURE, b"x")]
    made += [lambda kind=kind: packed(members, kind) for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]
    made += [lambda flag=flag: _flagged(whole, flag) for flag in (0x01, 0x20, 0x40, 0x800, 0xFFFF)]
    made += [
        lambda at=at, value=value: _relisted(whole, at, value)
        for at in (10, 20, 24, 28, 42)
        for value in (0, 0x7FFFFFFF, 0xFFFFFFFF)
    ]
    made += [
        lambda: whole * 3,
        lambda: b"#!/bin/sh\n" + whole,
        lambda: whole + bytes(70_000),
        lambda: packed({_JSON: whole}),
        lambda: packed({"a.zip": whole}),
        lambda: b"PK\x05\x06" + bytes(18),
        lambda: b"",
        lambda: bytes(30 << 20),
    ]
    return made


def _appended(members: dict[str, bytes], name: str, data: bytes) -> bytes:
    """Another member, whatever its name; zipfile would warn of a double one and cut one at a zero byte."""
    info = zipfile.ZipInfo("x")
    info.filename = name
    buffer = io.BytesIO(packed(members))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.NameToInfo = {}
        archive.writestr(info, data)
    return buffer.getvalue()


def _tensors(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(64)


def _flagged(whole: bytes, flag: int) -> bytes:
    """Encrypted, patched or otherwise flagged members, in the contents and before each."""
    changed = bytearray(whole)
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := whole.find(mark, at + 1)) >= 0:
            changed[at + offset : at + offset + 2] = struct.pack("<H", flag)
    return bytes(changed)


def _relisted(whole: bytes, offset: int, value: int) -> bytes:
    """The table of contents lies about compression, sizes, lengths of names or places."""
    changed, at = bytearray(whole), whole.find(b"PK\x01\x02")
    width = 2 if offset in (10, 28) else 4
    changed[at + offset : at + offset + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return bytes(changed)
