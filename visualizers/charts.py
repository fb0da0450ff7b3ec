"""Small charts, dots with intervals and lines, as plotly figures and as still SVG pictures."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Chart", "Panel", "Series", "draw_chart", "plot_chart"]

_COLOURS = ("#2f5fd0", "#a8500b", "#2a7f4f", "#8a3fb0")
_WIDTH, _LABELS, _GAP, _ROW, _HEIGHT, _TOP, _BOTTOM = 860, 150, 46, 20, 220, 58, 44


@dataclass(frozen=True)
class Series:
    """x, y: (n,) each. low, high: (n,) ends of the intervals of x, or empty. is_line: joined, not dots."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    is_line: bool = False


@dataclass(frozen=True)
class Panel:
    """labels: names of y = 0, 1, ..., from above; without them y is a number. The first of the series lies on top."""

    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """name: of its files. Panels stand side by side and share what their axes mean."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def plot_chart(chart: Chart) -> "Figure":
    """As a plotly figure."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, len(chart.panels), subplot_titles=[p.title for p in chart.panels], shared_yaxes=True)
    for column, panel in enumerate(chart.panels, 1):
        for number, s in enumerate(panel.series):
            spread = {"type": "data", "symmetric": False, "array": [h - x for h, x in zip(s.high, s.x, strict=True)],
                      "arrayminus": [x - low for low, x in zip(s.low, s.x, strict=True)]} if s.low else None  # fmt: skip
            figure.add_scatter(
                x=list(s.x), y=[panel.labels[int(y)] for y in s.y] if panel.labels else list(s.y), error_x=spread, name=s.name,
                mode="lines+markers" if s.is_line else "markers", marker_color=_colour(number), legendgroup=s.name, showlegend=column == 1, zorder=-number,
                row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(title_text=panel.x_title, row=1, col=column)
        figure.update_yaxes(title_text=panel.y_title, autorange="reversed" if panel.labels else True, row=1, col=column)
    return figure.update_layout(title=chart.title, template="plotly_white")


def draw_chart(chart: Chart) -> str:
    """As an SVG picture of fixed size; the same text for the same chart."""
    labelled = bool(chart.panels[0].labels)
    left = _LABELS if labelled else _GAP
    height = _ROW * len(chart.panels[0].labels) if labelled else _HEIGHT
    width = (_WIDTH - left - _GAP * (len(chart.panels) - 1) - 20) / len(chart.panels)
    parts = [_text(12, 22, chart.title, "title")]
    x = 12.0
    for number, s in enumerate(chart.panels[0].series if len(chart.panels[0].series) > 1 else ()):
        parts += [f'<circle cx="{_n(x + 4)}" cy="36" r="4" fill="{_colour(number)}"/>', _text(x + 12, 40, s.name)]
        x += 26 + 6.6 * len(s.name)
    for number, panel in enumerate(chart.panels):
        parts += _panel(panel, left + number * (width + _GAP), width, height, tells_y=number == 0)
    style = ("text{font:12px system-ui,sans-serif;fill:#1f2733}.title{font-weight:600;font-size:14px}.axis{stroke:#8a919c;stroke-width:1}"
             ".grid{stroke:#8a919c;stroke-opacity:.25}@media(prefers-color-scheme:dark){text{fill:#e6e9ef}}")  # fmt: skip
    whole = height + _TOP + _BOTTOM + 12
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {whole}" role="img" aria-label="{escape(chart.title)}">'
            f"<style>{style}</style>\n" + "\n".join(parts) + "\n</svg>\n")  # fmt: skip


def _panel(panel: Panel, left: float, width: float, height: float, *, tells_y: bool) -> list[str]:
    top, foot = _TOP + 12, _TOP + 12 + height
    x_low, x_high = _range([v for s in panel.series for v in (*s.x, *s.low, *s.high)])
    y_low, y_high = (len(panel.labels) - 0.5, -0.5) if panel.labels else _range([v for s in panel.series for v in s.y])

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (x - x_low) / (x_high - x_low) * width, foot - (y - y_low) / (y_high - y_low) * height

    heading = ": ".join(filter(None, (panel.title, panel.y_title)))
    parts = [_text(left, top - 6, heading), _text(left + width / 2, foot + 34, panel.x_title, anchor="middle")]
    for tick in _ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        parts += [f'<line class="grid" x1="{_n(x)}" x2="{_n(x)}" y1="{_n(top)}" y2="{_n(foot)}"/>', _text(x, foot + 16, f"{tick:g}", anchor="middle")]
    rows = list(enumerate(panel.labels)) if panel.labels else [(tick, f"{tick:g}") for tick in _ticks(y_low, y_high)]
    for y_value, label in rows:
        _, y = place(x_low, y_value)
        parts.append(f'<line class="grid" x1="{_n(left)}" x2="{_n(left + width)}" y1="{_n(y)}" y2="{_n(y)}"/>')
        parts += [_text(left - 8, y + 4, label, anchor="end")] if tells_y or not panel.labels else []
    for number, s in reversed(list(enumerate(panel.series))):
        parts += _marks(s, _colour(number), place)
    return [*parts, f'<line class="axis" x1="{_n(left)}" x2="{_n(left + width)}" y1="{_n(foot)}" y2="{_n(foot)}"/>']


def _marks(s: Series, colour: str, place) -> list[str]:
    points = [place(x, y) for x, y in zip(s.x, s.y, strict=True)]
    parts = []
    for low, high, y in zip(s.low, s.high, s.y, strict=False):
        (x1, at), (x2, _) = place(low, y), place(high, y)
        parts.append(f'<line stroke="{colour}" stroke-width="2" stroke-opacity=".5" x1="{_n(x1)}" x2="{_n(x2)}" y1="{_n(at)}" y2="{_n(at)}"/>')
    if s.is_line:
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in points)}"/>')
    radius = 2.5 if s.is_line else 4
    return parts + [f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{radius}" fill="{colour}"/>' for x, y in points]


def _range(values: list[float]) -> tuple[float, float]:
    """From 0 to the next tick beyond the largest."""
    step = _step(max([*values, 1e-6]))
    return 0.0, step * -(-max([*values, step]) // step)


def _step(high: float) -> float:
    """1, 2 or 5 times a power of ten, four to ten of which make `high`."""
    power = 10.0 ** len(str(int(high))) if high >= 1 else 1.0
    while True:
        for factor in (5, 2, 1):
            if high / (factor * power / 10) >= 4:
                return factor * power / 10
        power /= 10


def _ticks(low: float, high: float) -> list[float]:
    step = _step(high)
    return [round(low + k * step, 6) for k in range(round((high - low) / step) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}"


def _colour(number: int) -> str:
    return _COLOURS[number] if number < len(_COLOURS) else "#8a919c"
