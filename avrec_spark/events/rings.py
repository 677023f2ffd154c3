"""Rings: accounts with nearly the same opinions, however slowly they came.

The resemblance of sets is estimated by MinHash, so that no pair of accounts has to be compared (A. Broder, On the
resemblance and containment of documents, SEQUENCES 1997); likely rings are then checked exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings
from avrec_spark.events import reasons

BANDS = "bands"
BAND = "band"
# Accounts of resemblance J share one of b bands of r minima with probability 1 − (1 − J^r)^b: .992 at J = .8, .01 at
# J = .3, and one in 60,000 at J = .1, so that a band of millions of accounts is not crowded with honest ones.
_N_BANDS, _ROWS = 16, 6
_RANDOM = np.random.default_rng(97)
_SALTS = _RANDOM.integers(0, 2**64, _N_BANDS * _ROWS, np.uint64)
_FACTORS = _RANDOM.integers(0, 2**64, _N_BANDS * _ROWS, np.uint64) | np.uint64(1)
_HALF = np.uint64(32)


def sketch(acts: pd.DataFrame, settings: DefenceSettings) -> pd.Series[Any]:
    """user_id → int64[16], the bands of MinHash of the user's opinions; users of few opinions are left out.

    Accounts that share a band have probably nearly the same opinions. The result is the same in every process.
    """
    told = opinions(acts)
    told = told[told.groupby(c.USER_ID)[c.ITEM_ID].transform("size") >= settings.ring_opinions]
    told = told.sort_values(c.USER_ID, kind="stable")
    first = told[c.USER_ID].ne(told[c.USER_ID].shift()).to_numpy()
    users = pd.Index(told.loc[first, c.USER_ID], name=c.USER_ID)
    if users.empty:
        return pd.Series([], index=users, dtype=object, name=BANDS)
    keys = pd.util.hash_array(told[c.ITEM_ID].to_numpy()) ^ (told[c.OPINION].to_numpy() > 0).astype(np.uint64)
    starts = np.flatnonzero(first)
    minima = np.stack(
        [np.minimum.reduceat(_mix(keys, salt, by), starts) for salt, by in zip(_SALTS, _FACTORS, strict=True)]
    )
    bands = _mix(minima, _SALTS[:, None], _FACTORS[:, None]).reshape(_N_BANDS, _ROWS, len(users)).sum(1)
    return pd.Series(list(bands.T.view(np.int64)), index=users, name=BANDS)


def opinions(acts: pd.DataFrame) -> pd.DataFrame:
    """What each user told, once: user_id, item_id, opinion."""
    told = acts.loc[acts[c.OPINION] != 0, [c.USER_ID, c.ITEM_ID, c.OPINION]]
    return told.drop_duplicates()


def judge_rings(told: pd.DataFrame, n_items: int, settings: DefenceSettings) -> pd.DataFrame:
    """Verdicts (event_id None, user_id, reason) from all opinions of all users of whole bands.

    `told` has band, user_id, item_id, opinion; `n_items` is the number of items on the platform. A band's core are the
    opinions that half of its users share or more. profile_ring: `ring_users` or more users whose resemblance
    J = |own ∩ core| / |own ∪ core| with it is `ring_similarity` or more beyond chance: (J − E) / (1 − E), where
    E = m / (2 n_items − m) is that of random sets of the core's size m. Where all like all there is, nobody is a ring.
    """
    users = told.groupby(BAND)[c.USER_ID].transform("nunique")
    holders = told.groupby([BAND, c.ITEM_ID, c.OPINION])[c.USER_ID].transform("size")
    told = told.assign(core=2 * holders >= users)
    core = told[told["core"]].drop_duplicates([BAND, c.ITEM_ID, c.OPINION]).groupby(BAND).size()
    profiles = told.groupby([BAND, c.USER_ID])["core"].agg(["size", "sum"]).reset_index()
    size = profiles[BAND].map(core).fillna(0)
    resemblance = profiles["sum"] / (profiles["size"] + size - profiles["sum"])
    chance = size.clip(upper=n_items) / (2 * n_items - size.clip(upper=n_items))
    profiles = profiles[resemblance - chance >= settings.ring_similarity * (1 - chance).clip(lower=1e-9)]
    alike = profiles[profiles.groupby(BAND)[c.USER_ID].transform("size") >= settings.ring_users]
    verdicts = alike[[c.USER_ID]].drop_duplicates().assign(**{c.EVENT_ID: None, c.REASON: reasons.PROFILE_RING})
    return verdicts[[c.EVENT_ID, c.USER_ID, c.REASON]]


def _mix(keys: np.ndarray, salt: Any, by: Any) -> Any:
    """One of a family of hash functions of 64 bits."""
    mixed = (keys ^ salt) * by
    return (mixed ^ (mixed >> _HALF)) * by
