"""Users with known tastes, what they are shown, and the traces they leave.

A user is shown lists. A policy that knows the tastes draws a list item by item without replacement (Plackett and Luce),
a little of it at random; each place is an impression with the propensity of its item there, given those above it. A
user looks at a place the more rarely the further down it is, and leaves traces only of what was looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.config import WorldSettings
from avrec_spark.events.types import IMPRESSION, LIKE, SHARE, SKIP, VIEW
from avrec_spark.world.factors import LEVELS, SENSES, Clip

FIRST_DAY = datetime(2026, 8, 1, tzinfo=UTC)
PUBLISHING_DAYS, DAYS = 45, 90
LAST_DAY = FIRST_DAY + timedelta(days=DAYS)
PLATFORMS = ("short_video", "live", "social")
# How strongly taste, against popularity and chance, decides what a user is shown.
_TASTE = 2.6
_POPULARITY = 0.7
# So much of a user's taste hangs on the sense that the user goes by.
_OWN_SENSE = 0.85
# The places of a list, and how likely each is to be looked at.
EXAMINED = tuple((1 + place) ** -0.6 for place in range(6))
# So many of a hundred users only skip: they leave traces and no preference.
_SKIPPERS = 0.02


@dataclass(frozen=True)
class Population:
    """`senses` says what each user goes by: look, sound or words.

    `tastes` is float64[users, all levels of all factors], `affinity` float64[users, clips], and `popularity`
    float64[clips].
    """

    user_ids: list[str]
    senses: list[str]
    tastes: NDArray[np.float64]
    affinity: NDArray[np.float64]
    popularity: NDArray[np.float64]

    def appeal(self) -> NDArray[np.float64]:
        """float64[users, clips]: by this, and by chance, users are shown clips. The oracle ranks by it."""
        return np.asarray(_TASTE * self.affinity + _POPULARITY * self.popularity)


def populate(clips: list[Clip], settings: WorldSettings) -> Population:
    """Users who go by one sense: most of their taste is for its factors, a little for the others."""
    generator = np.random.default_rng([settings.seed, 3])
    senses = generator.choice(list(SENSES), settings.users).tolist()
    care = np.stack([_care(sense, generator) for sense in senses])
    tastes = np.concatenate(
        [
            care[:, [n]] ** 0.5 * _contrast(generator.normal(size=(settings.users, len(levels))))
            for n, levels in enumerate(LEVELS.values())
        ],
        axis=1,
    )
    affinity = tastes @ planted(clips).T
    return Population(
        user_ids=[f"u{generator.bytes(4).hex()}" for _ in range(settings.users)],
        senses=senses,
        tastes=tastes,
        affinity=affinity / affinity.std(),
        popularity=generator.normal(size=len(clips)),
    )


def _care(sense: str, generator: np.random.Generator) -> NDArray[np.float64]:
    """float64[factors] that sum to 1: how much a user cares for each."""
    own = np.array([factor in SENSES[sense] for factor in LEVELS])
    care = np.zeros(len(LEVELS))
    care[own] = _OWN_SENSE * generator.dirichlet(np.full(own.sum(), 2.0))
    care[~own] = (1 - _OWN_SENSE) * generator.dirichlet(np.ones((~own).sum()))
    return care


def planted(clips: Sequence[Clip]) -> NDArray[np.float64]:
    """float64[clips, all levels of all factors], 1 at each level that a clip has; 0 for a factor that it lacks."""
    return np.concatenate(
        [
            np.eye(len(levels))[[clip.level(factor) for clip in clips]]
            * np.array([[clip.has(factor)] for clip in clips])
            for factor, levels in LEVELS.items()
        ],
        axis=1,
    )


def _contrast(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Preferences that sum to nothing: to like one level is to like the others less."""
    return values - values.mean(axis=1, keepdims=True)


