"""The inspector in a notebook: the same script and style sheet as in the app and the report, through anywidget."""

from typing import Any

from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.page import component_css, component_js, sound_uri
from visualizers.view import view

__all__ = ["widget", "widget_esm"]

# A notebook has no player of its own, so the widget brings one; it goes by element, as another cell may hold a second.
_RENDER = """
export default {
  render({model, el}) {
    const frame = document.createElement("div");
    const {view, sound, theme} = model.get("value");
    const player = sound ? document.createElement("audio") : null;
    if (player) {
      Object.assign(player, {controls: true, preload: "auto", src: sound});
      player.setAttribute("aria-label", "the sound of the clip");
      player.style.cssText = "display:block;width:100%;height:40px;margin-bottom:12px";
    }
    el.replaceChildren(...(player ? [player] : []), frame);
    const parts = [...(view.clip.has_picture ? ["stage"] : []), "answer", "timeline", "blocks"];
    const inspector = LatentInspector.mount(frame, {player, theme, parts});
    inspector.update(view);
    const redraw = () => inspector.update(model.get("value").view);
    model.on("change:value", redraw);
    frame.addEventListener("latent-select", ({detail: {block, slot}}) => {
      model.set("chosen", [block, slot]);
      model.save_changes();
    });
    return () => {
      model.off("change:value", redraw);
      inspector.destroy();
    };
  },
};
"""


def widget_esm() -> str:
    """The widget as a JavaScript module that exports `render`."""
    return component_js() + _RENDER


def widget(trace: Trace, theme: str = "auto") -> Any:
    """The inspector of a run as a Jupyter widget; `chosen` holds block and slot of the latent that was clicked last.

    theme: "auto" follows the system, "host" a `.dark` ancestor. Raises RequestError where anywidget is not installed.
    """
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise RequestError(
            "The notebook widget needs the package anywidget, which is not installed; run pip install 'anywidget>=0.9.13,<0.12'."
        ) from error

    class InspectorWidget(anywidget.AnyWidget):
        _esm = widget_esm()
        _css = component_css()
        value = traitlets.Dict().tag(sync=True)
        chosen = traitlets.List().tag(sync=True)

    shown = {"view": view(trace), "sound": sound_uri(trace), "theme": theme}
    return InspectorWidget(value=shown)
