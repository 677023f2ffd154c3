"""The ranges of a long file put together again.

What is counted adds up exactly (`Statistics`); shots that a border cut in two are joined; the file is as good as its
ranges: where some of it is lost it is partial, with the first reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from avrec_spark.media import shots
from avrec_spark.media.records import DecodedMedia
from avrec_spark.tables import USABLE


def merged(parts: Sequence[DecodedMedia]) -> DecodedMedia:
    """One file from its ranges, in any order; frames, sound and motion are left out.

    Not one of the ranges need be usable: then the file has the status of the first.
    """
    parts = sorted(parts, key=lambda part: part.part)
    usable = [part for part in parts if part.status in USABLE]
    first = usable[0] if usable else parts[0]
    statistics = reduce(add, (part.statistics for part in parts))
    file = DecodedMedia(
        first.info,
        shots=shots.join([part.shots for part in usable]),
        statistics=statistics,
        parts=len(parts),
        frames_decoded=sum(part.frames_decoded for part in parts),
        seconds_decoded=sum(part.seconds_decoded for part in parts),
        seconds_spent=sum(part.seconds_spent for part in parts),
    )
    file.info = replace(
        first.info,
        gop=statistics.gop,
        loudness=statistics.loudness,
        silence_share=statistics.silence_share,
        black_share=statistics.black_share,
        variable_frame_rate=_any(part.info.variable_frame_rate for part in usable),
    )
    lacking = [part for part in parts if part.status != "ok"]
    if lacking:
        worst = lacking[0]
        file.status = "partial" if usable else worst.status
        file.reason, file.retryable = worst.reason, any(part.retryable for part in lacking)
        where = f" (in {len(lacking)} of its {len(parts)} ranges)" if len(parts) > 1 else ""
        file.detail = f"{worst.detail}{where}"
    return file


def _any(values: Iterable[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return any(known) if known else None
