from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.config import EventSettings
from avrec_spark.events.cleaning import clean

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
# Every way in which a field of an accepted event may be written.
READABLE = {
    "user_id": st.sampled_from(["u", " u ", 7]),
    "item_id": st.sampled_from(["i", "20260101", 9]),
    "event_type": st.sampled_from(["view", " View ", "LIKE", "rating", "skip"]),
    "timestamp": st.sampled_from(
        ["2026-11-01T10:00:00.123456+08:00", "2026-01-01", "20260102", "1.7E9", "1700000000123"]
    ),
    "watch_seconds": st.sampled_from([None, "", "NaN", "0", "2.5", "86400"]),
    "rating": st.sampled_from([None, "", "nan", "0", "4.5", "7"]),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(READABLE), min_size=1, max_size=12))
def test_cleaning_what_is_clean_changes_nothing(rows):
    once = clean(pd.DataFrame(rows, dtype=object), EventSettings(), NOW)
    assert once["reason"].isna().all()
    pd.testing.assert_frame_equal(clean(once, EventSettings(), NOW), once)
