"""Why an event is refused: typed words for programs, sentences for people."""

from __future__ import annotations

# The record by itself.
BROKEN_RECORD = "broken_record"
MISSING_USER = "missing_user"
MISSING_ITEM = "missing_item"
UNKNOWN_EVENT_TYPE = "unknown_event_type"
BAD_TIMESTAMP = "bad_timestamp"
FUTURE_TIME = "future_time"
LATE_TIME = "late_time"
BAD_NUMBER = "bad_number"
IMPOSSIBLE_WATCH_TIME = "impossible_watch_time"
IMPOSSIBLE_IMPRESSION = "impossible_impression"
# The record beside others, and beside what is known.
UNKNOWN_ITEM = "unknown_item"
UNKNOWN_USER = "unknown_user"
DUPLICATE = "duplicate"
BOT_RATE = "bot_rate"
BOT_REGULARITY = "bot_regularity"
REPEAT_FLOOD = "repeat_flood"
ADDRESS_FLOOD = "address_flood"
NEWCOMER_FLOOD = "newcomer_flood"
FLOOD_ACCOUNT = "flood_account"
PROFILE_RING = "profile_ring"
# A file, not a record.
NOT_EVENTS = "not_events"

SENTENCES = {
    BROKEN_RECORD: "Nothing could be read from the record.",
    MISSING_USER: "The event names no user.",
    MISSING_ITEM: "The event names no item.",
    UNKNOWN_EVENT_TYPE: "The event's type is not one of events.weights.",
    BAD_TIMESTAMP: "The time is neither ISO 8601 nor epoch seconds or milliseconds.",
    FUTURE_TIME: "The event happened after it arrived.",
    LATE_TIME: "The event arrived more than events.max_late_days after it happened.",
    BAD_NUMBER: "A number of the event cannot be read.",
    IMPOSSIBLE_WATCH_TIME: "The watch time is negative, or longer than events.max_watch_seconds or max_watch_ratio.",
    IMPOSSIBLE_IMPRESSION: "The propensity is not above 0 and at most 1, or the position is no whole number from 0 on.",
    UNKNOWN_ITEM: "The catalogue has no such item.",
    UNKNOWN_USER: "The list events.users has no such user.",
    DUPLICATE: "An earlier event has the same user, item, time and type.",
    BOT_RATE: "The user acts faster than a person can: events.defences.max_events_per_minute, _hour and _day.",
    BOT_REGULARITY: "The user acts at intervals too equal for a person: events.defences.regular_share.",
    REPEAT_FLOOD: "The user has acted on the item more than events.defences.max_repeats_per_day times in a day.",
    ADDRESS_FLOOD: "Most users of one address, events.defences.address_users or more, acted on the item in a day.",
    NEWCOMER_FLOOD: "Far more new users than usual acted on the item in one day: events.defences.flood_factor.",
    FLOOD_ACCOUNT: "The account came with many that told one opinion of one item: events.defences.opinion_agreement.",
    PROFILE_RING: "The account has nearly the same opinions as several others: events.defences.ring_similarity.",
    NOT_EVENTS: "The file is none that the setting events.format knows.",
}
