"""Checkpoints of a training run, in the lakehouse or anywhere else that fsspec reaches."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import zlib
from typing import Any

import fsspec
import torch

from avrec_spark.dataset.training_set import TrainingSet

logger = logging.getLogger(__name__)

_KEPT = 2


class Checkpoints:
    """Files `step-000000100.pt` in a folder: whole or absent, the last two kept, read without executing any code.

    >>> checkpoints = Checkpoints("memory://doctest/checkpoints")
    >>> for step in (5, 10, 15):
    ...     checkpoints.save(step, {"step": step, "weight": torch.tensor([0.5])})
    >>> name, state = checkpoints.latest()
    >>> name, state["step"]
    ('step-000000015.pt', 15)
    >>> checkpoints.names()
    ['step-000000010.pt', 'step-000000015.pt']
    """

    def __init__(self, folder: str) -> None:
        self._fs, self._folder = fsspec.core.url_to_fs(str(folder))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step: tensors, numbers, texts, lists and dictionaries."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._fs.makedirs(self._folder, exist_ok=True)
        name = f"step-{step:09d}.pt"
        part = self._path(f"{name}.{os.getpid()}.part")
        self._fs.pipe_file(part, buffer.getvalue())
        # Renamed when complete: a reader never sees half a file, whatever happens to this process.
        self._fs.mv(part, self._path(name))
        for old in self.names()[:-_KEPT]:
            self._fs.rm_file(self._path(old))

    def names(self) -> list[str]:
        """The checkpoints, the earliest first."""
        self._fs.invalidate_cache()
        if not self._fs.isdir(self._folder):
            return []
        found = (path.rsplit("/", 1)[-1] for path in self._fs.ls(self._folder, detail=False))
        return sorted(name for name in found if name.startswith("step-") and name.endswith(".pt"))

    def latest(self) -> tuple[str, dict[str, Any]] | None:
        """The name and state of the latest checkpoint that can be read, if any."""
        for name in reversed(self.names()):
            try:
                return name, self.load(name)
            except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
                logger.warning("the checkpoint %s cannot be read, the one before is tried: %s", name, error)
        return None

    def load(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(
            io.BytesIO(self._fs.cat_file(self._path(name))), map_location="cpu", weights_only=True
        )
        return state

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        if self._fs.isdir(self._folder):
            self._fs.rm(self._folder, recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def fingerprint(training_set: TrainingSet, what: dict[str, Any]) -> str:
    """A name for what is learnt from which interactions, so that no run goes on from another one's checkpoint."""
    check = 0
    for values in (training_set.user_index, training_set.item_index, training_set.weight, training_set.timestamp):
        check = zlib.crc32(values.tobytes(), check)
    text = json.dumps({**what, "rows": len(training_set.weight), "check": check}, sort_keys=True, default=str)
    return f"{zlib.crc32(text.encode()):08x}{check:08x}"
