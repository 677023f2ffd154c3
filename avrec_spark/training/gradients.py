"""Gradients over the ranks: embedding tables travel by touched rows where that moves fewer bytes.

A batch touches few rows of a large table, and a dense all-reduce sends all of them. Whether rows are cheaper is
measured in the first step: a ring all-reduce of a table of n rows of d numbers sends and receives
2 (R - 1) / R · 4 n d bytes a rank, and gathering r touched rows of each of R ranks (R - 1) · r · (4 d + 8).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from avrec_spark.training.ranks import Ranks


class Gradients:
    """Averages a module's gradients over the ranks, after `backward` and before the optimizers' step.

    `by_rows` are the tables (`nn.Embedding`) that travel by touched rows, known after the first step. The optimizers
    get dense gradients, so that how they travel changes nothing but rounding; with `lazy` all tables travel and stay
    sparse, for `LazyAdamW`. `bytes_per_step` is what the last step moved, a rank.
    """

    def __init__(self, module: nn.Module, ranks: Ranks, lazy: bool = False) -> None:
        self._ranks, self._lazy = ranks, lazy
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._tables = {
            table.weight: table
            for table in module.modules()
            if isinstance(table, nn.Embedding) and table.weight.requires_grad
        }
        self.by_rows: list[Tensor] = list(self._tables) if lazy else []
        self._measured = lazy or ranks.size == 1
        # torch warns of checks that are neither on nor off; rows come from lookups, which have been checked.
        torch.sparse.check_sparse_tensor_invariants.disable()
        for table in self._tables.values():
            table.sparse = lazy or not self._measured
        self.bytes_per_step = 0.0

    @property
    def dense(self) -> list[Tensor]:
        """The parameters that travel whole."""
        by_rows = set(self.by_rows)
        return [parameter for parameter in self.parameters if parameter not in by_rows]

    def average(self) -> None:
        if not self._measured:
            self._measure()
        sparse, dense = self.by_rows, self.dense
        # A rank without rows in this step, or a part that it did not use, counts as nought, or ranks would wait for it.
        for parameter in dense:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        self._ranks.average([parameter.grad for parameter in dense if parameter.grad is not None])
        mine = [_rows(parameter) for parameter in sparse]
        gathered = self._ranks.gather([one for pair in mine for one in pair])
        for parameter, index, values in zip(sparse, gathered[::2], gathered[1::2], strict=True):
            mean = values / self._ranks.size
            if self._lazy:
                parameter.grad = torch.sparse_coo_tensor(index[None], mean, parameter.shape).coalesce()
            else:
                parameter.grad = torch.zeros_like(parameter).index_add_(0, index, mean)
        others = 1 - 1 / self._ranks.size
        moved = sum(2 * parameter.nbytes for parameter in dense) + sum(one.nbytes for one in gathered)
        self.bytes_per_step = moved * others

    def _measure(self) -> None:
        """Keep by rows the tables of which a step touches few rows, on the mean of the ranks."""
        for weight, table in self._tables.items():
            rows = self._ranks.mean(float(len(_rows(weight)[0])))
            if rows_cost(rows, weight.shape[1], self._ranks.size) < dense_cost(weight.numel(), self._ranks.size):
                self.by_rows.append(weight)
            else:
                table.sparse = False
        self._measured = True


def dense_cost(numbers: int, ranks: int) -> float:
    """Bytes that a rank sends and receives in a ring all-reduce of so many float32.

    >>> dense_cost(1_000, ranks=2)
    4000.0
    """
    return 2 * (ranks - 1) / ranks * 4 * numbers


def rows_cost(rows: float, dimension: int, ranks: int) -> float:
    """Bytes that a rank receives when each rank sends so many rows, and their numbers, to all others.

    >>> rows_cost(10, dimension=64, ranks=2)
    2640.0
    """
    return float((ranks - 1) * rows * (4 * dimension + 8))


def _rows(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """(touched rows int64[r], their gradients float32[r, d])."""
    gradient = parameter.grad
    if gradient is None:
        none = parameter.new_empty((0, *parameter.shape[1:]))
        return torch.empty(0, dtype=torch.int64, device=parameter.device), none
    if not gradient.is_sparse:
        return torch.arange(len(parameter), device=parameter.device), gradient
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values()


class LazyAdamW(torch.optim.Optimizer):
    """AdamW that moves and decays only the rows with a gradient in this step; the others cost nothing.

    The moments of a row rest while it has no gradient, as in torch's SparseAdam; the weight decay is decoupled
    (Loshchilov and Hutter 2019). For gradients that are coalesced and sparse in the first dimension.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        assert parameter.grad is not None
        rows, gradient = parameter.grad.indices()[0], parameter.grad.values()
        mean = state["mean"][rows].lerp_(gradient, 1 - first)
        square = state["square"][rows].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        state["mean"][rows], state["square"][rows] = mean, square
        size = group["lr"] / (1 - first ** state["step"])
        scale = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        kept = parameter[rows] * (1 - group["lr"] * group["weight_decay"])
        parameter[rows] = kept.addcdiv_(mean, scale, value=-size)
