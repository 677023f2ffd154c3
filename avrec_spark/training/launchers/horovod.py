"""Horovod on Spark: each rank is a task of the active session, gradients travel by gloo."""

from __future__ import annotations

import logging
import time
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from avrec_spark.errors import (
    AvrecError,
    MissingExtraError,
    NoSparkSessionError,
    NotEnoughSlotsError,
    RankFailedError,
    RanksLostError,
    RanksNotStartedError,
    UsageError,
)
from avrec_spark.training.launchers.base import C, Launcher, TrainFunction
from avrec_spark.training.ranks import HorovodRanks

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class HorovodLauncher(Launcher):
    """Ranks as Spark tasks that all run at once; Spark deals them to the executors in turn.

    Horovod itself would wait for ever when slots are lacking, so the free ones are counted first: a cluster gets half
    of `start_timeout_seconds` to bring its executors, then `NotEnoughSlotsError` names what is free and needed. An
    error of a rank is raised here by its own type where it is the platform's, else as `RankFailedError`.
    """

    def __init__(self, start_timeout_seconds: int = 60) -> None:
        self.start_timeout_seconds = start_timeout_seconds

    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        spark = SparkSession.getActiveSession()
        if spark is None:
            raise NoSparkSessionError("The launcher horovod")
        try:
            import horovod.spark
            from horovod.runner.common.util.timeout import TimeoutException
        except ImportError:
            raise MissingExtraError("The launcher horovod", "horovod", "training") from None
        if spark.conf.get("spark.dynamicAllocation.enabled", "false") == "true":
            raise UsageError(
                "Dynamic allocation may take a rank's executor away in the middle of training.",
                "Set spark.dynamicAllocation.enabled=false for the job train.",
            )
        context = spark.sparkContext
        require_slots(context, workers, self.start_timeout_seconds / 2)
        try:
            results = horovod.spark.run(
                _rank,
                args=(train, config),
                num_proc=workers,
                use_gloo=True,
                start_timeout=self.start_timeout_seconds,
                # The workers' Python, which need not lie where the driver's does.
                executable=context.pythonExec,
                verbose=0,
            )
        except TimeoutException:
            # Somebody else took the slots that were free, or the ranks are still on their way.
            free, master = free_slots(context), str(context.master)
            if free < workers:
                raise NotEnoughSlotsError(workers, free, master) from None
            raise RanksNotStartedError(workers, self.start_timeout_seconds, master) from None
        except RuntimeError as error:
            # A rank's process ended without a word: killed, or its executor was lost.
            raise RanksLostError(str(error)) from error
        failures = [result for result in results if isinstance(result, AvrecError)]
        # The ranks that lost another one fail too; the cause comes first.
        for failure in sorted(failures, key=lambda error: isinstance(error, RanksLostError)):
            raise failure
        return results[0]


def _rank(train: TrainFunction[C], config: C) -> Any:
    """In a rank's process: rank 0's result; on any rank the error that ended it, for the driver to raise."""
    from horovod.common.exceptions import HorovodInternalError

    ranks = HorovodRanks()
    try:
        result = train(config, ranks)
        return result if ranks.rank == 0 else None
    except AvrecError as error:
        return error
    except HorovodInternalError as error:
        return RanksLostError(str(error))
    except Exception as error:
        logger.exception("rank %d failed", ranks.rank)
        return RankFailedError(ranks.rank, f"{type(error).__name__}: {error}")
    finally:
        # Ranks that wait for this one are told now.
        ranks.leave()


def require_slots(context: SparkContext, needed: int, patience_seconds: float) -> None:
    """Wait until `needed` task slots are free; raises `NotEnoughSlotsError` when they do not become so."""
    # A local master has all the slots that it will ever have, and nobody else's tasks.
    master = str(context.master)
    patience = 0.0 if master.startswith("local") else patience_seconds
    deadline = time.monotonic() + patience
    while (free := free_slots(context)) < needed:
        if time.monotonic() >= deadline:
            raise NotEnoughSlotsError(needed, free, master)
        time.sleep(_POLL_SECONDS)


def free_slots(context: SparkContext) -> int:
    """Tasks that could start now: slots of all registered executors less the running tasks."""
    scala = context._jsc.sc()
    slots = scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())
    running = sum(executor.numRunningTasks() for executor in scala.statusTracker().getExecutorInfos())
    return int(slots) - int(running)
