"""Users by how much is known of them, and held-out pairs by whether train knows their item."""

from __future__ import annotations

import pandas as pd

from avrec_spark import columns as c

NEW, LIGHT, HEAVY = "new", "light", "heavy"
WARM_ITEMS, COLD_ITEMS = "warm-items", "cold-items"


def by_history(users: pd.Series, lengths: pd.Series) -> pd.DataFrame:
    """user_id, segment of each of `users`. `lengths` counts the train items of each user who has some, by user id.

    new: without train items · light: with as many as half of all train users have, or fewer · heavy: with more.

    >>> lengths = pd.Series({"ann": 2, "bob": 3, "cem": 50})
    >>> by_history(pd.Series(["cem", "dee", "bob"]), lengths)["segment"].tolist()
    ['heavy', 'new', 'light']
    """
    known = users.drop_duplicates()
    n = lengths.reindex(known).fillna(0).to_numpy()
    segments = pd.Series(HEAVY, index=known.index).mask(n <= lengths.median(), LIGHT).mask(n == 0, NEW)
    return pd.DataFrame({c.USER_ID: known, c.SEGMENT: segments})
