"""A frozen dataclass with arrays, pictures and sound as one zip of json, safetensors, JPEG and WAV.

Text and numbers go to trace.json, where an array or a picture is named by its key. Reading trusts nothing: names,
sizes, types, shapes of values and unknown fields are checked, nothing is unpickled and nothing is written to disk.
"""

import io
import json
import math
import re
import wave
import zipfile
import zlib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from latentomni.errors import TraceError, plain

__all__ = ["MAX_BUNDLE_BYTES", "load_bundle", "save_bundle"]

MAX_BUNDLE_BYTES = 25 * 2**20
_MAX_MEMBERS = 2048
_MAX_TOTAL_BYTES = 128 * 2**20
_HEADER, _ARRAYS, _SOUND = "trace.json", "arrays.safetensors", "sound.wav"
_MEMBER_BYTES = {_HEADER: 16 * 2**20, _ARRAYS: 64 * 2**20, _SOUND: 32 * 2**20}
_PICTURE = re.compile(r"thumbnails/\d{4}\.jpg")
_PICTURE_BYTES = 2 * 2**20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SOUND_KEY = "clip.sound"
# NotImplementedError is what zipfile raises for a compression method it does not know.
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)

T = TypeVar("T")


def save_bundle(path: str | Path, value: Any, schema: str, sound_hz: int) -> None:
    """Write a dataclass; equal values give equal bytes. TraceError where the file would exceed 25 MB."""
    arrays: dict[str, np.ndarray] = {}
    pictures: dict[str, bytes] = {}
    header = {"schema": schema, **_encode(value, "", arrays, pictures)}
    sound = arrays.pop(_SOUND_KEY, None)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, _HEADER, json.dumps(header, allow_nan=False).encode(), zipfile.ZIP_DEFLATED)
        _add(archive, _ARRAYS, save_arrays(arrays), zipfile.ZIP_DEFLATED)
        if sound is not None:
            _add(archive, _SOUND, _wav(sound, sound_hz), zipfile.ZIP_DEFLATED)
        for name, picture in pictures.items():
            _add(archive, name, picture, zipfile.ZIP_STORED)
    data = buffer.getvalue()
    if len(data) > MAX_BUNDLE_BYTES:
        raise TraceError(
            f"This run needs {len(data) / 2**20:.0f} MB, and a trace may have 25 MB; ask about a shorter clip."
        )
    part = Path(path).with_name(f".{Path(path).name}.part")  # a process that is killed leaves the former file, or none
    part.write_bytes(data)
    part.replace(path)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, compression: int) -> None:
    archive.writestr(zipfile.ZipInfo(name), data, compression)


def _wav(sound: np.ndarray, sound_hz: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound_hz)
        file.writeframes(sound.astype("<i2").tobytes())
    return buffer.getvalue()


def load_bundle(path: str | Path, kind: type[T], schema: str) -> T:
    """Read what `save_bundle` wrote as `kind`; TraceError says what is wrong with anything else."""
    members = _read_members(Path(path))
    header = _parse_header(members.pop(_HEADER), schema)
    try:
        arrays = load_arrays(members.pop(_ARRAYS))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TraceError(f"The arrays of this trace cannot be read ({plain(error)}); export the trace again.") from error
    if _SOUND in members:
        arrays[_SOUND_KEY] = _parse_wav(members.pop(_SOUND))
    return _Decoder(arrays, members).decode(kind, header, "")


def _read_members(path: Path) -> dict[str, bytes]:
    """Name -> content, after the table of contents has been checked; what is unpacked is bounded."""
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise TraceError(f"{plain(path.name)} has {path.stat().st_size / 2**20:.0f} MB, and a trace may have 25 MB.")
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_contents([info.filename for info in infos])
            if any(info.compress_type not in _COMPRESSIONS for info in infos):
                raise TraceError("The members of a trace are stored or deflated, and this file packs one otherwise; export the trace again.")
            members: dict[str, bytes] = {}
            room = _MAX_TOTAL_BYTES
            for info in infos:
                limit = min(_MEMBER_BYTES.get(info.filename, _PICTURE_BYTES), room)
                with archive.open(info) as file:
                    members[info.filename] = file.read(limit + 1)
                if len(members[info.filename]) > limit:
                    raise TraceError(
                        f"{info.filename} unpacks to more than a trace may hold; this file is not safe to open."
                    )
                room -= len(members[info.filename])
    except FileNotFoundError:
        raise TraceError(f"There is no file {path}; check the path.") from None
    except _ZIP_DAMAGE as error:
        raise TraceError(
            f"{plain(path.name)} is not a readable trace file ({plain(error)}); choose a file that `--trace` wrote."
        ) from error
    return members


