"""Small charts as inline SVG; colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Series = Sequence[tuple[float, float]]
# A figure with its 95 % interval: mean, low, high.
Interval = tuple[float, float, float]

_WIDTH, _HEIGHT, _TALL = 460, 250, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 84, 16, 44
# So close may two labels at the right edge come, in pixels.
_LABEL_GAP = 15
# Of a label's letters, 12 px and bold, about.
_LETTER_WIDTH, _LETTER_HEIGHT = 7.4, 13.0
# How far from its point a label may lie, in pixels.
_DISTANCES = (7, 20, 34, 50)
_ROW = 26
_COLOURS = 6


@dataclass(frozen=True)
class _Frame:
    """Where values lie: those at the edges of the plot, its margin on either side, and the height of the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: int = _LEFT
    right: int = _RIGHT
    height: int = _HEIGHT

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_low) / (self.x_high - self.x_low) * (_WIDTH - self.left - self.right)
        down = (self.y_high - y) / (self.y_high - self.y_low) * (self.bottom - _TOP)
        return self.left + across, _TOP + down


def lines(series: Mapping[str, Series], x_label: str, y_label: str) -> Markup:
    """A line chart of a few named series, each labelled at its end; values that are not finite are left out."""
    finite = _finite(series)
    if not finite:
        return Markup("")
    xs = [x for values in finite.values() for x, _ in values]
    ys = [y for values in finite.values() for _, y in values]
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    frame = _Frame(min(xs), max(*xs, min(xs) + 1), y_ticks[0], y_ticks[-1])
    axes = _axes(frame, [x for x in x_ticks if frame.x_low <= x <= frame.x_high], y_ticks, x_label, y_label)
    said = "; ".join(f"{name} ends at {values[-1][1]:.4g}" for name, values in finite.items())
    return _svg(axes + _paths(frame, finite), f"{y_label} by {x_label}: {said}")


def reliability(series: Mapping[str, Series], x_label: str, y_label: str) -> Markup:
    """Named series in the unit square, a dot a point, with the diagonal that they lie on where both figures agree."""
    finite = _finite(series)
    if not finite:
        return Markup("")
    frame = _Frame(0.0, 1.0, 0.0, 1.0, height=_TALL)
    (left, bottom), (right, top) = frame.place(0, 0), frame.place(1, 1)
    diagonal = f'<line class="grid" x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" stroke-dasharray="5 4"/>'
    dots = "".join(
        '<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3"/>'.format(number % _COLOURS, *frame.place(x, y))
        for number, values in enumerate(finite.values())
        for x, y in values[:-1]
    )
    axes = _axes(frame, ticks(0, 1), ticks(0, 1), x_label, y_label)
    said = "; ".join(f"{name} {', '.join(f'{x:.2f} {y:.2f}' for x, y in values)}" for name, values in finite.items())
    return _svg(axes + diagonal + dots + _paths(frame, finite), f"{y_label} by {x_label}: {said}", frame.height)


def _finite(series: Mapping[str, Series]) -> dict[str, Series]:
    finite = {name: [point for point in values if all(map(math.isfinite, point))] for name, values in series.items()}
    return {name: values for name, values in finite.items() if values}


def _paths(frame: _Frame, series: Mapping[str, Series]) -> str:
    """Each series as a line with a dot and its name at the end."""
    label_at = _apart({name: frame.place(*values[-1])[1] for name, values in series.items()}, frame.bottom)
    parts = []
    for number, (name, values) in enumerate(series.items()):
        colour = f"s{number % _COLOURS}"
        path = " ".join("{:.1f},{:.1f}".format(*frame.place(x, y)) for x, y in values)
        x, y = frame.place(*values[-1])
        parts.append(
            f'<polyline class="line {colour}" points="{path}"/>'
            f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            f'<text class="label {colour}" x="{x + 8:.1f}" y="{label_at[name] + 4:.1f}">{escape(name)}</text>'
        )
    return "".join(parts)


def scatter(points: Mapping[str, tuple[Interval, Interval]], x_label: str, y_label: str) -> Markup:
    """Named points with the intervals of both figures as thin lines; those that are not finite are left out.

    A label goes to the side of its point where it covers nothing, as long as there is such a side.
    """
    finite = {name: pair for name, pair in points.items() if all(map(math.isfinite, (*pair[0], *pair[1])))}
    if not finite:
        return Markup("")
    x_ticks, y_ticks = (
        ticks(min(pair[side][1] for pair in finite.values()), max(pair[side][2] for pair in finite.values()))
        for side in (0, 1)
    )
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1], left=64, right=18, height=_TALL)
    places = {name: frame.place(x[0], y[0]) for name, (x, y) in finite.items()}
    labels = _around(places, frame)
    parts = [_axes(frame, x_ticks, y_ticks, x_label, y_label)]
    for number, (name, (x, y)) in enumerate(finite.items()):
        colour, (across, down) = f"s{number % _COLOURS}", places[name]
        (left, _), (right, _) = frame.place(x[1], y[0]), frame.place(x[2], y[0])
        (_, low), (_, high) = frame.place(x[0], y[1]), frame.place(x[0], y[2])
        parts.append(
            f'<line class="whisker {colour}" x1="{left:.1f}" x2="{right:.1f}" y1="{down:.1f}" y2="{down:.1f}"/>'
            f'<line class="whisker {colour}" x1="{across:.1f}" x2="{across:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
            f'<circle class="dot {colour}" cx="{across:.1f}" cy="{down:.1f}" r="4.5"/>'
        )
        start, top, end, baseline = labels[name]
        near = min(max(across, start), end), min(max(down, top), baseline)
        if math.dist(near, (across, down)) > 2 * _DISTANCES[0]:
            to = f'x2="{near[0]:.1f}" y2="{near[1]:.1f}"'
            parts.append(f'<line class="whisker {colour}" x1="{across:.1f}" y1="{down:.1f}" {to}/>')
        parts.append(f'<text class="label {colour}" x="{start:.1f}" y="{baseline - 3:.1f}">{escape(name)}</text>')
    said = "; ".join(f"{name} {x[0]:.4g}, {y[0]:.4g}" for name, (x, y) in finite.items())
    return _svg("".join(parts), f"{y_label} against {x_label}: {said}", frame.height)


