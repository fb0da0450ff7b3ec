"""The settings of an answer: their controls, what they mean to the model, and how the browser remembers them."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import gradio as gr

from app.clips import header
from app.components import Plan
from app.copy import CHOICES, LABELS
from app.library import library
from app.page import failed, said
from app.session import Session
from app.shared import runtime
from latentomni.config import AttentionFlow, Mode, PositionVariant, ReadingSpec, SamplingSpec
from latentomni.errors import LatentOmniError

__all__ = ["STORAGE_KEY", "Choices", "controls", "plain", "plan", "remembered", "restored"]

STORAGE_KEY = "latentomni-settings"
_PLAIN = SamplingSpec()
_OF_THE_CLIP = ("start_s", "end_s")  # another clip needs another trim, so it is not remembered
_INSTANTS = (1, 2, 4, 8, 16)
_FPS = (0.5, 1, 2, 4, 8)
_SIDES_PX = (112, 224, 336, 448)


@dataclass(frozen=True)
class Choices:
    """One value per control, in their order. 0 and "" leave a setting as the model was trained; the mode "" is a base model's
    direct answer, and latents of any other."""

    mode: str = str(Mode.LATENT)
    temperature: float = _PLAIN.temperature
    top_p: float = _PLAIN.top_p
    seed: int = _PLAIN.seed
    max_new_tokens: int = _PLAIN.max_new_tokens
    max_blocks: int = _PLAIN.max_blocks
    fps: float = 0
    max_pixels: int = 0
    start_s: float | None = None
    end_s: float | None = None
    picture: bool = True
    sound: bool = True
    instants: int = 0
    positions: str = ""
    flow: str = ""

    def sampling(self) -> SamplingSpec:
        """How tokens are chosen. RequestError on nonsense."""
        return SamplingSpec(
            float(self.temperature), float(self.top_p), int(self.seed or 0), int(self.max_new_tokens), int(self.max_blocks)
        )

    def reading(self) -> ReadingSpec:
        """How the clip is read. RequestError on nonsense."""
        return ReadingSpec(
            fps=self.fps or None, max_pixels=int(self.max_pixels) or None, start_s=float(self.start_s or 0.0),
            end_s=self.end_s or None, picture=self.picture, sound=self.sound,
        )  # fmt: skip

    def latent(self) -> dict[str, Any] | None:
        """Changes of the model's LatentSpec; None where there are none."""
        changes = {name: getattr(self, name) for name in ("instants", "positions", "flow") if getattr(self, name)}
        return changes or None


def usual() -> Choices:
    """What the controls begin with. Of nano it is known that it reasons in latents; another model is asked in its own way."""
    return Choices() if runtime.name == "nano" else Choices(mode="")


def modes() -> list[tuple[str, str]]:
    """The ways to answer, by name and value."""
    named = _named("mode", Mode)
    return named if usual().mode else _trained("", named)


