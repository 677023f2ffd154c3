from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from avrec_spark.training.gradients import Gradients, LazyAdamW, dense_cost, rows_cost
from avrec_spark.training.ranks import OneRank


class Echo(OneRank):
    """Two ranks, of which the other one does the same as this one."""

    size = 2

    def gather(self, tensors):
        return [torch.cat([tensor, tensor]) for tensor in tensors]


def table(rows):
    torch.manual_seed(0)
    return torch.nn.Embedding(rows, 3)


def test_a_table_travels_by_rows_only_where_that_moves_fewer_bytes():
    module = torch.nn.ModuleDict({"large": table(1000), "small": table(4)})
    gradients = Gradients(module, Echo())
    rows = torch.tensor([0, 1, 2, 3])
    (module["large"](rows) + module["small"](rows)).sum().backward()
    gradients.average()
    assert gradients.by_rows == [module["large"].weight]
    assert not module["small"].sparse
    # The mean of two equal ranks is what one has: every looked-up row got ones.
    for name, size in (("large", 1000), ("small", 4)):
        expected = torch.zeros(size, 3)
        expected[:4] = 1
        assert torch.equal(module[name].weight.grad, expected)


def test_rows_pay_off_below_about_half_of_a_table_for_two_ranks():
    numbers = 1000 * 62
    assert rows_cost(900, 62, 2) < dense_cost(numbers, 2)
    assert rows_cost(980, 62, 2) > dense_cost(numbers, 2)
    # Every further rank sends its rows to all others, and an all-reduce stays where it is.
    assert rows_cost(900, 62, 8) > dense_cost(numbers, 8)


def test_lazy_adamw_is_adamw_where_every_row_is_touched():
    lazy, dense = table(5), table(5)
    lazy.sparse = True
    optimizers = LazyAdamW(lazy.parameters(), 0.1, 0.3), torch.optim.AdamW(dense.parameters(), 0.1, weight_decay=0.3)
    generator = np.random.default_rng(0)
    for _ in range(4):
        rows = torch.from_numpy(np.concatenate([np.arange(5), generator.integers(0, 5, 3)]))
        for module, optimizer in zip((lazy, dense), optimizers, strict=True):
            optimizer.zero_grad()
            (module(rows) ** 2 + module(rows)).sum().backward()
        Gradients(lazy, OneRank(), lazy=True).average()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(lazy.weight, dense.weight, atol=1e-6)


def test_lazy_adamw_leaves_rows_alone_that_nobody_touches():
    module = table(6)
    before = copy.deepcopy(module.weight.detach())
    gradients = Gradients(module, OneRank(), lazy=True)
    optimizer = LazyAdamW(gradients.by_rows, 0.1, weight_decay=0.5)
    module(torch.tensor([1, 4, 4])).sum().backward()
    gradients.average()
    optimizer.step()
    moved = (module.weight != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False, True, False]
    # The first step of Adam is the learning rate against the gradient's sign, after the decay.
    assert module.weight[1].tolist() == pytest.approx((before[1] * (1 - 0.1 * 0.5) - 0.1).tolist(), abs=1e-5)
