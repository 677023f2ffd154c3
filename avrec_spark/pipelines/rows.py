"""Descriptions as rows: what a task of the features job writes down before it is split into tables."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark import device, tables
from avrec_spark.config import FeatureSettings, fingerprint
from avrec_spark.describe import Describer, Description, Task, merged
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder
from avrec_spark.tables import Table

# What identifies a decode: the content where it could be read, else the URI.
WORK = "work"
FULL = "full"
PARTIAL = "partial"
# What a task asks for and the column that it comes back with: a whole file as rows, a range of one as a pickle.
TASK_SCHEMA = f"{WORK} string, {c.URI} string, encoders array<string>, {FULL} boolean, {c.ATTEMPTS} int, {c.PART} int"


def _columns(table: Table) -> dict[str, str]:
    return {name: kind for name, kind in table.columns.items() if name != c.ITEM_ID}


MEDIA = _columns(tables.MEDIA)
_LISTS = {
    "shots": _columns(tables.SHOTS),
    "features": _columns(tables.ITEM_FEATURES),
    "segments": _columns(tables.SEGMENT_FEATURES),
    "transcripts": _columns(tables.TRANSCRIPTS),
}
SCHEMA = (
    f"{WORK} string, {FULL} boolean, {PARTIAL} binary, "
    + ", ".join(f"`{name}` {kind}" for name, kind in MEDIA.items())
    + "".join(
        f", {name} array<struct<" + ", ".join(f"`{column}`: {kind}" for column, kind in columns.items()) + ">>"
        for name, columns in _LISTS.items()
    )
)


def describing(settings: FeatureSettings, encoders: tuple[str, ...]):  # type: ignore[no-untyped-def]
    """The function of a task: rows of `TASK_SCHEMA` in, rows of `SCHEMA` out."""

    def describe(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        describer = _describer(settings, encoders, device.of_task())
        tasks = (
            Task(work, uri, tuple(names), bool(full), int(part), int(attempts) + 1)
            for batch in batches
            for work, uri, names, full, attempts, part in batch.itertuples(index=False)
        )
        for description in describer.describe(tasks):
            yield pd.DataFrame([row(description, describer.encoders)])

    return describe


_kept: dict[object, Describer] = {}


def _describer(settings: FeatureSettings, encoders: tuple[str, ...], device: str) -> Describer:
    """The describer of this Python worker, kept for its next task: a decoder takes half a second to start.

    The decoder's process ends by itself when the worker does.
    """
    key = (fingerprint(settings), encoders, device)
    if key not in _kept:
        for other in _kept.values():
            other.close()
        _kept.clear()
        _kept[key] = Describer(settings, encoders, device)
    return _kept[key]


def merging(settings: FeatureSettings):  # type: ignore[no-untyped-def]
    """The function that puts the ranges of one file together: its rows of `SCHEMA` in, one row out."""

    def merge(parts: pd.DataFrame) -> pd.DataFrame:
        whole = merged([pickle.loads(partial) for partial in parts[PARTIAL]])
        encoders = {name: registry.create(name, settings) for name in whole.task.encoders}
        return pd.DataFrame([row(whole, encoders, whole=True)])

    return merge


def row(description: Description, encoders: Mapping[str, Encoder[Any]], whole: bool = False) -> dict[str, object]:
    """One row of `SCHEMA`; of a file that has more ranges than this one, a pickle to be merged."""
    task, media = description.task, description.media
    values: dict[str, object] = dict.fromkeys([WORK, FULL, PARTIAL, *MEDIA, *_LISTS])
    values |= {name: value for name, value in asdict(media.info).items() if name in MEDIA}
    values |= {name: getattr(media, name) for name in (c.STATUS, c.REASON, c.DETAIL, c.RETRYABLE, c.PARTS)}
    values |= {name: getattr(media, name) for name in (c.FRAMES_DECODED, c.SECONDS_DECODED, c.SECONDS_SPENT)}
    values |= {WORK: task.work, FULL: task.full, c.ATTEMPTS: task.attempt}
    values |= {c.CONTENT_HASH: None if task.work.startswith("uri:") else task.work}
    if media.parts > 1 and not whole:
        return values | {PARTIAL: pickle.dumps(description)} | {name: [] for name in _LISTS}
    lists: dict[str, list[dict[str, object]]] = {name: [] for name in _LISTS}
    lists["shots"] = [_shot(number, shot) for number, shot in enumerate(media.shots)]
    for name in task.encoders:
        _add_encoding(lists, description, encoders[name])
    return values | lists


def provenance(encoder: Encoder[Any]) -> dict[str, Any]:
    return {
        c.MODALITY: encoder.modality,
        c.ENCODER: encoder.name,
        c.ENCODER_VERSION: encoder.version,
        c.PARAMETERS_HASH: encoder.parameters_hash,
    }


def _shot(number: int, shot: Any) -> dict[str, object]:
    return {c.SHOT: number} | {name: getattr(shot, name) for name in _LISTS["shots"] if name != c.SHOT}


def _add_encoding(lists: dict[str, list[dict[str, object]]], description: Description, encoder: Encoder[Any]) -> None:
    """The feature row of one file and encoder, its segment rows and its words."""
    media, summary = description.media, description.summaries.get(encoder.name)
    origin = provenance(encoder) | {c.INPUT_HASH: description.task.work}
    feature = origin | {
        c.DIMENSION: encoder.dimension,
        c.VECTOR: None,
        c.FRAMES_DECODED: media.frames_decoded,
        c.SECONDS_DECODED: media.seconds_decoded,
        c.STATUS: "absent" if media.status in tables.USABLE else media.status,
        c.REASON: media.reason,
    }
    if (failure := description.failures.get(encoder.name)) is not None:
        feature |= {c.STATUS: "failed", c.REASON: failure}
    elif summary is not None:
        vector = encoder.vectors(summary.total[None])[0]
        # Zeros are an encoder's way to say that there is nothing to describe, such as music without words.
        if vector.any():
            feature |= {c.VECTOR: vector.tolist(), c.STATUS: "ok", c.REASON: None}
            segments = summary.segments if summary.segments is not None else np.empty((0, 0), np.float32)
            lists["segments"] += [
                origin | {c.SEGMENT: number, c.START: float(start), c.VECTOR: part.tolist()}
                for number, (start, part) in enumerate(zip(summary.starts, segments, strict=False))
            ]
        said = {c.ENCODER: encoder.name, c.ENCODER_VERSION: encoder.version}
        lists["transcripts"] += [
            said | {c.SEGMENT: number} | asdict(words) for number, words in enumerate(summary.words)
        ]
    lists["features"].append(feature)
