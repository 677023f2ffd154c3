"""What is known of the labels of items, and which of the labels can be learnt from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Items are dealt to the parts by a hash of their ids, so that no item ever moves from one part to another.
TRAIN, CALIBRATION, VALIDATION, TEST = "train", "calibration", "validation", "test"
_SHARES = {TRAIN: 0.6, CALIBRATION: 0.15, VALIDATION: 0.1, TEST: 0.15}


def parts(ids: pd.Series[Any], seed: int = 42) -> NDArray[np.str_]:
    """The part of each item, by a hash of its id as text and the seed.

    >>> list(parts(pd.Series([7, 8, 9]))) == list(parts(pd.Series(["7", "8", "9"])))
    True
    """
    hashes = pd.util.hash_array(np.array([f"{one}#{seed}" for one in ids], object))
    cuts = np.cumsum(list(_SHARES.values()))[:-1]
    return np.array(list(_SHARES))[np.searchsorted(cuts, hashes / 2.0**64, side="right")]


def known_labels(
    tags: Sequence[Sequence[str] | None], decisions: Iterable[tuple[int, str, bool]] = ()
) -> tuple[list[str], NDArray[np.float32]]:
    """(L names, float32[n, L]): 1 where an item has the label, 0 where it has not, NaN where nobody has said.

    An item with declared tags is taken to have no others; one without any is unknown, not without labels. Decisions
    (position of the item, label, yes or no) win over what is declared.

    >>> known_labels([["cat"], None, ["dog", "cat"]], [(1, "dog", True), (2, "cat", False)])
    (['cat', 'dog'], array([[ 1.,  0.], [nan,  1.], [ 0.,  1.]], dtype=float32))
    """
    decisions = list(decisions)
    names = sorted({tag for said in tags for tag in said or ()} | {label for _, label, _ in decisions})
    column = {name: number for number, name in enumerate(names)}
    known = np.full((len(tags), len(names)), np.nan, np.float32)
    for row, said in enumerate(tags):
        if said is not None and len(said):
            known[row] = 0
            known[row, [column[tag] for tag in said]] = 1
    for row, label, yes in decisions:
        known[row, column[label]] = yes
    return names, known


def learnable(
    names: Sequence[str], known: NDArray[np.float32], part: NDArray[np.str_], at_least: int
) -> tuple[NDArray[np.bool_], dict[str, str]]:
    """(bool[L], the reason of each label that is not learnt).

    A label is learnt from `at_least` items with it and as many without, of which train has some of both kinds. Where
    another part has only one kind, nothing could be chosen, calibrated or measured, and no label is learnt.

    >>> known = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], np.float32)
    >>> learnable(["cat", "all"], known, np.array([TRAIN, TRAIN, TEST, TEST]), 2)[1]["all"]
    'has 0 items without it, and 2 are needed'
    """
    reasons = {}
    for label, column in zip(names, known.T, strict=True):
        counts = {"with it": int((column == 1).sum()), "without it": int((column == 0).sum())}
        too_few = next((f"has {n} items {kind}" for kind, n in counts.items() if n < at_least), None)
        if too_few is not None:
            reasons[label] = f"{too_few}, and {at_least} are needed"
        elif len(_kinds(column[part == TRAIN])) < 2:
            reasons[label] = "has items of one kind only in the train part"
    learnt = np.array([label not in reasons for label in names], np.bool_)
    for name in _SHARES:
        if learnt.any() and len(_kinds(known[part == name][:, learnt])) < 2:
            reasons |= {label: f"the {name} part has too few labelled items" for label in names if label not in reasons}
            learnt[:] = False
    return learnt, reasons


def _kinds(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.unique(values[~np.isnan(values)])
