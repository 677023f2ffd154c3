from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.config import EventSettings
from avrec_spark.events import reasons
from avrec_spark.events.cleaning import clean, parse_times
from avrec_spark.events.weighting import weigh

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
GOOD = {
    "user_id": "u",
    "item_id": "i",
    "event_type": "view",
    "timestamp": "2026-11-01T10:00:00Z",
    "watch_seconds": "2.5",
    "rating": None,
}


def judged(*changes):
    return clean(pd.DataFrame([GOOD | change for change in changes], dtype=object), EventSettings(), NOW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"event_type": " View "}, None),
        ({"watch_seconds": None}, None),
        ({"watch_seconds": ""}, None),
        ({"watch_seconds": "NaN"}, None),
        ({"user_id": None, "item_id": None, "event_type": None, "timestamp": None}, reasons.BROKEN_RECORD),
        ({"user_id": None}, reasons.MISSING_USER),
        ({"user_id": "  "}, reasons.MISSING_USER),
        ({"item_id": None}, reasons.MISSING_ITEM),
        ({"event_type": "teleport"}, reasons.UNKNOWN_EVENT_TYPE),
        ({"event_type": None}, reasons.UNKNOWN_EVENT_TYPE),
        ({"timestamp": "yesterday"}, reasons.BAD_TIMESTAMP),
        ({"timestamp": "2026-02-30"}, reasons.BAD_TIMESTAMP),
        ({"timestamp": "now"}, reasons.BAD_TIMESTAMP),
        ({"timestamp": ""}, reasons.BAD_TIMESTAMP),
        ({"timestamp": "9999-12-31T23:59:59-05:00"}, reasons.BAD_TIMESTAMP),
        ({"timestamp": "2026-11-24T12:05:00Z"}, None),
        ({"timestamp": "2026-11-24T12:05:01Z"}, reasons.FUTURE_TIME),
        ({"timestamp": "2999-01-01T00:00:00Z"}, reasons.FUTURE_TIME),
        ({"timestamp": "9999-12-31"}, reasons.FUTURE_TIME),
        ({"watch_seconds": "a while"}, reasons.BAD_NUMBER),
        ({"watch_seconds": "inf"}, reasons.BAD_NUMBER),
        ({"rating": "five"}, reasons.BAD_NUMBER),
        ({"watch_seconds": "-0.1"}, reasons.IMPOSSIBLE_WATCH_TIME),
        ({"watch_seconds": "86401"}, reasons.IMPOSSIBLE_WATCH_TIME),
        ({"watch_seconds": "50.1", "duration": "0.5"}, reasons.IMPOSSIBLE_WATCH_TIME),
        ({"watch_seconds": "50.1", "duration": "0"}, None),
        ({"duration": "long"}, reasons.BAD_NUMBER),
        ({"position": "0", "propensity": "1"}, None),
        ({"position": "1.5"}, reasons.IMPOSSIBLE_IMPRESSION),
        ({"position": "-1"}, reasons.IMPOSSIBLE_IMPRESSION),
        ({"propensity": "0"}, reasons.IMPOSSIBLE_IMPRESSION),
        ({"propensity": "1.01"}, reasons.IMPOSSIBLE_IMPRESSION),
        # It arrived before it happened, whatever the time is now.
        ({"arrived_at": datetime(2026, 10, 1, tzinfo=UTC)}, reasons.FUTURE_TIME),
        # The first of several reasons in the declared order.
        ({"item_id": None, "timestamp": "x", "watch_seconds": "-1"}, reasons.MISSING_ITEM),
    ],
)
def test_an_event_is_accepted_or_refused_for_one_reason(change, reason):
    row = judged(change).iloc[0]
    assert row["reason"] == reason
    assert row["detail"] == (reasons.SENTENCES[reason] if reason else None)


def test_late_arrivals_are_refused_only_where_the_settings_say_so():
    late = pd.DataFrame([GOOD, GOOD | {"timestamp": "2026-11-20"}], dtype=object)
    assert clean(late, EventSettings(max_late_days=10), NOW)["reason"].tolist() == [reasons.LATE_TIME, None]
    assert clean(late, EventSettings(), NOW)["reason"].tolist() == [None, None]


def test_a_clock_that_is_ahead_may_take_the_time_of_arrival():
    at_arrival = EventSettings(future_times="arrival")
    rows = pd.DataFrame(
        [GOOD | {"timestamp": "2031-01-01"}, GOOD | {"timestamp": "2026-11-24T12:04:00Z"}], dtype=object
    )
    told = clean(rows, at_arrival, NOW)
    assert told["reason"].isna().all()
    assert told["timestamp"].tolist() == [pd.Timestamp(NOW), pd.Timestamp(NOW) + pd.Timedelta(minutes=4)]


