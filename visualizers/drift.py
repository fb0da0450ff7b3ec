"""How far the latents of a quantised model are from those of the full-precision one, step by step, as a chart."""

from typing import Any

from visualizers.charts import Chart, Panel, Series

__all__ = ["drift_chart"]


def drift_chart(report: dict[str, Any]) -> Chart:
    """Of what `bench drift` prints."""
    steps = report["steps"]
    x = tuple(float(step["step"]) for step in steps)

    def line(name: str, key: str) -> Series:
        return Series(name, x, tuple(step[key] for step in steps), is_line=True)

    cosine = (line("mean", "cosine"), line("worst tenth", "cosine_low"), line("another clip's", "cosine_other"))
    agreement = (line("same moment found", "agreement"),)
    return Chart(
        "drift",
        f"Latents in {report['quantization']} beside full precision, by step of the first block",
        (Panel("Cosine", "step", "", cosine), Panel("Evidence", "step", "", agreement)),
    )
