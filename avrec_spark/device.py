"""The device that a task computes on: the GPU that Spark handed to it, or the CPU.

Spark hands out addresses (what `conf/spark/discover_gpus.sh` prints) and leaves it to the task to use no other card.
PyTorch wants the position of a card among those that CUDA shows to this process, which need not be the same number:

| address | CUDA_VISIBLE_DEVICES | device |
|---|---|---|
| index | not set | that index: all cards are visible (standalone), or the container counts its own (YARN, Kubernetes) |
| index or UUID | set, by Slurm or another launcher | the position in that list, since CUDA counts anew |
| UUID (a MIG instance, a card beside one) | not set | `cuda:0`, after the variable was set to the UUID |

CUDA shows a process one MIG instance at most, and reads its environment once. Spark uses Python processes again for
further tasks of the same executor: hence an executor with MIG instances has one of them (as in `conf/spark/gpu.conf`).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from avrec_spark.errors import SettingsError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


def of_task() -> str:
    """The device of the Spark task that this is called in: "cuda:0" or the like where it has a GPU, else "cpu".

    Of several GPUs, the first. Outside a task, and on masters that schedule no GPUs (local[…]), "cpu". Call it before
    anything initialises CUDA: it may set CUDA's environment. Raises `SettingsError` as `of_address` does.
    """
    # Kernels are used without Spark, too.
    from pyspark import TaskContext

    task = TaskContext.get()
    gpus = task.resources().get("gpu") if task is not None else None
    return of_address(gpus.addresses[0]) if gpus is not None and gpus.addresses else "cpu"


def of_address(address: str, environment: MutableMapping[str, str] = os.environ) -> str:
    """PyTorch's name for the GPU with that address: an index as nvidia-smi counts, or a UUID.

    Raises `SettingsError` where CUDA_VISIBLE_DEVICES hides the GPU from this process.

    >>> of_address("3", {})
    'cuda:3'
    >>> of_address("3", {"CUDA_VISIBLE_DEVICES": "2,3"})
    'cuda:1'
    """
    visible = environment.get(VISIBLE)
    if visible is None and address.isdecimal():
        # nvidia-smi counts by bus; CUDA would begin with the fastest card.
        environment.setdefault(ORDER, "PCI_BUS_ID")
        return f"cuda:{address}"
    if visible is None:
        environment[VISIBLE] = visible = address
    for position, entry in enumerate(visible.replace(" ", "").split(",")):
        if entry == address or (entry.startswith(("GPU-", "MIG-")) and address.startswith(entry)):
            return f"cuda:{position}"
    raise SettingsError(
        f"Spark gave the GPU {address} to a task whose process sees only CUDA_VISIBLE_DEVICES={visible!r}.",
        "Let conf/spark/discover_gpus.sh find the GPUs in the environment that executors run in, and give an executor "
        "one GPU (spark.executor.resource.gpu.amount=1) where addresses are UUIDs.",
    )
