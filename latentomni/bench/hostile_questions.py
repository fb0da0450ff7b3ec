"""Questions and settings that are odd, and answers of strangers that are changed, given to the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.arms import ARMS
from latentomni.avworld import sample_world, world_clip
from latentomni.bench.abuse import Attacked
from latentomni.bench.damage import ODD_TEXTS, ODD_VALUES, damaged_json
from latentomni.bench.hostile_traces import Saved
from latentomni.config import Mode, ReadingSpec, SamplingSpec
from latentomni.reruns import Change, rerun
from latentomni.runtime import Runtime
from latentomni.trace import Trace

__all__ = ["question_feeder"]
