"""What the report of a run shows, as plain values; every part may be empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

# The labels job's page, beside the report.
REVIEW_PAGE = "review.html"


@dataclass(frozen=True)
class Clip:
    """An item as people know it; `thumbnail` is a JPEG."""

    item_id: str
    title: str
    thumbnail: bytes | None = None
    duration: float | None = None
    status: str = "ok"
    reason: str | None = None


@dataclass(frozen=True)
class Shown:
    """An item in a list, with what is said of it there: a score, a reason, an event."""

    clip: Clip
    note: str = ""
    score: float | None = None


@dataclass(frozen=True)
class UserStory:
    """What a user did and is recommended; `fallback` when nothing was known of the user's taste.

    `history` shows the latest of `history_items` items.
    """

    user_id: str
    history: Sequence[Shown]
    recommendations: Sequence[Shown]
    fallback: bool = False
    history_items: int = 0


def _empty(*columns: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


@dataclass(frozen=True)
class ReportData:
    """All of it.

    `jobs` job, seconds, counts · `quarantine` source, reason, detail, count, example · `coverage` modality, encoder,
    encoder_version, dimension, items, share · `curves` model, metric, epoch, value · `metrics` and `comparisons` as of
    `comparison.Compared`, `comparison` the link to their own page, `review` that to the labels to review · `gates`
    modality → mean share · `neighbours` pairs of a clip and its neighbours by kind · `lineage` table → Delta version.
    """

    run_id: str
    started: datetime | None = None
    finished: datetime | None = None
    code_version: str = ""
    jobs: pd.DataFrame = field(default_factory=lambda: _empty("job", "seconds", "counts"))
    quarantine: pd.DataFrame = field(default_factory=lambda: _empty("source", "reason", "detail", "count", "example"))
    items: int = 0
    media_seconds: float = 0.0
    media_statuses: Mapping[str, int] = field(default_factory=dict)
    events_in: int = 0
    interactions: int = 0
    users: int = 0
    contact_sheet: Sequence[Clip] = ()
    coverage: pd.DataFrame = field(
        default_factory=lambda: _empty("modality", "encoder", "encoder_version", "dimension", "items", "share")
    )
    curves: pd.DataFrame = field(default_factory=lambda: _empty("model", "metric", "epoch", "value"))
    metrics: pd.DataFrame = field(default_factory=lambda: _empty("model", "split", "metric", "mean", "low", "high"))
    comparisons: pd.DataFrame = field(default_factory=lambda: _empty("split", "metric", "model"))
    comparison: str | None = None
    review: str | None = None
    champion: Mapping[str, Any] | None = None
    gates: Mapping[str, float] = field(default_factory=dict)
    stories: Sequence[UserStory] = ()
    neighbours: Sequence[tuple[Clip, Mapping[str, Sequence[Shown]]]] = ()
    lineage: Mapping[str, int] = field(default_factory=dict)
