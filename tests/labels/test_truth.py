from __future__ import annotations

import numpy as np
import pandas as pd

from avrec_spark.labels.truth import CALIBRATION, TEST, TRAIN, VALIDATION, known_labels, learnable, parts

ALL_PARTS = np.array([TRAIN, CALIBRATION, VALIDATION, TEST]).repeat(4)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_parts_have_their_shares_and_no_item_moves_when_others_come():
    few, many = parts(pd.Series(range(1000))), parts(pd.Series(range(20_000)))
    assert (few == many[:1000]).all()
    shares = pd.Series(many).value_counts(normalize=True).round(2).to_dict()
    assert shares == {TRAIN: 0.6, CALIBRATION: 0.15, TEST: 0.15, VALIDATION: 0.1}
    assert (parts(pd.Series(range(1000)), seed=1) != few).any()


def test_a_decision_wins_over_a_declared_tag_and_makes_an_untagged_item_known_for_that_label_only():
    names, known = known_labels([["a"], None, []], [(0, "a", False), (0, "b", True), (2, "c", True)])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(known, [[0, 1, 0], [np.nan] * 3, [np.nan, np.nan, 1]])


def test_rare_and_one_class_labels_are_left_out_with_their_reasons():
    good = column(1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1)
    rare = np.zeros(16, np.float32)
    rare[0] = 1
    not_in_train = column(0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1)
    known = np.stack([good, rare, np.ones(16, np.float32), not_in_train], axis=1)
    learnt, reasons = learnable(["good", "rare", "everywhere", "late"], known, ALL_PARTS, 4)
    assert learnt.tolist() == [True, False, False, False]
    assert reasons == {
        "rare": "has 1 items with it, and 4 are needed",
        "everywhere": "has 0 items without it, and 4 are needed",
        "late": "has items of one kind only in the train part",
    }


def test_nothing_is_learnt_where_a_part_could_not_be_measured():
    known = column(1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1)[:, None]
    learnt, reasons = learnable(["cat"], known, ALL_PARTS, 4)
    assert not learnt.any()
    assert reasons == {"cat": "the validation part has too few labelled items"}
