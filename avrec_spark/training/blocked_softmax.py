"""The softmax over many items, a block of users at a time: no more logits at once than stay near the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of a block. On a processor 2 MB of them stay in its cache; a GPU wants few large products.
_LOGITS = {"cpu": 1 << 19}
_LOGITS_ELSEWHERE = 1 << 26

# bool[n, m] for rows int64[n] of the users and their logits float32[n, m].
LeftOut = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    users: Tensor,
    items: Tensor,
    bias: Tensor,
    row: Tensor,
    place: Tensor,
    weight: Tensor,
    left_out: LeftOut | None = None,
) -> Tensor:
    """Σ_p weight_p × −log softmax(users[row_p] · itemsᵀ + bias)[place_p], a scalar.

    float32[n, d], float32[m, d] and float32[m]; row, place int64[p] and weight float32[p] of the pairs, which get no
    gradient. `left_out` says which logits do not take part, none of a pair's own.

    The n × m logits are the largest thing in a step by far, and passes over them cost more than the products where they
    must go to memory and back. So each block's gradient is taken as soon as its loss is there, and its logits are
    forgotten; the backward pass only scales what has been summed.

    >>> users, items = torch.zeros(2, 3), torch.zeros(4, 3)
    >>> pairs = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 2]), torch.ones(3)
    >>> round(float(cross_entropy(users, items, torch.zeros(4), *pairs)), 3)  # 3 log 4
    4.159
    """
    loss: Tensor = _CrossEntropy.apply(users, items, bias, row, place, weight, left_out)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        users: Tensor,
        items: Tensor,
        bias: Tensor,
        row: Tensor,
        place: Tensor,
        weight: Tensor,
        left_out: LeftOut | None,
    ) -> Tensor:
        order = torch.argsort(row)
        row, place, weight = row[order], place[order], weight[order]
        size = max(1, _LOGITS.get(users.device.type, _LOGITS_ELSEWHERE) // len(items))
        starts = torch.arange(0, len(users) + size, size, device=row.device)
        ends = torch.searchsorted(row, starts).tolist()
        # Under autocast scores are of half precision, where a softmax of many items would underflow; the rest is not.
        kind = torch.promote_types(users.dtype, torch.float32)
        of_users, of_items, of_bias = (torch.zeros_like(one, dtype=kind) for one in (users, items, bias))
        loss = torch.zeros((), dtype=kind, device=users.device)
        for first, start, end in zip(range(0, len(users), size), ends, ends[1:], strict=False):
            some = users[first : first + size]
            own, its, weighs = row[start:end] - first, place[start:end], weight[start:end]
            logits = (some @ items.T).to(kind).add_(bias)
            wanted = logits[own, its]
            if left_out is not None:
                rows = torch.arange(first, first + len(some), device=row.device)
                logits.masked_fill_(left_out(rows, logits), -torch.inf)
            highest = logits.amax(dim=1, keepdim=True)
            total = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
            loss += ((highest + total.log()).squeeze(1)[own] - wanted) @ weighs
            # The gradient of the logits: each user's weight × the softmax, less the weights of the pairs.
            logits *= torch.zeros_like(total).index_add_(0, own, weighs[:, None]) / total
            logits.index_put_((own, its), -weighs, accumulate=True)
            with torch.autocast(users.device.type, enabled=False):
                of_users[first : first + size] = logits @ items.to(kind)
                of_items += logits.T @ some.to(kind)
                of_bias += logits.sum(dim=0)
        context.save_for_backward(of_users, of_items, of_bias)
        return loss

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_users, of_items, of_bias = context.saved_tensors
        return gradient * of_users, gradient * of_items, gradient * of_bias, None, None, None, None
