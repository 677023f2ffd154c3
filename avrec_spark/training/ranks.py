"""What a training function knows about the other ranks; one rank alone, or several under Horovod."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Ranks(ABC):
    """This rank among `size`, numbered from 0, and the few things that ranks do together."""

    rank: int
    size: int

    @abstractmethod
    def optimizer(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer, averaging gradients over the ranks; all ranks start from rank 0's parameters."""

    @abstractmethod
    def mean(self, value: float) -> float:
        """The mean of a number over the ranks."""

    @abstractmethod
    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank."""


class OneRank(Ranks):
    """Training in one process."""

    rank, size = 0, 1

    def optimizer(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> torch.optim.Optimizer:
        return optimizer

    def mean(self, value: float) -> float:
        return value

    def from_first(self, value: T) -> T:
        return value


class HorovodRanks(Ranks):
    """Ranks of a Horovod job; to be made inside a rank's own process."""

    def __init__(self) -> None:
        import horovod.torch

        self._horovod: Any = horovod.torch
        self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        # Ranks share a machine's cores; more threads than cores only wait for each other.
        torch.set_num_threads(max(1, torch.get_num_threads() // self._horovod.local_size()))

    def optimizer(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> torch.optim.Optimizer:
        self._horovod.broadcast_parameters(module.state_dict(), root_rank=0)
        wrapped: torch.optim.Optimizer = self._horovod.DistributedOptimizer(
            optimizer, named_parameters=module.named_parameters()
        )
        return wrapped

    def leave(self) -> None:
        """End the job of this rank; the others' next common step fails unless they have left too."""
        self._horovod.shutdown()

    def mean(self, value: float) -> float:
        return float(self._horovod.allreduce(torch.tensor(value, dtype=torch.float64)))

    def from_first(self, value: T) -> T:
        # Unnamed broadcasts are matched by the type of the value, and hang where ranks hold different types.
        shared: T = self._horovod.broadcast_object(value, root_rank=0, name="from_first")
        return shared
