"""What the report says of the platform's understanding of items, shaped for its templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from avrec_spark.evaluation.metrics import parts
from avrec_spark.report import charts
from avrec_spark.report.comparison import Compared
from avrec_spark.report.data import Ablation, ItemMap, Point
from avrec_spark.report.template import count, is_missing, jpeg

_WIDTH, _HEIGHT, _EDGE = 1100, 620, 36
# Some points show their picture, of this size from its middle: so far apart at least, over no more other points.
_HALF, _APART, _COVERED, _PICTURES = (32, 20), (84, 58), 3, 60


def gates(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Modalities as columns, groups as rows by what they are groups of: all items first; None without any."""
    if frame.empty:
        return None
    modalities = sorted(map(str, frame["modality"].unique()))
    groups: dict[str, list[dict[str, Any]]] = {}
    for (by, group), rows in frame.groupby(["by", "group"], sort=False):
        shares = rows.set_index("modality")["gate"]
        row = {"group": group, "items": rows["items"].iloc[0], "gates": [_plain(shares.get(one)) for one in modalities]}
        groups.setdefault(str(by), []).append(row)
    return {"modalities": modalities, "groups": dict(sorted(groups.items()))}


def item_map(found: ItemMap | None) -> dict[str, Any] | None:
    """Points in pixels, what is said of each, and the few that show their picture; None without a map."""
    if found is None or not found.points:
        return None
    groups = sorted({point.group for point in found.points if point.group})
    points: list[dict[str, Any]] = [
        {
            "number": number,
            "x": round(_EDGE + point.x * (_WIDTH - 2 * _EDGE), 1),
            "y": round(_HEIGHT - _EDGE - point.y * (_HEIGHT - 2 * _EDGE), 1),
            "colour": groups.index(point.group) if point.group else None,
            "touched": point.touched,
        }
        for number, point in enumerate(found.points)
    ]
    pictures = [jpeg(point.clip.thumbnail) if point.clip.thumbnail else "" for point in found.points]
    shown = _spread(points, pictures)
    whose = "the fusion model's vectors" if found.kind == "fused" else f"vectors of {found.kind}"
    drawn = (
        f" {count(len(points))} of {count(found.items)} items, drawn at random." if len(points) < found.items else ""
    )
    return {
        "title": f"{count(len(points))} items by {whose}",
        "reading": "t-SNE: items that lie together are alike; how far groups lie apart says nothing. Every "
        "point shows its picture when it is pointed at." + drawn,
        "groups": groups,
        "others": any(not point.group for point in found.points),
        "untouched": any(not point.touched for point in found.points),
        "dots": [point for point in points if point["number"] not in shown],
        "pictures": [{**points[number], "image": pictures[number]} for number in shown],
        "items": [
            [point.clip.name, _note(point), picture] for point, picture in zip(found.points, pictures, strict=True)
        ],
        "width": _WIDTH,
        "height": _HEIGHT,
        "radius": 6 if len(points) <= 300 else 4,
    }


def _note(point: Point) -> str:
    return " · ".join(filter(None, (point.group, "" if point.touched else "nobody has acted on it")))


def _spread(points: Sequence[dict[str, Any]], pictures: Sequence[str]) -> list[int]:
    """Which pictures cover neither each other nor many other points, those first that cover fewest."""
    places = np.array([(point["x"], point["y"]) for point in points])
    covered = [int((np.abs(places - place) <= _HALF).all(axis=1).sum()) - 1 for place in places]
    chosen: list[int] = []
    for number in np.argsort(covered, kind="stable").tolist():
        free = all((np.abs(places[number] - places[other]) > _APART).any() for other in chosen)
        if pictures[number] and free and covered[number] <= _COVERED and len(chosen) < _PICTURES:
            chosen.append(number)
    return chosen


def ablation(found: Ablation) -> dict[str, Any] | None:
    """Variants as rows, all modalities first, then each left out and each alone, by what is lost; None without any."""
    if found.metrics.empty:
        return None
    compared = Compared(found.metrics, found.comparisons)
    names = compared.names
    means = {(row["model"], row["metric"]): row["mean"] for row in found.metrics.to_dict("records")}
    against = {(row["model"], row["metric"]): row for row in found.comparisons.to_dict("records")}
    variants = sorted(
        map(str, found.metrics["model"].unique()), key=lambda one: (_kind(one), means.get((one, compared.lead), 0.0))
    )
    lead = {one: against[one, compared.lead] for one in variants if (one, compared.lead) in against}
    k = parts(compared.lead)[1]
    return {
        "caption": f"{parts(compared.lead)[0].upper()} at {k} on validation, measured by run {found.run_id}; ≈ is not "
        "told apart from all modalities by a paired test",
        "names": [name.replace("/", ", ").replace("-", " ") for name in names],
        "rows": [
            {"variant": one, "cells": [_cell(means.get((one, name)), against.get((one, name))) for name in names]}
            for one in variants
        ],
        "chart": charts.intervals(
            {one: (row["difference"], row["low"], row["high"]) for one, row in lead.items()}, "difference"
        ),
    }


def _kind(variant: str) -> int:
    return 1 if variant.startswith("without ") else 2 if variant.endswith(" alone") else 0


def _cell(mean: float | None, against: dict[Any, Any] | None) -> dict[str, Any]:
    known = against is not None and against["reference"] > 0
    return {
        "mean": mean,
        "change": against["difference"] / against["reference"] if against is not None and known else None,
        "significant": bool(against["significant"]) if against is not None else False,
    }


def _plain(value: Any) -> float | None:
    return None if is_missing(value) else float(value)
