"""Where training runs: in this process, or on Spark executors under Horovod or torch.distributed."""

from __future__ import annotations

from avrec_spark.training.launchers.base import InProcessLauncher, Launcher

__all__ = ["NAMES", "InProcessLauncher", "Launcher", "create"]

NAMES = ("in-process", "horovod", "ddp")


def create(name: str, start_timeout_seconds: int = 60) -> Launcher:
    """A launcher by name; `start_timeout_seconds` bounds the wait for free slots and for the ranks to meet."""
    if name == "in-process":
        return InProcessLauncher()
    if name == "ddp":
        from avrec_spark.training.launchers.ddp import DDPLauncher

        return DDPLauncher(start_timeout_seconds)
    from avrec_spark.training.launchers.horovod import HorovodLauncher

    return HorovodLauncher(start_timeout_seconds)
