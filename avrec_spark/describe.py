"""The kernel of the features job: from a file to its description and its vectors, without Spark.

A `Describer` holds one decoder and one set of encoders, as a Spark task or a process of a pool does. Files are decoded
one after the other and encoded in batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from types import TracebackType
from typing import Any, Self

import numpy as np

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder, Summary
from avrec_spark.errors import AvrecError
from avrec_spark.media import merge
from avrec_spark.media.records import NEEDS, DecodedMedia, Frames, Limits, Motion, Need, Request, Screen, Sound
from avrec_spark.media.watchdog import Decoder

# Encoders run on the inputs of several files at once, as long as those stay small in memory.
_BATCH_FILES = 16
_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Task:
    """One file, or one range of a long one, to describe with some encoders.

    `full` asks for the description of the file (media, shots) and not only for vectors: a file whose description is
    known is decoded no further than its encoders need. `attempt` counts how often the content was opened.
    """

    work: str
    uri: str
    encoders: tuple[str, ...]
    full: bool = True
    part: int = 0
    attempt: int = 1


@dataclass
class Description:
    """What is known of a file, or a range of it: the decode without its arrays, and a summary an encoder.

    None stands for a modality that the file does not have. `failures` says of an encoder that raised on this file
    what it raised.
    """

    task: Task
    media: DecodedMedia
    summaries: dict[str, Summary | None] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Describer:
    """Decodes and encodes files. A context manager; for one thread, which it keeps to one core."""

    def __init__(self, settings: FeatureSettings, encoders: Sequence[str], device: str = "cpu") -> None:
        self.encoders: dict[str, Encoder[Any]] = {name: registry.create(name, settings, device) for name in encoders}
        self._decoder = Decoder(Limits.of(settings))
        one_thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the decoder, None when there is none at the moment."""
        return self._decoder.pid

    def close(self) -> None:
        """End the decoder's process; a later `describe` starts another."""
        self._decoder.close()

    def describe(self, tasks: Iterable[Task]) -> Iterator[Description]:
        """A description a task, in order."""
        batch: list[Description] = []
        for task in tasks:
            batch.append(Description(task, self._decoder.decode(Request(task.uri, self._needs(task), task.part))))
            if len(batch) >= _BATCH_FILES or sum(_bytes(one.media) for one in batch) >= _BATCH_BYTES:
                yield from self._encoded(batch)
                batch = []
        yield from self._encoded(batch)

    def _needs(self, task: Task) -> frozenset[Need]:
        wanted = {self.encoders[name].reads for name in task.encoders}
        if task.full:
            wanted |= {"frames", "sound"}
        return frozenset(need for need in NEEDS if need in wanted)

    def _encoded(self, batch: list[Description]) -> list[Description]:
        started = time.perf_counter()
        for name, encoder in self.encoders.items():
            _encode([one for one in batch if name in one.task.encoders], name, encoder)
        for one in batch:
            media = one.media
            media.frames, media.motion, media.sound, media.screen = Frames(), Motion(), Sound(), Screen()
            media.seconds_spent += (time.perf_counter() - started) / len(batch)
        return batch


def _encode(descriptions: Sequence[Description], name: str, encoder: Encoder[Any]) -> None:
    """Add one encoder's summaries; where it raises on a batch, find out on which file and go on with the others."""
    try:
        found = encoder.summarise([getattr(one.media, encoder.reads) for one in descriptions])
    except AvrecError:
        raise  # A missing library or a wrong setting is no file's fault.
    except Exception as error:
        if len(descriptions) == 1:
            descriptions[0].failures[name] = f"{type(error).__name__}: {error}"[:500]
            return
        for one in descriptions:
            _encode([one], name, encoder)
        return
    for one, summary in zip(descriptions, found, strict=True):
        one.summaries[name] = summary


def merged(parts: Sequence[Description]) -> Description:
    """The description of a file from those of its ranges, in any order."""
    parts = sorted(parts, key=lambda part: part.task.part)
    names = parts[0].task.encoders
    summaries = {name: _sum([part.summaries.get(name) for part in parts]) for name in names}
    failures = {name: why for part in parts for name, why in part.failures.items() if summaries.get(name) is None}
    return Description(parts[0].task, merge.merged([part.media for part in parts]), summaries, failures)


def _sum(summaries: Sequence[Summary | None]) -> Summary | None:
    present = [summary for summary in summaries if summary is not None]
    if not present:
        return None
    segments = [summary.segments for summary in present if summary.segments is not None]
    return Summary(
        reduce(add, (summary.total for summary in present)),
        np.concatenate(segments) if segments else None,
        np.concatenate([summary.starts for summary in present]),
        [words for summary in present for words in summary.words],
    )


def _bytes(media: DecodedMedia) -> int:
    screen = sum(picture.nbytes for picture in media.screen.pictures)
    return media.frames.pictures.nbytes + media.motion.pairs.nbytes + media.sound.samples.nbytes + screen


def one_thread() -> None:
    """A task has one core; encoders that took more would wait for each other."""
    import torch

    torch.set_num_threads(1)
