"""Horovod on Spark: each rank is a task of the active session, gradients travel by gloo."""

from __future__ import annotations

import os
import time
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from avrec_spark.errors import MissingExtraError, NotEnoughSlotsError, UsageError
from avrec_spark.training.launchers.base import C, Launcher, TrainFunction
from avrec_spark.training.ranks import HorovodRanks

_POLL_SECONDS = 0.5


class HorovodLauncher(Launcher):
    """Ranks as Spark tasks that all run at once.

    Horovod itself would wait for ever when slots are lacking, so the free ones are counted first: a cluster gets half
    of `start_timeout_seconds` to bring its executors, then `NotEnoughSlotsError` names what is free and needed.
    """

    def __init__(self, start_timeout_seconds: int = 60) -> None:
        self.start_timeout_seconds = start_timeout_seconds

    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        spark = SparkSession.getActiveSession()
        if spark is None:
            raise UsageError(
                "Horovod trains on Spark, and no session is active.",
                "Start one with avrec_spark.session.get, or set train.launcher=in-process.",
            )
        try:
            import horovod.spark
        except ImportError:
            raise MissingExtraError("The launcher horovod", "horovod", "training") from None
        if spark.conf.get("spark.dynamicAllocation.enabled", "false") == "true":
            raise UsageError(
                "Dynamic allocation may take a rank's executor away in the middle of training.",
                "Set spark.dynamicAllocation.enabled=false for the job train.",
            )
        require_slots(spark.sparkContext, workers, self.start_timeout_seconds / 2)
        results = horovod.spark.run(
            _rank,
            args=(train, config),
            num_proc=workers,
            use_gloo=True,
            start_timeout=self.start_timeout_seconds,
            # The ranks' Python must find what the driver's finds.
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            verbose=0,
        )
        return results[0]


def _rank(train: TrainFunction[C], config: C) -> Any:
    ranks = HorovodRanks()
    result = train(config, ranks)
    return result if ranks.rank == 0 else None


def require_slots(context: SparkContext, needed: int, patience_seconds: float) -> None:
    """Wait until `needed` task slots are free; raises `NotEnoughSlotsError` when they do not become so."""
    # A local master has all the slots that it will ever have, and nobody else's tasks.
    patience = 0.0 if context.master.startswith("local") else patience_seconds
    deadline = time.monotonic() + patience
    while (free := free_slots(context)) < needed:
        if time.monotonic() >= deadline:
            raise NotEnoughSlotsError(needed, free, context.master)
        time.sleep(_POLL_SECONDS)


def free_slots(context: SparkContext) -> int:
    """Tasks that could start now: slots of all registered executors less the running tasks."""
    scala = context._jsc.sc()
    slots = scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())
    running = sum(executor.numRunningTasks() for executor in scala.statusTracker().getExecutorInfos())
    return int(slots) - int(running)
