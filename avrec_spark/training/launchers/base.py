"""The launcher port, the launcher that needs nothing, and what a rank does under any of them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from avrec_spark.errors import AvrecError, RankFailedError, RanksLostError
from avrec_spark.training.ranks import OneRank, Ranks, Report

logger = logging.getLogger(__name__)

C = TypeVar("C")
TrainFunction = Callable[[C, Ranks], Any]


class Launcher(ABC):
    """Runs a training function on one or more ranks.

    The function and its configuration travel to the ranks by pickle: keep them small, and let the ranks read data
    themselves. `report`, where set, is called in this process with what rank 0 says of every epoch.
    """

    report: Report | None = None

    @abstractmethod
    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        """Run `train(config, ranks)` on every rank; the result of rank 0."""


class InProcessLauncher(Launcher):
    """One rank, in this process, whatever `workers` says."""

    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        return train(config, OneRank(self.report))


def run_rank(train: TrainFunction[C], config: C, ranks: Ranks, lost: type[Exception]) -> Any:
    """In a rank's process: rank 0's result; on any rank the error that ended it, for the driver to raise.

    `lost` is what the ranks' library raises when another rank has gone.
    """
    try:
        result = train(config, ranks)
        return result if ranks.rank == 0 else None
    except AvrecError as error:
        return error
    except lost as error:
        return RanksLostError(str(error))
    except Exception as error:
        logger.exception("rank %d failed", ranks.rank)
        return RankFailedError(ranks.rank, f"{type(error).__name__}: {error}")
    finally:
        # Ranks that wait for this one are told now.
        ranks.leave()


def first_result(results: list[Any]) -> Any:
    """Rank 0's result, or the error that a rank ended with: the cause before the ranks that lost another one."""
    failures = [result for result in results if isinstance(result, AvrecError)]
    for failure in sorted(failures, key=lambda error: isinstance(error, RanksLostError)):
        raise failure
    return results[0]
