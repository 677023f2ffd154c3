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
    title: str | None
    thumbnail: bytes | None = None
    duration: float | None = None
    status: str = "ok"
    reason: str | None = None

    @property
    def name(self) -> str:
        """The title; of an item without one its id, and that it has none.

        >>> Clip("33b8", "Noodle soup").name, Clip("33b8", None).name
        ('Noodle soup', 'Untitled (33b8)')
        """
        return self.title or f"Untitled ({self.item_id})"


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


@dataclass(frozen=True)
class Reason:
    """Why a user got an item: the item of the user's history that speaks most for it, None where none does."""

    user_id: str
    rank: int
    score: float
    because: Clip | None


@dataclass(frozen=True)
class NewItem:
    """An item of which little is known: how many users expressed a preference for it, and how many it was recommended
    to, some of them with the reason; `near` are its neighbours by content, each with the modalities that say so.
    """

    clip: Clip
    touched_by: int
    recommended_to: int
    reasons: Sequence[Reason] = ()
    near: Sequence[Shown] = ()


@dataclass(frozen=True)
class NewItems:
    """`untouched` items that can be shown have no preference of anybody; of these `recommended` are on some list."""

    untouched: int = 0
    recommended: int = 0
    shown: Sequence[NewItem] = ()


@dataclass(frozen=True)
class Point:
    """An item on the map, x and y from 0 to 1; `group` is one of its tags, `touched` whether anybody acted on it."""

    clip: Clip
    x: float
    y: float
    group: str = ""
    touched: bool = True


@dataclass(frozen=True)
class ItemMap:
    """Some of the `items` that have a vector of this `kind`: of the fusion model, or of a modality."""

    kind: str
    items: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Tagged:
    """An item with the tags that it declares and those that are predicted, with their confidence."""

    clip: Clip
    declared: Sequence[str]
    predicted: Sequence[tuple[str, float]]


def _empty(*columns: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


@dataclass(frozen=True)
class Labels:
    """What the labels job of the run has learnt; empty where it did not run, or found nothing to learn.

    `quality` model, split, metric, mean · `reliability` kind, confidence, share, pairs · `tagged` some of the
    `tagged_items` with predicted tags · `review` the link to the page of labels to review.
    """

    chosen: str = ""
    quality: pd.DataFrame = field(default_factory=lambda: _empty("model", "split", "metric", "mean"))
    reliability: pd.DataFrame = field(default_factory=lambda: _empty("kind", "confidence", "share", "pairs"))
    tagged: Sequence[Tagged] = ()
    tagged_items: int = 0
    review: str | None = None


@dataclass(frozen=True)
class Ablation:
    """What each modality is worth to the fusion model: `metrics` and `comparisons` as of `comparison.Compared`.

    Models are the variants, all compared with the one of all modalities; `run_id` is the run that measured it.
    """

    run_id: str = ""
    metrics: pd.DataFrame = field(default_factory=lambda: _empty("model", "metric", "mean"))
    comparisons: pd.DataFrame = field(default_factory=lambda: _empty("model", "metric"))


@dataclass(frozen=True)
class ReportData:
    """All of it.

    `jobs` job, seconds, counts · `quarantine` source, reason, detail, count, example · `coverage` modality, encoder,
    encoder_version, dimension, items, share · `curves` model, metric, epoch, value · `metrics` and `comparisons` as of
    `comparison.Compared`, `comparison` the link to their own page · `gates` by, group, items, modality, gate: the mean
    share of a modality over the items of a group that have it · `neighbours` pairs of a clip and its neighbours by
    kind · `lineage` table → Delta version.
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
    acts: int = 0
    impressions: int = 0
    users: int = 0
    contact_sheet: Sequence[Clip] = ()
    coverage: pd.DataFrame = field(
        default_factory=lambda: _empty("modality", "encoder", "encoder_version", "dimension", "items", "share")
    )
    curves: pd.DataFrame = field(default_factory=lambda: _empty("model", "metric", "epoch", "value"))
    metrics: pd.DataFrame = field(default_factory=lambda: _empty("model", "split", "metric", "mean", "low", "high"))
    comparisons: pd.DataFrame = field(default_factory=lambda: _empty("split", "metric", "model"))
    comparison: str | None = None
    champion: Mapping[str, Any] | None = None
    gates: pd.DataFrame = field(default_factory=lambda: _empty("by", "group", "items", "modality", "gate"))
    labels: Labels = Labels()
    item_map: ItemMap | None = None
    ablation: Ablation = Ablation()
    stories: Sequence[UserStory] = ()
    new_items: NewItems = NewItems()
    neighbours: Sequence[tuple[Clip, Mapping[str, Sequence[Shown]]]] = ()
    lineage: Mapping[str, int] = field(default_factory=dict)