def _check_contents(names: list[str]) -> None:
    if len(names) > _MAX_MEMBERS or len(set(names)) < len(names):
        raise TraceError(f"A trace has at most {_MAX_MEMBERS} members, each once; this file has {len(names)}.")
    for name in names:
        if name not in _MEMBER_BYTES and not _PICTURE.fullmatch(name):
            raise TraceError(f"A trace has no member named {name[:80]!r}; this file was not written by LatentOmni.")
    for name in (_HEADER, _ARRAYS):
        if name not in names:
            raise TraceError(f"This file has no {name}, so it is no trace; choose a file that `--trace` wrote.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _parse_header(data: bytes, schema: str) -> dict[str, Any]:
    try:
        header = json.loads(data.decode(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{_HEADER} cannot be read ({plain(error)}); export the trace again.") from error
    found = header.pop("schema", None) if isinstance(header, dict) else None
    if found != schema:
        raise TraceError(
            f"This file has schema {plain(repr(found), 80)}, and this version reads {schema!r}; "
            "open it with the version that wrote it."
        )
    return header


def _parse_wav(data: bytes) -> np.ndarray:
    try:
        with wave.open(io.BytesIO(data)) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise TraceError(f"{_SOUND} must be mono with 16 bits; export the trace again.")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:  # the last where a chunk's length leads outside the file
        raise TraceError(f"{_SOUND} cannot be read ({plain(error) or 'it is cut short'}); export the trace again.") from error


def _encode(value: Any, key: str, arrays: dict[str, np.ndarray], pictures: dict[str, bytes]) -> Any:
    """JSON for `value`; arrays and pictures are put aside under their key."""
    if is_dataclass(value):
        return {
            f.name: _encode(getattr(value, f.name), f"{key}.{f.name}".lstrip("."), arrays, pictures)
            for f in fields(value)
        }
    if isinstance(value, tuple):
        return [_encode(item, f"{key}.{i}", arrays, pictures) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[key] = np.ascontiguousarray(value)
        return key
    if isinstance(value, bytes):
        name = f"thumbnails/{len(pictures):04d}.jpg"
        pictures[name] = value
        return name
    return value


class _Decoder:
    """The inverse of `_encode`, led by the type hints of the dataclasses; each array and picture is used once."""

    def __init__(self, arrays: dict[str, np.ndarray], pictures: dict[str, bytes]) -> None:
        self._sources: dict[type, dict[str, Any]] = {np.ndarray: arrays, bytes: pictures}

    def decode(self, hint: Any, value: Any, key: str) -> Any:
        if isinstance(hint, UnionType):
            if value is None:
                return None
            hint = next(option for option in get_args(hint) if option is not type(None))
        if is_dataclass(hint):
            return self._decode_dataclass(hint, value, key)
        if get_origin(hint) is tuple:
            return self._decode_tuple(get_args(hint), value, key)
        if hint in self._sources:
            if not isinstance(value, str) or value not in self._sources[hint]:
                raise TraceError(
                    f"{key} is missing from this trace file ({str(value)[:80]!r}); export the trace again."
                )
            return self._sources[hint].pop(value)
        if hint is float and type(value) is int:
            value = float(value) if abs(value) < 2**53 else value
        plain = get_origin(hint) or hint
        if type(value) is not plain:
            raise _wrong(key, value, plain.__name__)
        return value

    def _decode_dataclass(self, kind: type, value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(key, value, "an object")
        names = {f.name for f in fields(kind)}
        needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
        if not needed <= set(value) <= names:  # a field that came later has a default: what was written before it still opens
            raise TraceError(
                f"{key or 'The trace'} lacks {sorted(needed - set(value))}, has {plain(sorted(set(value) - names))} too much; "
                "export the trace again."
            )
        hints = get_type_hints(kind)
        values = {name: self.decode(hints[name], value[name], f"{key}.{name}".lstrip(".")) for name in sorted(value)}
        try:
            return kind(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise TraceError(f"{key or 'The trace'} is not valid: {plain(error)}.") from error

    def _decode_tuple(self, hints: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or (hints[-1] is not Ellipsis and len(value) != len(hints)):
            raise _wrong(key, value, f"a list{'' if hints[-1] is Ellipsis else f' of {len(hints)}'}")
        of = [hints[0]] * len(value) if hints[-1] is Ellipsis else hints
        return tuple(
            self.decode(hint, item, f"{key}.{i}") for i, (hint, item) in enumerate(zip(of, value, strict=True))
        )


def _wrong(key: str, value: Any, expected: str) -> TraceError:
    return TraceError(f"{key or 'The trace'} should be {expected}, got {str(value)[:80]!r}; export the trace again.")
