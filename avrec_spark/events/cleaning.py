"""Judge events row by row: what can be read becomes typed columns, what cannot gets a reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.config import EventSettings
from avrec_spark.events import reasons
from avrec_spark.events.weighting import opinions, weigh

# Epoch numbers from here on are milliseconds: as seconds they would lie after the year 5000.
_MILLISECONDS_FROM = 1e11
# In the year 2255; pandas counts nanoseconds on the way and ends in 2262.
_LAST_MICROSECOND = 9e15
_BASIC_DATE = r"(?:19|20)\d{6}"
_LAST_POSITION = 2**31 - 1

# What of an event is a number.
NUMBERS = (c.WATCH_SECONDS, c.DURATION, c.RATING, c.POSITION, c.PROPENSITY)
_OPTIONAL = (*NUMBERS, c.PLATFORM)


def clean(events: pd.DataFrame, settings: EventSettings, now: datetime) -> pd.DataFrame:
    """The same rows in the same order, with typed columns, a weight, and a reason where a row is refused.

    `events` are rows of tables.EVENTS; ids as they came, everything else text as it arrived; optional columns may be
    absent. A row without `arrived_at` arrives at `now`, which has a time zone. The result has `timestamp` as
    datetime64[us, UTC] and `NUMBERS`, `watch_ratio`, `weight` and `opinion` as floats; `reason` and `detail` are None
    for an accepted row. Where several things are wrong the first of this order is told: broken_record, missing_user,
    missing_item, unknown_event_type, bad_timestamp, future_time, late_time, bad_number, impossible_watch_time,
    impossible_impression.
    """
    events = events.assign(**{name: None for name in _OPTIONAL if name not in events})
    times = parse_times(events[c.TIMESTAMP])
    types = _words(events[c.EVENT_TYPE], settings.values.get(c.EVENT_TYPE, {}))
    platforms = _words(events[c.PLATFORM], settings.values.get(c.PLATFORM, {}))
    numbers = {name: _number(events[name]) for name in NUMBERS}
    unreadable = [_unreadable(events[name], numbers[name]) for name in NUMBERS]
    watch, position, propensity = (numbers[name] for name in (c.WATCH_SECONDS, c.POSITION, c.PROPENSITY))
    # Clients write 0 for a length that they do not know.
    numbers[c.DURATION] = numbers[c.DURATION].where(numbers[c.DURATION] > 0)
    ratio = watch / numbers[c.DURATION]
    lacking = {name: _absent(events[name]) for name in (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.TIMESTAMP)}
    arrived = _arrived(events, now)
    ahead = times > arrived + pd.Timedelta(seconds=settings.future_tolerance_seconds)
    if settings.future_times == "arrival":
        times, ahead = times.mask(ahead, arrived.astype(times.dtype)), ahead & False
    conditions = {
        reasons.BROKEN_RECORD: np.logical_and.reduce(list(lacking.values())),
        reasons.MISSING_USER: lacking[c.USER_ID],
        reasons.MISSING_ITEM: lacking[c.ITEM_ID],
        reasons.UNKNOWN_EVENT_TYPE: ~types.isin(list(settings.weights)).to_numpy(),
        reasons.BAD_TIMESTAMP: times.isna().to_numpy(),
        reasons.FUTURE_TIME: ahead.to_numpy(),
        reasons.LATE_TIME: _late(times, arrived, settings.max_late_days),
        reasons.BAD_NUMBER: np.logical_or.reduce(unreadable),
        reasons.IMPOSSIBLE_WATCH_TIME: (
            (watch < 0) | (watch > settings.max_watch_seconds) | (ratio > settings.max_watch_ratio)
        ).to_numpy(),
        reasons.IMPOSSIBLE_IMPRESSION: (
            (propensity <= 0) | (propensity > 1) | (position < 0) | (position % 1 > 0) | (position > _LAST_POSITION)
        ).to_numpy(),
    }
    reason: pd.Series[Any] = pd.Series([None] * len(events), index=events.index, dtype=object)
    for name, fails in reversed(conditions.items()):
        reason[fails] = name
    judged: dict[str, Any] = {
        c.EVENT_TYPE: types,
        c.TIMESTAMP: times,
        c.PLATFORM: platforms.where(platforms != "", None),
        **numbers,
        c.WATCH_RATIO: ratio,
        c.WEIGHT: weigh(types, watch, numbers[c.RATING], settings, numbers[c.DURATION]),
        c.OPINION: opinions(types, numbers[c.RATING], settings),
        c.REASON: reason,
        c.DETAIL: reason.map(reasons.SENTENCES.get, na_action="ignore"),
    }
    return events.assign(**judged)


def parse_times(texts: pd.Series[Any]) -> pd.Series[Any]:
    """UTC times from ISO 8601 (without a zone: UTC), epoch seconds, or epoch milliseconds (from 1e11 on); else NaT.

    A bare number is an epoch; only eight digits that begin with 19 or 20 are a date, as in 20260102.

    >>> texts = pd.Series(["2026-01-02T03:04:05+01:00", "1767319445", "1767319445000", "20260102", "soon"])
    >>> parse_times(texts).astype(str).tolist()
    ['2026-01-02 02:04:05+00:00', '2026-01-02 02:04:05+00:00', '2026-01-02 02:04:05+00:00',
     '2026-01-02 00:00:00+00:00', 'NaT']
    """
    words: pd.Series[Any] = texts.astype("string").str.strip().fillna("").astype(object)
    is_date = np.asarray(words.str.fullmatch(_BASIC_DATE), bool)
    numbers = _number(words.mask(is_date))
    # Whole microseconds: the same moment as seconds, as milliseconds and in words has to be one and the same time.
    micros = (numbers * np.where(numbers.abs() < _MILLISECONDS_FROM, 1e6, 1e3)).round()
    # Beyond the years that a timestamp can hold there is no time.
    micros = micros.where(micros.abs() < _LAST_MICROSECOND)
    from_numbers = pd.to_datetime(micros.astype("Int64"), unit="us", utc=True)
    # Only what begins with a digit: pandas also takes words such as "now" for times.
    words = words.where(numbers.isna() & np.asarray(words.str.match(r"\d"), bool))
    from_words = pd.to_datetime(words, format="ISO8601", utc=True, errors="coerce").astype("datetime64[us, UTC]")
    # pandas parses to nanoseconds, which end in 2262; a clock that is further ahead is wrong, but it is a time.
    left = words[from_words.isna() & words.notna()]
    times = from_numbers.astype("datetime64[us, UTC]").fillna(from_words)
    return times.fillna(left.map(_far_time).astype("datetime64[us, UTC]").reindex(times.index))


def _arrived(events: pd.DataFrame, now: datetime) -> pd.Series[Any]:
    """When each event came: as recorded, so that a verdict stays the same in every later run; else now."""
    moment = pd.Timestamp(now).tz_convert("UTC")
    if c.ARRIVED_AT not in events:
        return pd.Series(moment, index=events.index)
    return pd.to_datetime(events[c.ARRIVED_AT], utc=True).fillna(moment)


def _late(times: pd.Series[Any], arrived: pd.Series[Any], max_days: float | None) -> NDArray[np.bool_]:
    if max_days is None:
        return np.zeros(len(times), bool)
    return (times < arrived - pd.Timedelta(days=max_days)).to_numpy()


def _words(texts: pd.Series[Any], values: Mapping[str, str]) -> pd.Series[Any]:
    """Lower-case words joined by _, or what `values` (theirs: ours) says for them; "" where there is none."""
    plain = texts.astype("string").str.strip().str.lower().fillna("").astype(object)
    words = plain.astype("string").str.replace(r"[\s-]+", "_", regex=True).astype(object)
    ours = {str(theirs).strip().lower(): word for theirs, word in values.items()}
    return plain.map(ours).astype(object).where(plain.isin(list(ours)), words)


def _far_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _absent(values: pd.Series[Any]) -> NDArray[np.bool_]:
    missing = values.isna().to_numpy()
    if values.dtype == object or isinstance(values.dtype, pd.StringDtype):
        missing = missing | (values.astype("string").str.strip() == "").fillna(False).to_numpy(bool)
    return missing


def _number(texts: pd.Series[Any]) -> pd.Series[Any]:
    numbers = pd.to_numeric(texts, errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers))


def _unreadable(texts: pd.Series[Any], numbers: pd.Series[Any]) -> NDArray[np.bool_]:
    # "NaN" is how an unknown number is written.
    unknown = _absent(texts) | (texts.astype("string").str.strip().str.lower() == "nan").fillna(False).to_numpy(bool)
    return ~unknown & numbers.isna().to_numpy()
