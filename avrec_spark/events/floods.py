"""Crowds that are none: users of one address, or new users, who come together on one item.

What a crowd did on the item is refused. Where it came to tell one opinion, all that its accounts did is refused: the
rest of such a profile is there to carry the opinion to those who are meant to see it (B. Mobasher, R. Burke,
R. Bhaumik, C. Williams, Toward trustworthy recommender systems, ACM TOIT 2007, describes such profiles).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings
from avrec_spark.events import reasons

FIRST_SEEN = "first_seen"
DAY = "day"
NEWCOMERS = "newcomers"
ACTS = "acts"
POSITIVE = "positive"
NEGATIVE = "negative"
OPINIONS = (POSITIVE, NEGATIVE)
# What is counted of a user.
COUNTS = (ACTS, *OPINIONS)
# What an honest newcomer's being in a crowd is likely to: the expected users of it, a user of it.
ODDS = "odds"
_CROWD = "crowd"
_BEGAN = "began"
_A_DAY = np.timedelta64(1, "D")


def arrivals(users: pd.DataFrame) -> pd.DataFrame:
    """One row a day (UTC) on which users came first: day, newcomers, and the acts and opinions of these users in all.

    `users` has first_seen, acts, positive, negative.
    """
    by_day = users.groupby(users[FIRST_SEEN].dt.floor("D").rename(DAY))
    sums: dict[str, Any] = {name: (name, "sum") for name in COUNTS}
    return by_day.agg(**{NEWCOMERS: (FIRST_SEEN, "size")}, **sums).reset_index()


def agreement(share: pd.Series[Any], usual: float) -> pd.Series[Any]:
    """(share − usual) / (1 − usual): how far a crowd agrees beyond chance, at most 1; 0 where everybody always agrees.

    J. Cohen, A coefficient of agreement for nominal scales, Educ. Psychol. Meas. 1960, with the opinion's usual share.

    >>> agreement(pd.Series([1.0, 0.75, 0.5]), usual=0.5).tolist()
    [1.0, 0.5, 0.0]
    """
    return (share - usual) / (1 - usual) if usual < 1 else 0.0 * share


def judge_addresses(acts: pd.DataFrame, arrived: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    """Verdicts (event_id, user_id, reason) on users of one address who on one day (UTC) come together on one item.

    address_flood: they must be `address_users` or more, and `address_share` or more of all users of the address on that
    day: the users of a campus or a mobile network share an address, but not an item. flood_account, on the account
    (event_id is None): so many of them told the same opinion, and in the crowd they agree by `opinion_agreement`.
    """
    acts = acts[acts[c.ADDRESS].notna()]
    acts = acts.assign(**{DAY: acts[c.TIMESTAMP].dt.floor("D")})
    here = acts.groupby([c.ADDRESS, DAY])[c.USER_ID].transform("nunique")
    together = acts.groupby([c.ADDRESS, DAY, c.ITEM_ID])[c.USER_ID].transform("nunique")
    flood = acts[(together >= settings.address_users) & (together >= settings.address_share * here)]
    found, by = [_on_events(flood, reasons.ADDRESS_FLOOD)], [c.ADDRESS, DAY, c.ITEM_ID]
    members = _members(flood, by)
    crowds = _crowds(members, by)
    for opinion in OPINIONS:
        sworn = (crowds[opinion] >= settings.address_users) & _agree(crowds, opinion, arrived, settings)
        found.append(_on_accounts(members[members[opinion]].merge(crowds.loc[sworn, by])))
    return pd.concat(found)[[c.EVENT_ID, c.USER_ID, c.REASON]]


def judge_items(acts: pd.DataFrame, arrived: pd.DataFrame, settings: DefenceSettings) -> pd.DataFrame:
    """Verdicts (event_id, user_id, item_id, odds, reason) from the acts on whole items, with each user's first_seen.

    repeat_flood: acts of one user on the item beyond `max_repeats_per_day` in 24 hours. newcomer_flood: n users came to
    the platform and to the item on one day, at least `flood_users` and more than `flood_factor` times the expected
    N (x + 1) / (M + 1): N newcomers of that day in all, M of the other days (`arrived`, from `arrivals`), x of those on
    the item on their first day. flood_account, on the account (event_id is None), and for `settle` to confirm: the same
    with `opinion_factor` for a window of one of `opinion_days` instead of a day, where n and x count those of one
    opinion, and in the crowd they agree by `opinion_agreement`; odds is the expected / n. In the `flood_grace_days`
    after an item's first event nothing is expected, and nothing refused.
    """
    acts = acts.sort_values([c.ITEM_ID, c.USER_ID, c.TIMESTAMP, c.EVENT_ID], kind="stable")
    back = acts.groupby([c.ITEM_ID, c.USER_ID], sort=False)[c.TIMESTAMP].shift(settings.max_repeats_per_day)
    found, by = [_on_events(acts[acts[c.TIMESTAMP] - back < _A_DAY], reasons.REPEAT_FLOOD)], [c.ITEM_ID, DAY]
    acts = acts.assign(**{_BEGAN: acts.groupby(c.ITEM_ID)[c.TIMESTAMP].transform("min").dt.floor("D")})
    new = _newcomers(acts, 1)
    crowds = _crowds(_members(new, by), by)
    flood = _too_many(crowds, _CROWD, arrived, settings, settings.flood_factor, 1)
    found.append(_on_events(new.merge(flood[by]), reasons.NEWCOMER_FLOOD))
    for days in settings.opinion_days:
        members = _members(_newcomers(acts, days), by)
        crowds = _crowds(members, by)
        for opinion in OPINIONS:
            many = _too_many(crowds, opinion, arrived, settings, settings.opinion_factor, days)
            sworn = many.loc[_agree(many, opinion, arrived, settings), [*by, ODDS]]
            found.append(_on_accounts(members[members[opinion]].merge(sworn)))
    return pd.concat(found)[[c.EVENT_ID, c.USER_ID, c.ITEM_ID, ODDS, c.REASON]]


def settle(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Verdicts (event_id, user_id, reason) on the accounts of crowds, from all of these (user_id, item_id, odds).

    Accounts that push one item come together on those too that carry the attack, where they meet honest newcomers. So a
    crowd counts only unless half of its accounts or more are in a crowd on another item with smaller odds.
    """
    crowds = verdicts.groupby([c.USER_ID, c.ITEM_ID], as_index=False)[ODDS].min()
    crowds[ODDS] = crowds.groupby(c.ITEM_ID)[ODDS].transform("min")
    size = crowds.groupby(c.ITEM_ID)[c.USER_ID].size()
    pairs = crowds.merge(crowds, on=c.USER_ID, suffixes=("", "_of_other"))
    other = f"{c.ITEM_ID}_of_other"
    smaller = pairs[f"{ODDS}_of_other"] < pairs[ODDS]
    tied = (pairs[f"{ODDS}_of_other"] == pairs[ODDS]) & (pairs[other] < pairs[c.ITEM_ID])
    shared = pairs[smaller | tied].groupby([c.ITEM_ID, other], as_index=False).size()
    carried = shared.loc[2 * shared["size"] >= shared[c.ITEM_ID].map(size), c.ITEM_ID]
    return _on_accounts(crowds[~crowds[c.ITEM_ID].isin(carried)])[[c.EVENT_ID, c.USER_ID, c.REASON]]


