"""The softmax in blocks: the loss and gradients of the whole one, whatever the blocks, and what is left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from avrec_spark.training import blocked_softmax
from avrec_spark.training.blocked_softmax import cross_entropy

USERS, ITEMS, PAIRS = 7, 5, 11


def drawn(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((USERS, 3), (ITEMS, 3), (ITEMS,))
    users, items, bias = (torch.randn(*shape, dtype=dtype, generator=generator) for shape in shapes)
    return users.requires_grad_(), items.requires_grad_(), bias.requires_grad_()


def pairs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """User 6 has none, and user 0 the same item twice."""
    row = torch.tensor([3, 0, 5, 0, 1, 1, 4, 2, 0, 5, 3])
    place = torch.tensor([1, 4, 0, 4, 2, 3, 3, 0, 1, 2, 0])
    return row, place, torch.linspace(0.1, 2.0, PAIRS, dtype=dtype)


def whole(users: Tensor, items: Tensor, bias: Tensor, row: Tensor, place: Tensor, weight: Tensor) -> Tensor:
    logits = users @ items.T + bias
    return functional.cross_entropy(logits[row], place, reduction="none") @ weight


@pytest.mark.parametrize("logits", [1, 2 * ITEMS, 3 * ITEMS + 1, 1 << 19], ids="{} logits a block".format)
def test_loss_and_gradients_are_those_of_the_whole_softmax(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_softmax, "_LOGITS", {"cpu": logits})
    found = []
    for of in (cross_entropy, whole):
        given = drawn()
        loss = of(*given, *pairs())
        (3 * loss).backward()  # type: ignore[no-untyped-call]
        found.append([loss.detach(), *(one.grad for one in given)])
    torch.testing.assert_close(*found)


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_softmax, "_LOGITS", {"cpu": 2 * ITEMS})
    assert torch.autograd.gradcheck(lambda *given: cross_entropy(*given, *pairs()), drawn())


def test_large_scores_do_not_overflow() -> None:
    users, items, bias = drawn(torch.float32)
    loss = cross_entropy(users * 1e4, items, bias, *pairs(torch.float32))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert users.grad is not None
    assert torch.isfinite(users.grad).all()


def test_what_is_left_out_is_neither_counted_nor_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_softmax, "_LOGITS", {"cpu": 2 * ITEMS})
    users, items, bias = drawn()
    row, place, weight = torch.arange(USERS), torch.zeros(USERS, dtype=torch.int64), torch.ones(USERS).double()
    # The last item for users with odd numbers: those are told right in every block.
    odd = torch.arange(USERS) % 2 == 1

    def last_for_odd(rows: Tensor, logits: Tensor) -> Tensor:
        left = torch.zeros_like(logits, dtype=torch.bool)
        left[:, -1] = odd[rows]
        return left

    loss = cross_entropy(users, items, bias, row, place, weight, last_for_odd)
    without_last = users @ items[:-1].T + bias[:-1]
    with_last = users @ items.T + bias
    by_hand = sum(functional.cross_entropy((without_last if o else with_last)[u], place[u]) for u, o in enumerate(odd))
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(
        torch.autograd.grad(loss, (users, items, bias)), torch.autograd.grad(by_hand, (users, items, bias))
    )


def test_under_autocast_sums_stay_in_float32() -> None:
    given = drawn(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(*given, *pairs(torch.float32))
    loss.backward()  # type: ignore[no-untyped-call]
    exact = drawn(torch.float32)
    of_all = whole(*exact, *pairs(torch.float32))
    of_all.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, of_all, rtol=0.02, atol=0.0)
    for one, other in zip(given, exact, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0.05, atol=0.05)
