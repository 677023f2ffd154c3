"""Small charts as inline SVG; colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

Series = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 84, 16, 44
# So close may two labels at the right edge come, in pixels.
_LABEL_GAP = 15
_COLOURS = 6


def lines(series: Mapping[str, Series], x_label: str, y_label: str) -> Markup:
    """A line chart of a few named series, each labelled at its end; values that are not finite are left out."""
    finite = {name: [point for point in values if all(map(math.isfinite, point))] for name, values in series.items()}
    finite = {name: values for name, values in finite.items() if values}
    if not finite:
        return Markup("")
    xs = [x for values in finite.values() for x, _ in values]
    ys = [y for values in finite.values() for _, y in values]
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    x_low, x_high = min(xs), max(*xs, min(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        down = (y_high - y) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _TOP + down

    across = [(place(x, y_low)[0], f"{x:g}") for x in x_ticks if x_low <= x <= x_high]
    down = [(place(x_low, y)[1], f"{y:.6g}") for y in y_ticks]
    parts = [_axes(across, down, x_label, y_label)]
    label_at = _apart({name: place(*values[-1])[1] for name, values in finite.items()})
    for number, (name, values) in enumerate(finite.items()):
        colour = f"s{number % _COLOURS}"
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in values)
        x, y = place(*values[-1])
        parts.append(
            f'<polyline class="line {colour}" points="{path}"/>'
            f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            f'<text class="label {colour}" x="{x + 8:.1f}" y="{label_at[name] + 4:.1f}">{escape(name)}</text>'
        )
    said = "; ".join(f"{name} ends at {values[-1][1]:.4g}" for name, values in finite.items())
    return _svg("".join(parts), f"{y_label} by {x_label}: {said}")


def ticks(low: float, high: float, about: int = 4, whole: bool = False) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) of which the first and the last enclose low and high.

    >>> ticks(0.0631, 0.262)
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    >>> ticks(1, 39, whole=True)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough))
    if whole:
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _axes(across: Sequence[tuple[float, str]], down: Sequence[tuple[float, str]], x_label: str, y_label: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    middle = (_TOP + bottom) / 2
    rows = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(value)}</text>'
        for y, value in down
    )
    columns = "".join(
        f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(value)}</text>'
        for x, value in across
    )
    return (
        f"{rows}{columns}"
        f'<text class="tick" x="{(_LEFT + right) / 2}" y="{bottom + 36}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="tick" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )


def _svg(inside: str, description: str) -> Markup:
    # Every text inside was escaped.
    about = escape(description)
    return Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{about}">{inside}</svg>')


def _apart(wanted: Mapping[str, float]) -> dict[str, float]:
    """Heights of the labels, in their order, none nearer to the next than a line of text."""
    placed: dict[str, float] = {}
    last = float("-inf")
    for name, height in sorted(wanted.items(), key=lambda pair: pair[1]):
        last = max(height, last + _LABEL_GAP)
        placed[name] = last
    # Labels that were pushed below the axis move up again, as one.
    beyond = max(last - (_HEIGHT - _BOTTOM), 0.0) if placed else 0.0
    return {name: height - beyond for name, height in placed.items()}
