"""Users with known tastes, and the traces they leave."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.config import WorldSettings
from avrec_spark.world.factors import LEVELS, Clip

FIRST_DAY = datetime(2026, 8, 1, tzinfo=UTC)
PUBLISHING_DAYS, DAYS = 45, 90
PLATFORMS = ("short_video", "live", "social")
# How strongly taste, against popularity and chance, decides what a user watches.
_TASTE = 2.6
_POPULARITY = 1.0
# So many of a hundred users only skip: they leave traces and no preference.
_SKIPPERS = 0.02


@dataclass(frozen=True)
class Population:
    """`tastes` is float64[users, all levels of all factors]; `affinity` float64[users, clips]."""

    user_ids: list[str]
    tastes: NDArray[np.float64]
    affinity: NDArray[np.float64]
    popularity: NDArray[np.float64]


def populate(clips: list[Clip], settings: WorldSettings) -> Population:
    """Users who like mixtures of the factors: each cares for each factor to a degree and for its levels differently."""
    generator = np.random.default_rng([settings.seed, 3])
    widths = [len(levels) for levels in LEVELS.values()]
    care = generator.dirichlet(np.full(len(widths), 0.7), settings.users)
    tastes = np.concatenate(
        [
            (care[:, [n]] * len(widths)) ** 0.5 * _contrast(generator.normal(size=(settings.users, width)))
            for n, width in enumerate(widths)
        ],
        axis=1,
    )
    planted = np.concatenate(
        [np.eye(len(levels))[[clip.level(factor) for clip in clips]] for factor, levels in LEVELS.items()], axis=1
    )
    affinity = tastes @ planted.T
    return Population(
        user_ids=[f"u{generator.bytes(4).hex()}" for _ in range(settings.users)],
        tastes=tastes,
        affinity=affinity / affinity.std(),
        popularity=generator.normal(size=len(clips)),
    )


def _contrast(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Preferences that sum to nothing: to like one level is to like the others less."""
    return values - values.mean(axis=1, keepdims=True)


def simulate(
    clips: list[Clip], published: list[datetime], population: Population, settings: WorldSettings
) -> list[dict[str, Any]]:
    """Events in order of time: views and skips, likes and shares of what was liked, some watched again."""
    generator = np.random.default_rng([settings.seed, 4])
    logits = _TASTE * population.affinity + _POPULARITY * population.popularity
    events: list[dict[str, Any]] = []
    for user, user_id in enumerate(population.user_ids):
        skips_only = generator.random() < _SKIPPERS
        count = max(3, round(settings.events_per_user * 0.75 * generator.lognormal(-0.15, 0.55)))
        share = np.exp(logits[user] - logits[user].max())
        # A tenth of what a user sees was put before everybody.
        share = 0.9 * share / share.sum() + 0.1 / len(clips)
        for item in generator.choice(len(clips), count, p=share):
            moment = _moment(published[item], generator)
            liked = population.affinity[user, item] + generator.normal(0, 0.5)
            session = f"s{generator.integers(2**32):08x}"
            events += _traces(user_id, clips[item], moment, -9.0 if skips_only else liked, session, generator)
    events.sort(key=lambda event: tuple(event[name] for name in (c.TIMESTAMP, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE)))
    for number, event in enumerate(events):
        event[c.EVENT_ID] = f"e{number:07d}"
    return events


def _moment(published: datetime, generator: np.random.Generator) -> datetime:
    """Some time after the item came out, sooner rather than later."""
    last = FIRST_DAY + timedelta(days=DAYS)
    return published + (last - published) * float(generator.beta(1.0, 1.6))


def _traces(
    user_id: str, clip: Clip, moment: datetime, liked: float, session: str, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """What one encounter leaves behind: a skip, or a view and perhaps a like or a share."""
    common = {
        c.USER_ID: user_id,
        c.ITEM_ID: clip.item_id,
        c.PLATFORM: str(generator.choice(PLATFORMS)),
        c.SESSION_ID: session,
    }

    def event(kind: str, after: float, watched: float | None = None) -> dict[str, Any]:
        time = moment + timedelta(seconds=after)
        seconds = {} if watched is None else {c.WATCH_SECONDS: round(watched, 1)}
        return common | {c.EVENT_TYPE: kind, c.TIMESTAMP: time.isoformat(timespec="milliseconds")} | seconds

    if liked < -0.8:
        return [event("skip", 0.0, float(generator.uniform(0.2, 1.5)))]
    share = float(np.clip(0.55 + 0.3 * liked + generator.normal(0, 0.1), 0.1, 1.0))
    traces = [event("view", 0.0, clip.seconds * share)]
    if generator.random() < 0.25 * (liked > 0.8):
        traces.append(event("like", clip.seconds))
    if generator.random() < 0.08 * (liked > 1.2):
        traces.append(event("share", clip.seconds + 3))
    return traces
