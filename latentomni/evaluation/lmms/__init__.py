"""LatentOmni for lmms-eval 0.7: the model's manifest, found through this project's entry point. Imported by lmms-eval alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

__all__ = ["MODEL_CLASS", "manifest"]

MODEL_CLASS = "latentomni.evaluation.lmms.model.LatentOmni"


def manifest() -> "ModelManifest":
    """What `--model latentomni` is; the class itself, and torch with it, is imported when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="latentomni", chat_class_path=MODEL_CLASS)
