"""Small charts as inline SVG; colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

Series = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 92, 14, 34
# So close may two labels at the right edge come, in pixels.
_LABEL_GAP = 14


def lines(series: Mapping[str, Series], x_label: str, y_label: str) -> Markup:
    """A line chart of a few named series, each labelled at its end."""
    points = [point for values in series.values() for point in values]
    if not points:
        return Markup("")
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        down = (y_high - y) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _TOP + down

    parts = [_frame(x_low, x_high, y_low, y_high, x_label, y_label)]
    ends = {name: place(*values[-1])[1] for name, values in series.items() if values}
    label_at = _apart(ends)
    for number, (name, values) in enumerate(series.items()):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in values)
        x, y = place(*values[-1])
        parts.append(
            f'<polyline class="line s{number % 6}" points="{path}"/><circle class="dot s{number % 6}" '
            f'cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            f'<text class="label s{number % 6}" x="{x + 7:.1f}" y="{label_at[name] + 4:.1f}">{escape(name)}</text>'
        )
    said = "; ".join(f"{name} ends at {values[-1][1]:.4g}" for name, values in series.items())
    return _svg("".join(parts), f"{y_label} by {x_label}: {said}")


def _frame(x_low: float, x_high: float, y_low: float, y_high: float, x_label: str, y_label: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for y, value in ((_TOP, y_high), ((_TOP + bottom) / 2, (y_low + y_high) / 2), (bottom, y_low))
    )
    return (
        f'{grid}<text class="tick" x="{_LEFT}" y="{bottom + 16}">{x_low:g}</text>'
        f'<text class="tick" x="{right}" y="{bottom + 16}" text-anchor="end">{x_high:g}</text>'
        f'<text class="tick" x="{(_LEFT + right) / 2}" y="{bottom + 30}" text-anchor="middle">{escape(x_label)}</text>'
    )


def _svg(inside: str, description: str) -> Markup:
    # Every text inside was escaped.
    about = escape(description)
    return Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{about}">{inside}</svg>')


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _apart(wanted: Mapping[str, float]) -> dict[str, float]:
    """Heights of the labels, in their order, none nearer to the next than a line of text."""
    placed: dict[str, float] = {}
    last = float("-inf")
    for name, height in sorted(wanted.items(), key=lambda pair: pair[1]):
        last = max(height, last + _LABEL_GAP)
        placed[name] = last
    return placed
