"""Why an event is refused: typed words for programs, sentences for people."""

from __future__ import annotations

BROKEN_RECORD = "broken_record"
MISSING_USER = "missing_user"
MISSING_ITEM = "missing_item"
UNKNOWN_EVENT_TYPE = "unknown_event_type"
BAD_TIMESTAMP = "bad_timestamp"
FUTURE_TIME = "future_time"
BAD_NUMBER = "bad_number"
IMPOSSIBLE_WATCH_TIME = "impossible_watch_time"
# These two need the whole table, and these files none of the kernel.
UNKNOWN_ITEM = "unknown_item"
DUPLICATE = "duplicate"
NOT_EVENTS = "not_events"

SENTENCES = {
    BROKEN_RECORD: "Nothing could be read from the record.",
    MISSING_USER: "The event names no user.",
    MISSING_ITEM: "The event names no item.",
    UNKNOWN_EVENT_TYPE: "The event's type is not one of events.weights.",
    BAD_TIMESTAMP: "The time is neither ISO 8601 nor epoch seconds or milliseconds.",
    FUTURE_TIME: "The event happened after it arrived.",
    BAD_NUMBER: "A number of the event cannot be read.",
    IMPOSSIBLE_WATCH_TIME: "The watch time is negative or longer than events.max_watch_seconds.",
    UNKNOWN_ITEM: "The catalogue has no such item.",
    DUPLICATE: "An earlier event has the same user, item, time and type.",
    NOT_EVENTS: "The file is neither CSV, JSON lines nor Parquet.",
}
