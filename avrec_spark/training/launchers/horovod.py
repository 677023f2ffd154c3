"""Horovod on Spark: each rank is a process beside a task of the active session, gradients travel by gloo or NCCL."""

from __future__ import annotations

from typing import Any

from avrec_spark.errors import MissingExtraError, NotEnoughSlotsError, RanksLostError, RanksNotStartedError
from avrec_spark.training.launchers.base import C, Launcher, TrainFunction, first_result, run_rank
from avrec_spark.training.launchers.reports import Reporter, reports
from avrec_spark.training.launchers.slots import context_with_slots, driver_host, free_slots, wait_for_slots
from avrec_spark.training.ranks import HorovodRanks

# The tasks of a job whose rank was killed hold their slots a little longer than the job.
_ENDING_SECONDS = 30.0


class HorovodLauncher(Launcher):
    """Ranks as Spark tasks that all run at once; Spark deals them to the executors in turn.

    Horovod itself would wait for ever when slots are lacking, so the free ones are counted first: a cluster gets half
    of `start_timeout_seconds` to bring its executors, then `NotEnoughSlotsError` names what is free and needed. An
    error of a rank is raised here by its own type where it is the platform's, else as `RankFailedError`; a rank that
    was killed, as `RanksLostError`, which a scheduler answers by running the job again.
    """

    def __init__(self, start_timeout_seconds: int = 60) -> None:
        self.start_timeout_seconds = start_timeout_seconds

    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        try:
            import horovod.spark
            from horovod.runner.common.util.timeout import TimeoutException
        except ImportError:
            raise MissingExtraError("The launcher horovod", "horovod", "training") from None
        context = context_with_slots("horovod", workers, self.start_timeout_seconds / 2)
        try:
            with reports(self.report, driver_host(context)) as reporter:
                results = horovod.spark.run(
                    _rank,
                    args=(train, config, reporter),
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
            wait_for_slots(context, workers, _ENDING_SECONDS)
            raise RanksLostError(" ".join(str(error).split()).rstrip(" .")) from error
        return first_result(results)


def _rank(train: TrainFunction[C], config: C, reporter: Reporter | None) -> Any:
    from horovod.common.exceptions import HorovodInternalError

    return run_rank(train, config, HorovodRanks(reporter), HorovodInternalError)
