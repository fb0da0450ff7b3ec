"""Clips in shards: where in a tar file a clip lies, and how it comes to hand without what lies around it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fsspec.core import url_to_fs

from latentomni.errors import DataError, MediaError
from latentomni.media import MediaInfo

__all__ = ["Member"]


@dataclass(frozen=True)
class Member:
    """shard: the tar file, a path or a URL. offset_bytes: where the clip begins in it. sha256: of its bytes. info: its header, so
    that no clip is read only to know how many tokens it takes."""

    shard: str
    offset_bytes: int
    sha256: str
    info: MediaInfo

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path) -> "Member":
        """As `to_dict` has it, in a training file of `folder`. Raises DataError where a part is missing or odd, MediaError where the shard is not there."""
        try:
            member = cls(**{**values, "info": MediaInfo(**values["info"])})
        except (TypeError, KeyError) as error:
            raise DataError(f"'member' cannot be read ({error}); pack the data again.") from None
        if not (isinstance(member.shard, str) and isinstance(member.offset_bytes, int) and isinstance(member.sha256, str)):
            raise DataError("'member' cannot be read (a part has another type); pack the data again.")
        if "://" in member.shard:
            return member
        if not (folder / member.shard).is_file():
            raise MediaError(f"There is no file {folder / member.shard}; check the path.")
        return cls(str(folder / member.shard), member.offset_bytes, member.sha256, member.info)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """The clip as a file of its own, for as long as the context lasts. Raises MediaError where its bytes are not those that were packed."""
        try:
            files, path = url_to_fs(self.shard)
            data = files.cat_file(path, self.offset_bytes, self.offset_bytes + self.info.size_bytes)
        except (OSError, ImportError, ValueError) as error:  # of a protocol that is unknown, too
            raise MediaError(f"{self.info.name} cannot be read from {self.shard} ({error}); check the shard.") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise MediaError(f"{self.info.name} is not what was packed into {self.shard}; pack the data again.")
        with TemporaryDirectory() as folder:
            file = Path(folder) / self.info.name
            file.write_bytes(data)
            yield file
