"""Recipes: everything that decides a fine-tuning run, read from a small JSON file that may extend another one."""

import json
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from latentomni.adapters import LoraSpec
from latentomni.config import LatentSpec, VideoSpec
from latentomni.errors import RequestError, require
from latentomni.training.feedback import Phase
from latentomni.training.loop import FitSpec, Stage
from latentomni.training.losses import PRESETS, LossSpec
from latentomni.training.records import Style

__all__ = ["SHIPPED_DIR", "TrainRecipe", "read_recipe", "shipped_recipes"]

SHIPPED_DIR = Path(__file__).parents[2] / "examples" / "training"
METHODS = ("full", "lora", "qlora")
_KINDS = ("anchors", "jacobi", "rollout")


@dataclass(frozen=True)
class TrainRecipe:
    """model: as `checkpoints.load` takes it. data: JSONL (docs/DATA.md), from where the command is run. style: what is made of a
    row. method: "full", "lora" or "qlora". latent, video: what changes in the model's LatentSpec and VideoSpec. stages: the
    phases that have steps, in their order. lr: peak. samples: rows of the data per optimiser step. tokens: budget of a
    micro-batch. packing: samples share a row, instead of having padded rows. gradient_checkpointing: layers are computed
    again in the backward pass. train_towers: with `full` only. features: folder to keep clips' features in, None for none.
    """

    model: str
    data: str
    style: Style = Style.LATENTOMNI
    method: str = "full"
    lora: LoraSpec = field(default_factory=LoraSpec)
    latent: dict[str, Any] = field(default_factory=dict)
    video: dict[str, Any] = field(default_factory=dict)
    losses: LossSpec = PRESETS["paper"]
    stages: tuple[Stage, ...] = ()
    samples: int = 96
    tokens: int = 16_384
    packing: bool = True
    gradient_checkpointing: bool = True
    train_towers: bool = False
    features: str | None = None
    fit: FitSpec = field(default_factory=lambda: FitSpec(restarts=False))

    def __post_init__(self) -> None:
        object.__setattr__(self, "style", Style(self.style))
        require(self.method in METHODS, f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        require(bool(self.stages), "a recipe needs a phase with steps")
        require(self.samples >= 1 and self.tokens >= 1, f"samples and tokens must be at least 1, got {self.samples} and {self.tokens}")
        require(not self.train_towers or self.method == "full", f"towers are trained with method full only, got {self.method}")
        require(not self.train_towers or self.features is None, "features change while towers are trained; leave 'features' out")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; `read_recipe` makes the same recipe of it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stages"}
        values |= {name: asdict(values[name]) for name in ("lora", "losses", "fit")} | {"style": self.style.value}
        phases = {s.name: {"steps": s.steps, "lr": s.lr, **asdict(s.phase)} for s in self.stages}
        return json.loads(json.dumps(values | {"phases": {k: {n: v for n, v in p.items() if n != "kind"} for k, p in phases.items()}}))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(file.stem for file in SHIPPED_DIR.glob("*.json"))


def read_recipe(recipe: str | Path, changes: dict[str, Any] | None = None) -> TrainRecipe:
    """A shipped recipe by its name, or a file; `changes` are laid over it. Raises RequestError for what is unknown or wrong."""
    values = _merged(_extended(_find(str(recipe), Path()), ()), changes or {})
    try:
        return _recipe(values)
    except RequestError as error:
        raise RequestError(f"recipe {recipe}: {error}") from None


def _find(name: str, folder: Path) -> Path:
    file = folder / name if name.endswith(".json") else SHIPPED_DIR / f"{name}.json"
    require(file.is_file(), f"there is no recipe '{name}'; give a JSON file or one of {', '.join(shipped_recipes())}")
    return file


def _extended(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """What a file says, laid over the recipe it extends."""
    require(file not in seen, f"recipe {file} extends itself")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} cannot be read as JSON ({error}); give a recipe such as {SHIPPED_DIR / 'latentomni.json'}.") from None
    require(isinstance(values, dict), f"{file} must hold one JSON object")
    base = values.pop("extends", None)
    require(base is None or isinstance(base, str), f"{file}: 'extends' must name a recipe")
    return values if base is None else _merged(_extended(_find(base, file.parent), (*seen, file)), values)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {k for k in base.keys() & changes.keys() if isinstance(base[k], dict) and isinstance(changes[k], dict)}
    return base | changes | {k: _merged(base[k], changes[k]) for k in both}


def _recipe(values: dict[str, Any]) -> TrainRecipe:
    _check_keys(values, ["lr", "phases", *(f.name for f in fields(TrainRecipe) if f.name != "stages")], "")
    values = dict(values)
    phases, lr = values.pop("phases", {}), values.pop("lr", 1e-5)
    readers: dict[str, Callable[[Any], Any]] = {
        "lora": lambda v: _read(LoraSpec, v, "lora"),
        "losses": _losses,
        "fit": lambda v: _read(FitSpec, {"restarts": False} | v if isinstance(v, dict) else v, "fit"),
        "latent": lambda v: _read(LatentSpec, v, "latent") and v,
        "video": lambda v: _read(VideoSpec, v, "video") and v,
    }
    values |= {name: read(values[name]) for name, read in readers.items() if name in values}
    return _read(TrainRecipe, values | {"stages": _stages(phases, lr)}, "")


def _losses(values: Any) -> LossSpec:
    """Of a preset ("paper" unless told), with what is changed."""
    if not isinstance(values, dict):
        return _read(LossSpec, values, "losses")
    preset = values.get("preset", "paper")
    require(preset in PRESETS, f"losses.preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    return _read(LossSpec, asdict(PRESETS[preset]) | {k: v for k, v in values.items() if k != "preset"}, "losses")


def _stages(phases: Any, lr: Any) -> tuple[Stage, ...]:
    """anchors, then jacobi, then rollout; a phase without steps is left out."""
    require(_is_a(lr, float), f"lr must be a number, got {lr!r}")
    require(isinstance(phases, dict), f"phases must be an object with {', '.join(_KINDS)}, got {phases!r}")
    _check_keys(phases, _KINDS, "phases")
    stages = []
    for kind in _KINDS:
        values = {"steps": 0, "lr": lr} | _object(phases.get(kind, {}), f"phases.{kind}")
        parts = {f.name: values.pop(f.name) for f in fields(Phase) if f.name in values}
        require("kind" not in parts, f"phases.{kind}: its name is its kind; leave 'kind' out")
        _check_keys(values, ("steps", "lr", "passes", "share", "noise"), f"phases.{kind}")
        phase = _read(Phase, parts, f"phases.{kind}")
        require(_is_a(values["steps"], int) and values["steps"] >= 0, f"phases.{kind}.steps must be a whole number from 0 on, got {values['steps']!r}")
        if values["steps"]:
            stages.append(_read(Stage, {"name": kind, **values, "phase": Phase(kind, phase.passes, phase.share, phase.noise)}, f"phases.{kind}"))
    return tuple(stages)


def _read(cls: type, values: Any, name: str) -> Any:
    """A dataclass of JSON values, or of values that are read already."""
    values, hints = _object(values, name), typing.get_type_hints(cls)
    _check_keys(values, hints, name)
    for key, value in values.items():
        require(_is_a(value, hints[key]), f"{_path(name, key)} must be {_type_name(hints[key])}, got {value!r}")
    absent = [f.name for f in fields(cls) if f.name not in values and f.name in ("model", "data")]
    require(not absent, f"{', '.join(absent)} is missing")
    try:
        return cls(**values)
    except RequestError as error:
        raise RequestError(f"{name}: {error}" if name else str(error)) from None


def _object(values: Any, name: str) -> dict[str, Any]:
    require(isinstance(values, dict), f"{name} must be an object, got {values!r}")
    return values


def _check_keys(values: dict[str, Any], known: typing.Iterable[str], name: str) -> None:
    for key in values:
        if key not in known:
            near = get_close_matches(key, list(known), 1, 0.0)
            raise RequestError(f"unknown key '{_path(name, key)}'; the nearest known one is '{near[0]}'")


def _path(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits a field's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, option) for option in inner)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_is_a(v, inner[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(v, inner[1]) for v in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (hint, str)) if isinstance(hint, type) and issubclass(hint, str) else isinstance(value, hint)


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(option) for option in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    kind = typing.get_origin(hint) or hint
    return names.get(kind) or {dict: "an object", tuple: "a list"}.get(kind, "text")
