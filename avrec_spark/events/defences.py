"""Who is no person, and what is no crowd: verdicts that need all events of a user, of an address or of an item.

Each kernel takes the events of many whole users (addresses, items) at once, so that a process pool or Spark can share
the work out; `defend` runs all of them on one frame. Thresholds are settings, and none depends on the order of rows.
Impressions are what the platform did, and are not judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings
from avrec_spark.events import reasons
from avrec_spark.events.types import IMPRESSION

FIRST_SEEN = "first_seen"
DAY = "day"
NEWCOMERS = "newcomers"
_A_DAY = np.timedelta64(1, "D")


def defend(events: pd.DataFrame, settings: DefenceSettings) -> pd.Series[Any]:
    """For each accepted event the reason to refuse it after all, else None.

    `events` has event_id (unique), user_id, item_id, event_type, timestamp (datetime64, UTC) and optionally address.
    """
    reason: pd.Series[Any] = pd.Series([None] * len(events), index=events.index, dtype=object)
    if not settings.enabled:
        return reason
    acts = events[events[c.EVENT_TYPE] != IMPRESSION]
    users = judge_users(acts, settings)
    reason[acts.index] = acts[c.USER_ID].map(users.set_index(c.USER_ID)[c.REASON]).to_numpy()
    acts = acts[reason[acts.index].isna()].merge(users[[c.USER_ID, FIRST_SEEN]], on=c.USER_ID)
    floods = judge_items(acts, arrivals(users), settings)
    if c.ADDRESS in acts:
        floods = pd.concat([judge_addresses(acts, settings), floods]).drop_duplicates(c.EVENT_ID)
    told = events[c.EVENT_ID].map(floods.set_index(c.EVENT_ID)[c.REASON])
    return reason.where(reason.notna(), told.astype(object)).where(lambda one: one.notna(), None)


# -- users -----------------------------------------------------------------------------------------------------------


def judge_users(acts: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    """One row a user: user_id, first_seen, and the reason to refuse all the user's events, or None.

    bot_rate: more acts in some minute, hour or day than a person can do. bot_regularity: of at least
    `regular_intervals` intervals between acts on different items, the share `regular_share` lies within
    `regular_tolerance` of the user's median. A song on repeat is not regular in this sense, and equal times count once.
    """
    acts = acts.sort_values([c.USER_ID, c.TIMESTAMP, c.ITEM_ID], kind="stable")
    by_user = acts.groupby(c.USER_ID, sort=False)[c.TIMESTAMP]
    verdicts = by_user.min().rename(FIRST_SEEN).to_frame().assign(**{c.REASON: None})
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


# -- addresses and items ---------------------------------------------------------------------------------------------


def judge_addresses(acts: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    """Refused events (event_id, reason): users of one address who on one day (UTC) come together on one item.

    They must be `address_users` or more, and `address_share` or more of all users of the address on that day: the
    users of a campus or a mobile network share an address, but not an item.
    """
    acts = acts[acts[c.ADDRESS].notna()]
    acts = acts.assign(**{DAY: acts[c.TIMESTAMP].dt.floor("D")})
    here = acts.groupby([c.ADDRESS, DAY])[c.USER_ID].transform("nunique")
    together = acts.groupby([c.ADDRESS, DAY, c.ITEM_ID])[c.USER_ID].transform("nunique")
    flood = (together >= settings.address_users) & (together >= settings.address_share * here)
    return _refused(acts[flood], reasons.ADDRESS_FLOOD)


def arrivals(users: pd.DataFrame) -> pd.DataFrame:
    """How many users came first on each day (UTC): day, newcomers; `users` has first_seen."""
    days = users[FIRST_SEEN].dt.floor("D").value_counts()
    return days.rename_axis(DAY).rename(NEWCOMERS).reset_index()


def judge_items(acts: pd.DataFrame, arrived: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    """Refused events (event_id, reason) of whole items; `acts` with each user's first_seen, `arrived` from `arrivals`.

    repeat_flood: acts of one user on the item beyond `max_repeats_per_day` in 24 hours. newcomer_flood: n users came to
    the platform and to the item on one day, at least `flood_users` and more than `flood_factor` times the expected
    N (x + 1) / (M + 1): N newcomers of that day in all, M of the other days, x of those on the item on their first
    day. In the `flood_grace_days` after an item's first event nothing is expected, so nothing is refused.
    """
    acts = acts.sort_values([c.ITEM_ID, c.USER_ID, c.TIMESTAMP, c.EVENT_ID], kind="stable")
    back = acts.groupby([c.ITEM_ID, c.USER_ID], sort=False)[c.TIMESTAMP].shift(settings.max_repeats_per_day)
    repeated = acts[acts[c.TIMESTAMP] - back < _A_DAY]
    return pd.concat(
        [_newcomer_floods(acts, arrived, settings), _refused(repeated, reasons.REPEAT_FLOOD)]
    ).drop_duplicates(c.EVENT_ID)


def _newcomer_floods(acts: pd.DataFrame, arrived: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    began = acts.groupby(c.ITEM_ID)[c.TIMESTAMP].transform("min").dt.floor("D")
    acts = acts.assign(**{DAY: acts[c.TIMESTAMP].dt.floor("D"), "began": began})
    new = acts[acts[FIRST_SEEN].dt.floor("D") == acts[DAY]]
    found = new.groupby([c.ITEM_ID, DAY]).agg(n=(c.USER_ID, "nunique"), began=("began", "first")).reset_index()
    elsewhen = found.groupby(c.ITEM_ID)["n"].transform("sum") - found["n"]
    came = found[DAY].map(arrived.set_index(DAY)[NEWCOMERS])
    expected = came * (elsewhen + 1) / (arrived[NEWCOMERS].sum() - came + 1)
    flood = (found["n"] >= settings.flood_users) & (found["n"] > settings.flood_factor * expected)
    flood &= found[DAY] - found["began"] >= settings.flood_grace_days * _A_DAY
    return _refused(new.merge(found.loc[flood, [c.ITEM_ID, DAY]]), reasons.NEWCOMER_FLOOD)


def _refused(acts: pd.DataFrame, reason: str) -> pd.DataFrame:
    return acts[[c.EVENT_ID]].assign(**{c.REASON: reason})