def intervals(rows: Mapping[str, Interval], x_label: str) -> Markup:
    """A row for each name: a point at its mean, a line from low to high; those that are not finite are left out."""
    finite = {name: row for name, row in rows.items() if all(map(math.isfinite, row))}
    if not finite:
        return Markup("")
    x_ticks = ticks(min(low for _, low, _ in finite.values()), max(high for _, _, high in finite.values()))
    height = _TOP + _ROW * len(finite) + _BOTTOM
    left = round(max(map(len, finite)) * _LETTER_WIDTH) + 16
    frame = _Frame(x_ticks[0], x_ticks[-1], 0.0, float(len(finite)), left=left, right=18, height=height)
    parts = [_axes(frame, x_ticks, (), x_label, "")]
    for number, (name, (mean, low, high)) in enumerate(finite.items()):
        colour = f"s{number % _COLOURS}"
        across, down = frame.place(mean, len(finite) - number - 0.5)
        (start, _), (end, _) = frame.place(low, 0), frame.place(high, 0)
        parts.append(
            f'<text class="label {colour}" x="{left - 10}" y="{down + 4:.1f}" text-anchor="end">{escape(name)}</text>'
            f'<line class="line {colour}" x1="{start:.1f}" x2="{end:.1f}" y1="{down:.1f}" y2="{down:.1f}"/>'
            f'<circle class="dot {colour}" cx="{across:.1f}" cy="{down:.1f}" r="4.5"/>'
        )
    said = "; ".join(f"{name} {mean:.4g} ({low:.4g} to {high:.4g})" for name, (mean, low, high) in finite.items())
    return _svg("".join(parts), f"{x_label}: {said}", height)


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


def _axes(frame: _Frame, across: Iterable[float], down: Iterable[float], x_label: str, y_label: str) -> str:
    bottom, left, right = frame.bottom, frame.left, _WIDTH - frame.right
    rows = "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
        for value, y in ((value, frame.place(frame.x_low, value)[1]) for value in down)
    )
    columns = "".join(
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{value:.6g}</text>'
        for value, x in ((value, frame.place(value, frame.y_low)[0]) for value in across)
    )
    return (
        f"{rows}{columns}"
        f'<text class="tick" x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="tick" transform="translate(12 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )


def _svg(inside: str, description: str, height: int = _HEIGHT) -> Markup:
    # Every text inside was escaped.
    about = escape(description)
    return Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{about}">{inside}</svg>')


def _apart(wanted: Mapping[str, float], bottom: float) -> dict[str, float]:
    """Heights of the labels, in their order, none nearer to the next than a line of text."""
    placed: dict[str, float] = {}
    last = float("-inf")
    for name, height in sorted(wanted.items(), key=lambda pair: pair[1]):
        last = max(height, last + _LABEL_GAP)
        placed[name] = last
    # Labels that were pushed below the axis move up again, as one.
    beyond = max(last - bottom, 0.0) if placed else 0.0
    return {name: height - beyond for name, height in placed.items()}


_Box = tuple[float, float, float, float]


def _around(points: Mapping[str, tuple[float, float]], frame: _Frame) -> dict[str, _Box]:
    """The box of each point's label: on the nearest side where it covers nothing, else where it covers least."""
    taken: list[_Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in points.values()]
    edges = (float(frame.left), float(_TOP), _WIDTH - 2.0, float(frame.bottom))
    placed = {}
    for name, (x, y) in points.items():
        width = len(name) * _LETTER_WIDTH
        boxes = []
        for away in _DISTANCES:
            # Right, left, above, below, then the four corners.
            right, left, middle = x + away, x - away - width, x - width / 2
            above, below, level = y - away - _LETTER_HEIGHT, y + away, y - _LETTER_HEIGHT / 2
            sides = [(right, level), (left, level), (middle, above), (middle, below)]
            sides += [(right, above), (left, above), (right, below), (left, below)]
            boxes += [(across, down, across + width, down + _LETTER_HEIGHT) for across, down in sides]
        chosen = min(boxes, key=lambda box: _outside(box, edges) + sum(_shared(box, other) for other in taken))
        taken.append(chosen)
        placed[name] = chosen
    return placed


def _shared(one: _Box, other: _Box) -> float:
    """The area that two boxes share, in square pixels."""
    across, down = (min(one[n + 2], other[n + 2]) - max(one[n], other[n]) for n in (0, 1))
    return max(across, 0.0) * max(down, 0.0)


def _outside(box: _Box, edges: _Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, edges)
