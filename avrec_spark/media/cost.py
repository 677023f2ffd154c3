"""What a file will cost to decode, before it is opened; good enough to pack tasks of similar length."""

from __future__ import annotations

SECONDS_PER_FILE = 0.05
SECONDS_PER_MEGABYTE = 0.25
# Only so many key frames and seconds of audio are decoded, so that a large file costs little more than reading it.
DECODED_MEGABYTES = 8.0
SECONDS_PER_FURTHER_MEGABYTE = 0.01


def estimate_seconds(size_bytes: int) -> float:
    """Estimated core-seconds to decode and encode a file of that size.

    >>> estimate_seconds(0)
    0.05
    >>> estimate_seconds(2_000_000)
    0.55
    """
    megabytes = size_bytes / 1e6
    decoded = min(megabytes, DECODED_MEGABYTES)
    return SECONDS_PER_FILE + SECONDS_PER_MEGABYTE * decoded + SECONDS_PER_FURTHER_MEGABYTE * (megabytes - decoded)
