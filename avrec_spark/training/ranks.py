"""What a training function knows about the other ranks: one alone, or several under Horovod or torch.distributed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from avrec_spark.errors import RanksLostError

T = TypeVar("T")
Report = Callable[[Mapping[str, float]], None]


class Ranks(ABC):
    """This rank among `size`, numbered from 0, and the few things that ranks do together.

    All ranks call the same methods in the same order with tensors of the same shapes, but for the first dimension in
    `gather`. `report` takes the figures of an epoch on rank 0, for people who watch.
    """

    rank: int
    size: int
    device: torch.device
    report: Report | None = None

    @abstractmethod
    def share(self, module: torch.nn.Module) -> None:
        """Give every rank rank 0's parameters and buffers."""

    @abstractmethod
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks."""

    @abstractmethod
    def gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor of all ranks, one below the other in order of rank; their numbers of rows may differ."""

    @abstractmethod
    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank."""

    def mean(self, value: float) -> float:
        """The mean of a number over the ranks."""
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        self.average([tensor])
        return float(tensor)

    def leave(self) -> None:
        """End the job of this rank; the others' next common step fails unless they have left too."""


class OneRank(Ranks):
    """Training in one process, on the GPU that it sees, if any."""

    rank, size = 0, 1

    def __init__(self, report: Report | None = None) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.report = report

    def share(self, module: torch.nn.Module) -> None:
        """Nobody to share with."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """A mean of one."""

    def gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def from_first(self, value: T) -> T:
        return value


class HorovodRanks(Ranks):
    """Ranks of a Horovod job; to be made inside a rank's own process."""

    def __init__(self, report: Report | None = None) -> None:
        import horovod.torch

        self._horovod: Any = horovod.torch
        self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        self.device = _device(self._horovod.local_rank())
        self.report = report
        _share_cores(self._horovod.local_size())

    def share(self, module: torch.nn.Module) -> None:
        self._horovod.broadcast_parameters(module.state_dict(), root_rank=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        if tensors:
            self._horovod.grouped_allreduce_(list(tensors), name="average", op=self._horovod.Average)

    def gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        handles = [self._horovod.allgather_async(one, name=f"gather.{n}") for n, one in enumerate(tensors)]
        return [self._horovod.synchronize(handle) for handle in handles]

    def from_first(self, value: T) -> T:
        # Unnamed broadcasts are matched by the type of the value, and hang where ranks hold different types.
        shared: T = self._horovod.broadcast_object(value, root_rank=0, name="from_first")
        return shared

    def leave(self) -> None:
        self._horovod.shutdown()


class TorchRanks(Ranks):
    """Ranks of a torch.distributed job (gloo, or NCCL between GPUs); to be made inside a rank's own process.

    `store` is where the ranks meet. Raises `RanksLostError` where another rank has gone.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        store: Any,
        local_size: int,
        device: str = "cpu",
        report: Report | None = None,
    ) -> None:
        self.rank, self.size, self.device, self.report = rank, size, torch.device(device), report
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        with _losses():
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
        _share_cores(local_size)

    def share(self, module: torch.nn.Module) -> None:
        with _losses():
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        # One message for all tensors of a type: on loopback and in a data centre latency costs more than a copy.
        for kind in {tensor.dtype for tensor in tensors}:
            group = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.flatten() for tensor in group])
            with _losses():
                torch.distributed.all_reduce(flat)
            flat /= self.size
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        mine = torch.tensor([len(tensor) for tensor in tensors], device=self.device)
        counts = [torch.empty_like(mine) for _ in range(self.size)]
        gathered = []
        with _losses():
            torch.distributed.all_gather(counts, mine)
            for number, tensor in enumerate(tensors):
                rows = [int(count[number]) for count in counts]
                # All ranks send as much as the longest has.
                padded = tensor.new_zeros((max(rows), *tensor.shape[1:]))
                padded[: len(tensor)] = tensor
                parts = [torch.empty_like(padded) for _ in range(self.size)]
                torch.distributed.all_gather(parts, padded)
                gathered.append(torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)]))
        return gathered

    def from_first(self, value: T) -> T:
        values = [value]
        with _losses():
            torch.distributed.broadcast_object_list(values, 0, device=self.device)
        return values[0]

    def leave(self) -> None:
        torch.distributed.destroy_process_group()


@contextmanager
def _losses() -> Iterator[None]:
    """gloo says by a bare RuntimeError that the other side has gone."""
    try:
        yield
    except RuntimeError as error:
        raise RanksLostError(str(error).strip().split("\n")[0].rstrip(".")) from error


def _device(local_rank: int) -> torch.device:
    cards = torch.cuda.device_count()
    return torch.device(f"cuda:{local_rank % cards}") if cards else torch.device("cpu")


def _share_cores(ranks: int) -> None:
    """Ranks share a machine's cores; more threads than cores only wait for each other."""
    torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
