"""Task slots for ranks, which must all run at once."""

from __future__ import annotations

import time

from pyspark import SparkContext
from pyspark.sql import SparkSession

from avrec_spark.errors import NoSparkSessionError, NotEnoughSlotsError, UsageError

_POLL_SECONDS = 0.5


def context_with_slots(launcher: str, workers: int, patience_seconds: float) -> SparkContext:
    """The active session's context, once so many slots are free.

    Raises `NoSparkSessionError`, `UsageError` where executors come and go, `NotEnoughSlotsError`.
    """
    spark = SparkSession.getActiveSession()
    if spark is None:
        raise NoSparkSessionError(f"The launcher {launcher}")
    if spark.conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        raise UsageError(
            "Dynamic allocation may take a rank's executor away in the middle of training.",
            "Set spark.dynamicAllocation.enabled=false for the job train.",
        )
    require_slots(spark.sparkContext, workers, patience_seconds)
    return spark.sparkContext


def require_slots(context: SparkContext, needed: int, patience_seconds: float) -> None:
    """Wait until `needed` task slots are free; raises `NotEnoughSlotsError` when they do not become so."""
    # A local master has all the slots that it will ever have, and nobody else's tasks.
    master = str(context.master)
    free = wait_for_slots(context, needed, 0.0 if master.startswith("local") else patience_seconds)
    if free < needed:
        raise NotEnoughSlotsError(needed, free, master)


def wait_for_slots(context: SparkContext, needed: int, patience_seconds: float) -> int:
    """The free slots, as soon as so many are free or the time is over."""
    deadline = time.monotonic() + patience_seconds
    while (free := free_slots(context)) < needed and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return free


def free_slots(context: SparkContext) -> int:
    """Tasks that could start now: slots of all registered executors less the running tasks."""
    scala = context._jsc.sc()
    slots = scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())
    running = sum(executor.numRunningTasks() for executor in scala.statusTracker().getExecutorInfos())
    return int(slots) - int(running)


def driver_host(context: SparkContext) -> str:
    """The driver's name or address, as executors know it."""
    return str(context.getConf().get("spark.driver.host", "127.0.0.1"))