def controls(parts: dict[str, gr.Component]) -> list[gr.Component]:
    """Lay out the settings; one control per field of Choices, in the same order. The plan and the reset button go to `parts`."""
    plain = usual()
    parts["plan"] = Plan(elem_id="plan")
    mode = gr.Radio(modes(), value=plain.mode, label=LABELS["mode"], elem_id="mode")
    with gr.Accordion(LABELS["settings"], open=False, elem_id="settings"):
        gr.HTML(f"<h3>{LABELS['words']}</h3>", apply_default_css=False)
        temperature = gr.Slider(0, 2, plain.temperature, step=0.1, label=LABELS["temperature"])
        top_p = gr.Slider(0.05, 1, plain.top_p, step=0.05, label=LABELS["top_p"])
        seed = gr.Number(plain.seed, precision=0, minimum=0, maximum=2**31 - 1, label=LABELS["seed"])
        max_tokens = gr.Slider(16, 1024, plain.max_new_tokens, step=16, label=LABELS["max_tokens"])
        max_blocks = gr.Slider(0, 16, plain.max_blocks, step=1, label=LABELS["max_blocks"])
        gr.HTML(f"<h3>{LABELS['reading']}</h3>", apply_default_css=False)
        with gr.Row():
            fps = gr.Dropdown(_trained(0, ((f"{n:g}", n) for n in _FPS)), value=0, label=LABELS["fps"], min_width=100)
            sides = ((f"{side} × {side}", side * side) for side in _SIDES_PX)
            pixels = gr.Dropdown(_trained(0, sides), value=0, label=LABELS["pixels"], min_width=100)
        with gr.Row():
            start = gr.Number(None, minimum=0, label=LABELS["start"], placeholder="0", min_width=100)
            end = gr.Number(None, minimum=0, label=LABELS["end"], placeholder=LABELS["end_of_clip"], min_width=100)
        with gr.Row():
            picture = gr.Checkbox(True, label=LABELS["picture"], min_width=100)
            sound = gr.Checkbox(True, label=LABELS["sound"], min_width=100)
        gr.HTML(f"<h3>{LABELS['latents']}</h3>", apply_default_css=False)
        instants = gr.Dropdown(_trained(0, ((str(n), n) for n in _INSTANTS)), value=0, label=LABELS["instants"])
        positions = gr.Dropdown(_trained("", _named("positions", PositionVariant)), value="", label=LABELS["positions"])
        flow = gr.Dropdown(_trained("", _named("flow", AttentionFlow)), value="", label=LABELS["flow"])
        parts["reset"] = gr.Button(LABELS["reset"], size="sm", elem_id="reset")
    return [mode, temperature, top_p, seed, max_tokens, max_blocks, fps, pixels, start, end, picture, sound, instants,
            positions, flow]  # fmt: skip


def _named(what: str, kinds: Any) -> list[tuple[str, str]]:
    return [(CHOICES[what][str(kind)], str(kind)) for kind in kinds]


def _trained(value: Any, others: Any) -> list[tuple[str, Any]]:
    return [(LABELS["as_trained"], value), *others]


def remembered(*values: Any) -> dict[str, Any]:
    """What the browser keeps of the controls' values."""
    return {name: value for name, value in asdict(Choices(*values)).items() if name not in _OF_THE_CLIP}


def restored(kept: dict[str, Any] | None) -> list[Any]:
    """The controls' values, from what the browser kept; the plain ones where that makes no sense any more."""
    names = {f.name for f in fields(Choices)} - set(_OF_THE_CLIP)
    try:
        choices = Choices(**{name: value for name, value in (kept or {}).items() if name in names})
        choices = replace(choices, mode=choices.mode or usual().mode)
        choices.sampling(), choices.reading()
        choices.mode and Mode(choices.mode)
        choices.positions and PositionVariant(choices.positions)
        choices.flow and AttentionFlow(choices.flow)
    except (LatentOmniError, TypeError, ValueError, AttributeError):
        choices = usual()
    return list(asdict(choices).values())


def plain() -> list[Any]:
    """Reset was pressed: the plain values, nothing remembered, and a word about it."""
    return [*asdict(usual()).values(), {}, said("reset")]


def plan(session: Session, *values: Any) -> dict[str, Any] | None:
    """What the next answer will need, as the settings stand; None without a clip. Loads the model, so that it is ready to ask."""
    if not session.clip:
        return None
    try:
        chosen = Choices(*values)
        sampling = chosen.sampling()
        model = runtime.get()
        found = library().plan_run(
            model, header(session.clip), chosen.reading(), chosen.latent(), chosen.mode or model.spec.default_mode, sampling.max_new_tokens,
            max_blocks=sampling.max_blocks, question=session.asked,
        )  # fmt: skip
    except Exception as error:
        return {"problem": failed(error)["text"]}
    return {
        "frames": found.frames, "tokens": found.tokens, "bytes": found.peak_bytes, "seconds": found.seconds, "problem": found.advice,
    }  # fmt: skip
