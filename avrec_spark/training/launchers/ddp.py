"""torch.distributed on Spark: each rank is a task of one barrier stage, gradients travel by gloo or NCCL."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from pyspark.errors import PySparkException
from pyspark.taskcontext import BarrierTaskContext
from torch import distributed

from avrec_spark import device
from avrec_spark.errors import RanksLostError
from avrec_spark.training.launchers.base import C, Launcher, TrainFunction, first_result, run_rank
from avrec_spark.training.launchers.reports import Reporter, reports
from avrec_spark.training.launchers.slots import context_with_slots, driver_host
from avrec_spark.training.ranks import TorchRanks


class DDPLauncher(Launcher):
    """Data-parallel ranks in the tasks of a barrier stage, which Spark starts together or not at all.

    Spark starts the stage again when a rank's process is killed (on a local master only with local[n,failures]), and
    training then goes on from its last checkpoint. Other errors are raised here as by the Horovod launcher.
    """

    def __init__(self, start_timeout_seconds: int = 60) -> None:
        self.start_timeout_seconds = start_timeout_seconds

    def launch(self, train: TrainFunction[C], config: C, workers: int) -> Any:
        context = context_with_slots("ddp", workers, self.start_timeout_seconds / 2)
        seconds = self.start_timeout_seconds
        with reports(self.report, driver_host(context)) as reporter:

            def ranks(_: Iterable[Any]) -> Iterator[Any]:
                yield _rank(train, config, reporter, seconds)

            try:
                results = context.parallelize(range(workers), workers).barrier().mapPartitions(ranks).collect()
            except Exception as error:
                if not _is_lost(error):
                    raise
                raise RanksLostError("a rank's process ended before its training did") from error
        return first_result(results)


def _is_lost(error: Exception) -> bool:
    from py4j.protocol import Py4JJavaError

    return isinstance(error, (Py4JJavaError, PySparkException))


def _rank(train: TrainFunction[C], config: C, reporter: Reporter | None, start_timeout_seconds: int) -> Any:
    """In a task of the stage: meet the others at a store that rank 0 opens, then train."""
    task = BarrierTaskContext.get()
    hosts = [info.address.rsplit(":", 1)[0] for info in task.getTaskInfos()]
    rank, size = task.partitionId(), len(hosts)
    listener = socket.create_server(("", 0)) if rank == 0 else None
    port = listener.getsockname()[1] if listener is not None else 0
    port = int(task.allGather(str(port))[0])
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        hosts[0],
        port,
        size,
        is_master=rank == 0,
        timeout=timedelta(seconds=start_timeout_seconds),
        # The socket that was announced, so that nobody can take its port in between.
        master_listen_fd=listener.detach() if listener is not None else None,
    )
    try:
        ranks = TorchRanks(rank, size, store, hosts.count(hosts[rank]), device.of_task(), reporter)
    except RanksLostError as error:
        return error
    return run_rank(train, config, ranks, RanksLostError)
