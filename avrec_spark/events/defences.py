"""Who is no person, and what is no crowd: verdicts that need all events of a user, of an address, an item or a ring.

Each kernel takes the events of many whole users (addresses, items, bands of rings) at once, so that a process pool or
Spark can share the work out; `defend` runs all of them on one frame. Thresholds are settings, and none depends on the
order of rows. Impressions are what the platform did and count for nothing; those of a refused account go with it.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings
from avrec_spark.events import reasons
from avrec_spark.events.floods import COUNTS, FIRST_SEEN, arrivals, judge_addresses, judge_items, settle
from avrec_spark.events.rings import BAND, BANDS, judge_rings, opinions, sketch
from avrec_spark.events.types import IMPRESSION


def defend(events: pd.DataFrame, settings: DefenceSettings) -> pd.Series[Any]:
    """For each accepted event the reason to refuse it after all, else None.

    `events` has event_id (unique), user_id, item_id, event_type, timestamp (datetime64, UTC) and optionally address and
    opinion (of `weighting.opinions`; without it nobody has any). What is on an account goes before what is on an event;
    of several verdicts the first by name is told.
    """
    reason: pd.Series[Any] = pd.Series([None] * len(events), index=events.index, dtype=object)
    if not settings.enabled:
        return reason
    acts = events if c.OPINION in events else events.assign(**{c.OPINION: 0})
    acts = acts[acts[c.EVENT_TYPE] != IMPRESSION]
    users = judge_users(acts, settings)
    people = users[users[c.REASON].isna()]
    arrived = arrivals(users)
    acts = acts.merge(people[[c.USER_ID, FIRST_SEEN]], on=c.USER_ID)
    on_items = judge_items(acts, arrived, settings)
    of_crowds = on_items[c.EVENT_ID].isna()
    verdicts = [on_items[~of_crowds], settle(on_items[of_crowds]), _rings(acts, people, settings)]
    if c.ADDRESS in acts:
        verdicts.append(judge_addresses(acts, arrived, settings))
    found = pd.concat(verdicts).sort_values(c.REASON, kind="stable")
    on_events = found[found[c.EVENT_ID].notna()].drop_duplicates(c.EVENT_ID).set_index(c.EVENT_ID)[c.REASON]
    on_users = found[found[c.EVENT_ID].isna()].drop_duplicates(c.USER_ID)[[c.USER_ID, c.REASON]]
    bots = users.loc[users[c.REASON].notna(), [c.USER_ID, c.REASON]]
    accounts = pd.concat([bots, on_users]).set_index(c.USER_ID)[c.REASON]
    told = events[c.USER_ID].map(accounts).astype(object)
    told = told.where(told.notna(), events[c.EVENT_ID].map(on_events).astype(object))
    return told.where(told.notna(), None)


def _rings(acts: pd.DataFrame, people: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    bands = people[[c.USER_ID, BANDS]].dropna().explode(BANDS).rename(columns={BANDS: BAND})
    crowded = bands[bands.groupby(BAND)[c.USER_ID].transform("size") >= settings.ring_users]
    return judge_rings(opinions(acts).merge(crowded, on=c.USER_ID), acts[c.ITEM_ID].nunique(), settings)


def judge_users(acts: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    """One row a user: user_id, first_seen, acts, positive, negative (opinions), bands (of `sketch`), reason or None.

    bot_rate: more acts in some minute, hour or day than a person can do. bot_regularity: of at least
    `regular_intervals` intervals between acts on different items, the share `regular_share` lies within
    `regular_tolerance` of the user's median. A song on repeat is not regular in this sense, and equal times count once.
    """
    acts = acts.sort_values([c.USER_ID, c.TIMESTAMP, c.ITEM_ID], kind="stable")
    by_user = acts.groupby(c.USER_ID, sort=False)[c.TIMESTAMP]
    verdicts = by_user.min().rename(FIRST_SEEN).to_frame()
    opinion = acts[c.OPINION]
    for name, counted in zip(COUNTS, (opinion.notna(), opinion > 0, opinion < 0), strict=True):
        verdicts[name] = counted.groupby(acts[c.USER_ID], sort=False).sum()
    bands = sketch(acts, settings).reindex(verdicts.index)
    verdicts = verdicts.assign(**{BANDS: bands.where(bands.notna(), None), c.REASON: None})
    verdicts.loc[_regular(acts, settings), c.REASON] = reasons.BOT_REGULARITY
    limits = {
        "1min": settings.max_events_per_minute,
        "1h": settings.max_events_per_hour,
        "1D": settings.max_events_per_day,
    }
    for window, limit in limits.items():
        too_fast = acts[c.TIMESTAMP] - by_user.shift(limit) < pd.Timedelta(window)
        verdicts.loc[acts.loc[too_fast, c.USER_ID].unique(), c.REASON] = reasons.BOT_RATE
    return verdicts.reset_index()


def _regular(acts: pd.DataFrame, settings: DefenceSettings) -> pd.Index[Any]:
    """Users whose intervals are too equal; `acts` in order of user and time."""
    same_user = acts[c.USER_ID].eq(acts[c.USER_ID].shift())
    moved = ~same_user | acts[c.ITEM_ID].ne(acts[c.ITEM_ID].shift())
    turns = acts[moved & ~(same_user & acts[c.TIMESTAMP].eq(acts[c.TIMESTAMP].shift()))]
    seconds = turns.groupby(c.USER_ID, sort=False)[c.TIMESTAMP].diff().dt.total_seconds()
    intervals = pd.DataFrame({c.USER_ID: turns[c.USER_ID], "seconds": seconds}).dropna()
    by_user = intervals.groupby(c.USER_ID, sort=False)["seconds"]
    median = by_user.transform("median")
    near = (intervals["seconds"] - median).abs() <= settings.regular_tolerance * median
    told = near.groupby(intervals[c.USER_ID]).agg(["size", "mean"])
    return told.index[(told["size"] >= settings.regular_intervals) & (told["mean"] >= settings.regular_share)]
