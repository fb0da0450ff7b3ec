"""Colours and type of gradio's own components, in step with the inspector's."""

import gradio as gr

__all__ = ["theme"]

_BLUE = gr.themes.Color(
    "#f2f5fd",
    "#e9effc",
    "#cfdcf8",
    "#adc3f2",
    "#93b4ff",
    "#5a82e0",
    "#2f5fd0",
    "#264fb0",
    "#20428f",
    "#1d2942",
    "#141c30",
    name="latent",
)
_GREY = gr.themes.Color(
    "#f7f8fa",
    "#f1f3f6",
    "#e1e5ea",
    "#c9d0d9",
    "#a4adba",
    "#79818d",
    "#586170",
    "#3f4753",
    "#2d333d",
    "#181c23",
    "#0e1116",
    name="ink",
)
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")


def theme() -> gr.themes.Base:
    """System fonts only: the page asks no other host for anything."""
    base = gr.themes.Base(
        primary_hue=_BLUE, secondary_hue=_BLUE, neutral_hue=_GREY, radius_size=gr.themes.sizes.radius_md, spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md, font=_SANS, font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "monospace"),
    )  # fmt: skip
    return base.set(
        body_background_fill="#f6f7f9", body_background_fill_dark="#0e1116",
        block_background_fill="#ffffff", block_background_fill_dark="#15181e",
        block_border_width="1px", block_border_color="#e1e5ea", block_border_color_dark="#2d333d", block_radius="12px", block_shadow="none",
        block_label_text_color="#586170", block_label_text_color_dark="#a4adba", block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent", block_label_border_width="0px", block_title_text_weight="600",
        block_title_text_color="#586170", block_title_text_color_dark="#a4adba", block_title_text_size="13px",
        input_background_fill="#ffffff", input_background_fill_dark="#0e1116", input_border_color="#c9d0d9", input_border_color_dark="#3f4753",
        input_border_color_focus="#2f5fd0", input_border_color_focus_dark="#93b4ff", input_radius="8px",
        input_border_width="1px", checkbox_label_border_width="0px", checkbox_label_border_width_dark="0px", checkbox_label_padding="4px 6px",
        button_primary_background_fill="#2f5fd0", button_primary_background_fill_hover="#264fb0", button_primary_text_color="#ffffff",
        button_primary_background_fill_dark="#93b4ff", button_primary_background_fill_hover_dark="#adc3f2", button_primary_text_color_dark="#0e1116",
        button_secondary_background_fill="#ffffff", button_secondary_background_fill_hover="#f1f3f6", button_secondary_border_color="#c9d0d9",
        button_secondary_background_fill_dark="#1d2129", button_secondary_background_fill_hover_dark="#2d333d", button_secondary_border_color_dark="#3f4753",
        button_large_radius="8px", button_small_radius="8px", button_border_width="1px",
    )  # fmt: skip
