"""What frozen towers make of a clip, kept on disk: it is encoded once, whichever run or question reads it.

Dimensions: V visual tokens, A audio tokens, D hidden.
"""

import hashlib
import json
import logging
import math
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from latentomni.errors import RequestError
from latentomni.media import probe, read_clip
from latentomni.modeling import Thinker
from latentomni.sequence import ClipFeatures

__all__ = ["FeatureCache"]

_VERSION = 1  # of what lies in a file, and of how clips are read
_ARRAYS = ("visual_times_s", "visual_end_s", "audio_times_s")
_logger = logging.getLogger(__name__)


class FeatureCache:
    """A folder of safetensors files, one per clip; nothing is ever deleted from it. Several processes may share it.

    A file is named by a hash of the clip's bytes, the towers' weights, how frames and mel spectra are made, and `dtype`, that of
    the features (the model's own unless told). The weights are read once, with the first clip: from then on they stay frozen.
    """

    def __init__(self, folder: Path | str, thinker: Thinker, dtype: torch.dtype | None = None) -> None:
        self.folder, self.thinker, self.dtype = Path(folder), thinker, dtype or thinker.dtype
        self.encoded = 0  # clips, by this object
        self._hashes: dict[tuple[Path, int, int], str] = {}

    @property
    def size_bytes(self) -> int:
        """What the folder takes on disk, whichever towers filled it."""
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    def features(self, path: Path | str) -> ClipFeatures:
        """Features of a media file, on the CPU, the same whether they were just made or read back.

        Raises MediaError where the file cannot be used and RequestError where the folder cannot be written.
        """
        path = Path(path)
        sha256 = self._sha256(path)
        if (kept := self.find(sha256, path.name)) is not None:
            return kept
        video = self.thinker.video
        found = self.thinker.encode_clip(read_clip(path, fps=video.fps, limits=video.limits()))
        visual, audio = (part.to("cpu", self.dtype).contiguous() for part in (found.visual, found.audio))
        found = replace(found, visual=visual, audio=audio)
        self._write(self._file(sha256), _packed(found))
        self.encoded += 1
        return found

    def find(self, sha256: str, name: str) -> ClipFeatures | None:
        """Features of the clip of these bytes, without the clip; None where they are not kept, or damaged. name: of the clip, to be told."""
        file = self._file(sha256)
        if file.exists():
            try:
                return _unpacked(load_file(file))
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                _logger.warning("%s of the feature cache is damaged (%s); %s is encoded again.", file.name, error, name)
        return None

    def _sha256(self, path: Path) -> str:
        probe(path)
        about = path.stat()
        version = (path, about.st_size, about.st_mtime_ns)
        if version not in self._hashes:
            self._hashes[version] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[version]

    def _file(self, sha256: str) -> Path:
        thinker = self.thinker
        made_by = [_VERSION, self._towers, asdict(thinker.video), thinker.mel.feature_size, str(self.dtype)]
        return self.folder / f"{hashlib.sha256(json.dumps([sha256, *made_by]).encode()).hexdigest()}.safetensors"

    @cached_property
    def _towers(self) -> str:
        """Fingerprint of the towers' weights."""
        digest = hashlib.sha256()
        for tower in (self.thinker.towers.visual, self.thinker.towers.audio_tower):
            for name, weight in sorted(tower.state_dict().items()):
                digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
                digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def _write(self, file: Path, tensors: dict[str, torch.Tensor]) -> None:
        """Under another name first, so that no reader ever sees half a file."""
        unfinished = self.folder / f"{uuid4().hex}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, unfinished)
            unfinished.replace(file)
        except (SafetensorError, OSError) as error:
            raise RequestError(f"The feature cache {self.folder} cannot be written ({error}); free space or name another folder.") from None
        finally:
            with suppress(OSError):
                unfinished.unlink()


def _packed(found: ClipFeatures) -> dict[str, torch.Tensor]:
    arrays = {name: torch.from_numpy(getattr(found, name).astype("float64")) for name in _ARRAYS}
    shape = {"grid": torch.tensor(found.grid), "duration_s": torch.tensor(found.duration_s, dtype=torch.float64)}
    return {"visual": found.visual, "audio": found.audio, **arrays, **shape}


def _unpacked(tensors: dict[str, torch.Tensor]) -> ClipFeatures:
    """KeyError or ValueError where parts are missing or do not fit together."""
    arrays = {name: tensors[name].numpy() for name in _ARRAYS}
    rows, columns = tensors["grid"].tolist()
    found = ClipFeatures(tensors["visual"], grid=(rows, columns), audio=tensors["audio"], duration_s=tensors["duration_s"].item(), **arrays)
    counted = len(found.visual_times_s) * math.prod(found.grid), len(found.audio_times_s)
    if (len(found.visual), len(found.audio)) != counted or len(found.visual_end_s) != len(found.visual_times_s):
        raise ValueError(f"{len(found.visual)} visual and {len(found.audio)} audio features where {counted} were expected")
    return found