def _newcomers(acts: pd.DataFrame, days: int) -> pd.DataFrame:
    """The acts in the window of days in which their user came first; `day` is the window's first."""
    acts = acts.assign(**{DAY: acts[c.TIMESTAMP].dt.floor(f"{days}D")})
    return acts[acts[FIRST_SEEN].dt.floor(f"{days}D") == acts[DAY]]


def _members(acts: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row a user of a crowd: whether he told each opinion, and when the item began."""
    began = _BEGAN if _BEGAN in acts else DAY
    opinions: dict[str, Any] = {POSITIVE: (c.OPINION, "max"), NEGATIVE: (c.OPINION, "min"), _BEGAN: (began, "first")}
    told = acts.groupby([*by, c.USER_ID]).agg(**opinions).reset_index()
    return told.assign(**{POSITIVE: told[POSITIVE] > 0, NEGATIVE: told[NEGATIVE] < 0})


def _crowds(members: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row a crowd: its users, those of each opinion, and when the item began."""
    counts: dict[str, Any] = {name: (name, "sum") for name in OPINIONS}
    crowds = members.groupby(by).agg(**{_CROWD: (c.USER_ID, "size")}, **counts, **{_BEGAN: (_BEGAN, "first")})
    return crowds.reset_index()


def _too_many(
    crowds: pd.DataFrame, who: str, arrived: pd.DataFrame, settings: DefenceSettings, factor: float, days: int
) -> pd.DataFrame:
    """The crowds of which those whom `who` counts are far more than the item's share of the newcomers, with odds."""
    newcomers = arrived.groupby(arrived[DAY].dt.floor(f"{days}D"))[NEWCOMERS].sum()
    came = crowds[DAY].map(newcomers)
    elsewhen = crowds.groupby(c.ITEM_ID)[who].transform("sum") - crowds[who]
    expected = came * (elsewhen + 1) / (newcomers.sum() - came + 1)
    known = crowds[DAY] - crowds[_BEGAN] >= settings.flood_grace_days * _A_DAY
    many = (crowds[who] >= settings.flood_users) & (crowds[who] > factor * expected)
    return crowds.assign(**{ODDS: expected / crowds[who].clip(lower=1)})[many & known]


def _agree(crowds: pd.DataFrame, opinion: str, arrived: pd.DataFrame, settings: DefenceSettings) -> pd.Series[Any]:
    usual = float(arrived[opinion].sum() / max(arrived[ACTS].sum(), 1))
    return agreement(crowds[opinion] / crowds[_CROWD], usual) >= settings.opinion_agreement


def _on_events(acts: pd.DataFrame, reason: str) -> pd.DataFrame:
    verdict: dict[str, Any] = {ODDS: 0.0, c.REASON: reason}
    return acts[[c.EVENT_ID, c.USER_ID, c.ITEM_ID]].assign(**verdict)


def _on_accounts(members: pd.DataFrame) -> pd.DataFrame:
    verdict: dict[str, Any] = {c.EVENT_ID: None, c.REASON: reasons.FLOOD_ACCOUNT}
    return members.assign(**verdict)
