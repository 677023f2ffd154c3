"""How figures are written for people, and the environment that templates are rendered in."""

from __future__ import annotations

import base64
import math
from functools import cache
from typing import Any

import jinja2
import pandas as pd

from avrec_spark.evaluation.metrics import better

MISSING = "–"


@cache
def environment() -> jinja2.Environment:
    """Templates of this package; texts of the data are escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("avrec_spark.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {one.__name__: one for one in (count, seconds, share, figure, score, p, arrow, jpeg)}
    return found


def count(number: float | None) -> str:
    """
    >>> count(29639), count(None)
    ('29,639', '–')
    """
    return MISSING if is_missing(number) else f"{number:,.0f}"


def seconds(value: float | None) -> str:
    """
    >>> seconds(7.26), seconds(59.96), seconds(754), seconds(9030), seconds(None)
    ('7.3 s', '1 min 0 s', '12 min 34 s', '2 h 30 min', '–')
    """
    if value is None or is_missing(value):
        return MISSING
    if round(value, 1) < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def share(value: float | None) -> str:
    """
    >>> share(0.9756), share(float("nan"))
    ('98 %', '–')
    """
    return MISSING if is_missing(value) else f"{value:.0%}".replace("%", " %")


def figure(value: float | None, digits: int = 4) -> str:
    """
    >>> figure(0.26184), figure(0.26184, 3), figure(None)
    ('0.2618', '0.262', '–')
    """
    return MISSING if is_missing(value) else f"{value:.{digits}f}"


def score(value: float | None) -> str:
    """A similarity in three digits; that of the popular list is a count.

    >>> score(0.26184), score(151.0)
    ('0.262', '151')
    """
    return count(value) if value is not None and value >= 10 else figure(value, 3)


def p(value: float) -> str:
    """
    >>> p(0.03456), p(3e-9)
    ('0.035', '< 0.0001')
    """
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def arrow(name: str) -> str:
    """Which way a metric is better.

    >>> arrow("ndcg@10"), arrow("gini@10")
    ('↑', '↓')
    """
    return "↑" if better(name) > 0 else "↓"


def jpeg(image: bytes) -> str:
    """The image as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
