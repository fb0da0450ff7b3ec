"""What a checkpoint's folder holds beside the stock files: `latentomni.json` and the latent head."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

from latentomni.config import LatentSpec, VideoSpec
from latentomni.modeling import Thinker

__all__ = ["SETTINGS_FILE", "read_collapse", "read_parts", "read_settings", "write_collapse", "write_parts"]

SETTINGS_FILE = "latentomni.json"
_HEAD_FILE = "latent_head.safetensors"
_COLLAPSE = "collapse"
_KEYS = ("latent", "video", "mel_bins", "name", "weights")


def write_parts(thinker: Thinker, folder: Path, **more: Any) -> None:
    """Write the settings, with `more` beside the usual ones, and the latent head in float32."""
    settings = {"latent": thinker.spec.to_dict(), "video": asdict(thinker.video), "mel_bins": thinker.mel.feature_size,
                "name": thinker.name, "weights": thinker.weights}  # fmt: skip
    (folder / SETTINGS_FILE).write_text(json.dumps(settings | more, indent=2) + "\n")
    if thinker.head is not None:
        save_file({k: v.detach().float().contiguous() for k, v in thinker.head.state_dict().items()}, folder / _HEAD_FILE)


def read_settings(folder: Path) -> dict[str, Any]:
    """What `write_parts` wrote as settings. Raises ValueError where one is missing."""
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    absent = [key for key in _KEYS if key not in settings]
    if absent:
        raise ValueError(f"{SETTINGS_FILE} lacks {', '.join(absent)}")
    return settings


def read_parts(folder: Path, model: Qwen2_5OmniThinkerForConditionalGeneration) -> dict[str, Any]:
    """The fields of a Thinker that are ours; the head stands on the model's device, frozen."""
    settings = read_settings(folder)
    spec = LatentSpec.from_dict(settings["latent"])
    head = _read_head(folder, model.config.text_config.hidden_size).to(model.device) if spec.has_head else None
    return {"mel": WhisperFeatureExtractor(feature_size=settings["mel_bins"]), "spec": spec, "video": VideoSpec(**settings["video"]),
            "head": head, "name": settings["name"], "weights": settings["weights"]}  # fmt: skip


def read_collapse(folder: Path) -> dict[str, float | None]:
    """The measures of `evidence.Collapse` by name, as `write_collapse` left them; empty where nobody has measured them."""
    file = folder / SETTINGS_FILE
    return json.loads(file.read_text()).get(_COLLAPSE, {}) if file.is_file() else {}


def write_collapse(folder: Path, measures: dict[str, float | None]) -> None:
    """Keep the measures among the settings of a checkpoint's folder."""
    file = folder / SETTINGS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {_COLLAPSE: measures}, indent=2) + "\n")


def _read_head(folder: Path, hidden: int) -> torch.nn.Linear:
    head = torch.nn.utils.skip_init(torch.nn.Linear, hidden, hidden)
    head.load_state_dict(load_file(folder / _HEAD_FILE))
    return head.requires_grad_(False)
