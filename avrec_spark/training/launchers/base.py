"""The launcher port, and the launcher that needs nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from avrec_spark.training.ranks import OneRank, Ranks

C = TypeVar("C")
TrainFunction = Callable[[C, Ranks], Any]


class Launcher(ABC):
    """Runs a training function on one or more ranks.

    The function and its configuration travel to the ranks by pickle: keep them small, and let the ranks read data
    themselves.
    """

    @abstractmethod
    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        """Run `train(config, ranks)` on every rank; the result of rank 0."""


class InProcessLauncher(Launcher):
    """One rank, in this process, whatever `workers` says."""

    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        return train(config, OneRank())