def simulate(
    clips: list[Clip], published: list[datetime], population: Population, settings: WorldSettings
) -> list[dict[str, Any]]:
    """Events in order of time: impressions, views and skips, likes and shares of what was liked.

    Clips that come out after the last day are shown to nobody.
    """
    generator = np.random.default_rng([settings.seed, 4])
    out = np.flatnonzero([time < LAST_DAY for time in published])
    appeal = population.appeal()[:, out]
    events: list[dict[str, Any]] = []
    for user, user_id in enumerate(population.user_ids):
        # Who is in the mood to skip likes nothing.
        mood = -9.0 if generator.random() < _SKIPPERS else 0.0
        looks = max(3, settings.events_per_user * 0.75 * generator.lognormal(-0.15, 0.55))
        for _ in range(max(1, round(looks / sum(EXAMINED)))):
            places, propensities = _draw_list(appeal[user], generator)
            items = out[places]
            moment = _moment(max(published[item] for item in items), generator)
            common = {
                c.USER_ID: user_id,
                c.PLATFORM: str(generator.choice(PLATFORMS)),
                c.SESSION_ID: f"s{generator.integers(2**32):08x}",
                c.LIST_ID: f"l{generator.integers(2**32):08x}",
            }
            for place, (item, propensity) in enumerate(zip(items, propensities, strict=True)):
                shown = common | {c.ITEM_ID: clips[item].item_id}
                events.append(
                    _event(shown, IMPRESSION, moment) | {c.POSITION: place, c.PROPENSITY: round(float(propensity), 6)}
                )
                if generator.random() < EXAMINED[place]:
                    liked = mood + population.affinity[user, item] + generator.normal(0, 0.5)
                    events += _traces(shown, clips[item], moment, liked, generator)
                moment += timedelta(seconds=float(generator.uniform(5, 40)))
    events.sort(key=lambda event: tuple(event[name] for name in (c.TIMESTAMP, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE)))
    for number, event in enumerate(events):
        event[c.EVENT_ID] = f"e{number:07d}"
    return events


def _draw_list(
    appeal: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Distinct items, best place first, and how likely each was there among those not placed above it."""
    share = np.exp(appeal - appeal.max())
    # A tenth of what a user sees is put before everybody.
    share = 0.9 * share / share.sum() + 0.1 / len(share)
    # The largest of log-probabilities with Gumbel noise are a draw without replacement, in its order.
    items = np.argsort(-(np.log(share) + generator.gumbel(size=len(share))))[: len(EXAMINED)]
    taken = np.cumsum(share[items]) - share[items]
    return items, np.minimum(share[items] / (1 - taken), 1.0)


def _moment(published: datetime, generator: np.random.Generator) -> datetime:
    """Some time after the item came out, sooner rather than later."""
    return published + (LAST_DAY - published) * float(generator.beta(1.0, 1.6))


def _traces(
    shown: dict[str, Any], clip: Clip, moment: datetime, liked: float, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """What one encounter leaves behind: a skip, or a view and perhaps a like or a share."""
    if liked < -0.8:
        return [_event(shown, SKIP, moment) | {c.WATCH_SECONDS: round(float(generator.uniform(0.2, 1.5)), 1)}]
    share = float(np.clip(0.55 + 0.3 * liked + generator.normal(0, 0.1), 0.1, 1.0))
    traces = [_event(shown, VIEW, moment) | {c.WATCH_SECONDS: round(clip.seconds * share, 1)}]
    if generator.random() < 0.25 * (liked > 0.8):
        traces.append(_event(shown, LIKE, moment + timedelta(seconds=clip.seconds)))
    if generator.random() < 0.08 * (liked > 1.2):
        traces.append(_event(shown, SHARE, moment + timedelta(seconds=clip.seconds + 3)))
    return traces


def _event(shown: dict[str, Any], kind: str, moment: datetime) -> dict[str, Any]:
    return shown | {c.EVENT_TYPE: kind, c.TIMESTAMP: moment.isoformat(timespec="milliseconds")}