def test_words_of_other_vocabularies_are_mapped_without_regard_to_case():
    mine = EventSettings(values={"event_type": {"Thumbs Up": "like"}, "platform": {"tiktok": "short_video"}})
    frame = pd.DataFrame(
        [GOOD | {"event_type": "thumbs up ", "platform": "TikTok"}, GOOD | {"platform": "Smart Speaker"}]
    )
    result = clean(frame, mine, NOW)
    assert result["event_type"].tolist() == ["like", "view"]
    assert result["platform"].tolist() == ["short_video", "smart_speaker"]


def test_every_reason_has_a_sentence():
    constants = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert constants == set(reasons.SENTENCES)


def test_integer_ids_pass_untouched():
    row = judged({"user_id": 7, "item_id": 9}).iloc[0]
    assert (row["user_id"], row["item_id"], row["reason"]) == (7, 9, None)


def test_times_without_a_zone_are_utc_and_large_numbers_are_milliseconds():
    told = parse_times(
        pd.Series(["2026-01-01", "2026-01-01T02:00+02:00", "0", "1.7E9", "1700000000000", None, "1e300"])
    )
    assert told.astype(str).tolist() == [
        "2026-01-01 00:00:00+00:00",
        "2026-01-01 00:00:00+00:00",
        "1970-01-01 00:00:00+00:00",
        "2023-11-14 22:13:20+00:00",
        "2023-11-14 22:13:20+00:00",
        "NaT",
        "NaT",
    ]


def test_eight_digits_are_a_date_and_not_a_second_of_1970():
    told = parse_times(pd.Series(["20260228", "20260230", "30260228"]))
    assert told.astype(str).tolist() == ["2026-02-28 00:00:00+00:00", "NaT", "1970-12-17 05:37:08+00:00"]


@given(st.integers(0, 4_000_000_000_000))
def test_one_moment_is_one_time_in_milliseconds_in_seconds_and_in_words(milliseconds):
    moment = EPOCH + timedelta(milliseconds=milliseconds)
    # Below 1e11 a number is read as seconds.
    number = str(milliseconds) if milliseconds >= 1e11 else f"{milliseconds / 1000:.3f}"
    told = parse_times(pd.Series([number, f"{milliseconds / 1000:.3f}", moment.isoformat()]))
    assert set(told) == {pd.Timestamp(moment)}


def test_columns_that_hold_nothing_at_all_are_judged_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = judged({"timestamp": None, "watch_seconds": None})
        empty = clean(result.iloc[:0], EventSettings(), NOW)
    assert result["reason"].tolist() == [reasons.BAD_TIMESTAMP]
    assert str(empty["timestamp"].dtype) == "datetime64[us, UTC]"


def test_a_view_weighs_by_the_watched_share_and_a_rating_by_its_value():
    types = pd.Series(["view", "view", "view", "share", "rating", "rating", "rating", "skip", "unheard"])
    watched = pd.Series([1.0, 50.0, np.nan, 1.0, np.nan, np.nan, np.nan, np.nan, np.nan])
    rated = pd.Series([np.nan] * 4 + [2.5, 7, np.nan] + [np.nan] * 2)
    weights = weigh(types, watched, rated, EventSettings(completed_seconds=4))
    assert weights.tolist() == [0.25, 1.0, 1.0, 3.0, 0.5, 1.0, 0.0, 0.0, 0.0]


def test_views_weigh_by_the_share_of_the_medium_and_ratings_from_the_neutral_one_on():
    types, none = pd.Series(["view", "view", "rating", "rating"]), pd.Series([np.nan] * 4)
    watched, lasts = pd.Series([30.0, 30.0, np.nan, np.nan]), pd.Series([120.0, np.nan, np.nan, np.nan])
    mine = EventSettings(completed_ratio=0.5, neutral_rating=3, best_rating=5)
    assert weigh(types, watched, pd.Series([np.nan, np.nan, 4, 2]), mine, lasts).tolist() == [0.5, 1.0, 0.5, 0.0]
    assert weigh(types, none, none, mine).tolist() == [1.0, 1.0, 0.0, 0.0]


texts = st.one_of(
    st.none(), st.sampled_from(["", "3", "-1", "x", "2026-01-01", "1e9", "view", "like"]), st.text(max_size=5)
)
events = st.lists(st.fixed_dictionaries(dict.fromkeys(GOOD, texts)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(events, st.randoms(use_true_random=False))
def test_no_event_is_lost_and_the_order_of_rows_changes_no_verdict(rows, random):
    frame = pd.DataFrame(rows, dtype=object)
    result = clean(frame, EventSettings(), NOW)
    assert len(result) == len(frame)
    accepted = result["reason"].isna()
    assert result.loc[accepted, "timestamp"].notna().all()
    assert result.loc[accepted, "weight"].ge(0).all()
    order = list(frame.index)
    random.shuffle(order)
    shuffled = clean(frame.loc[order], EventSettings(), NOW)
    pd.testing.assert_frame_equal(shuffled.sort_index(), result)
