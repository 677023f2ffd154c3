from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from avrec_spark.errors import DataError
from avrec_spark.labels import calibration


def outcomes(share: float, pairs: int) -> np.ndarray:
    """So many pairs of which this share is true."""
    return (np.arange(pairs) < round(share * pairs)).astype(np.float32)


def test_a_perfectly_calibrated_predictor_has_no_error():
    levels = [0.1, 0.4, 0.7, 0.9]
    confidence = np.repeat(levels, 10)
    truth = np.concatenate([outcomes(level, 10) for level in levels])
    assert calibration.expected_calibration_error(confidence, truth) == pytest.approx(0)


def test_an_over_confident_predictor_has_the_gap_as_its_error():
    confidence = np.repeat([0.95, 0.05], 20)
    truth = np.concatenate([outcomes(0.75, 20), outcomes(0.25, 20)])
    assert calibration.expected_calibration_error(confidence, truth) == pytest.approx(0.2)


def test_every_pair_is_in_one_bin_and_the_edges_belong_to_the_outer_ones():
    table = calibration.reliability(np.array([0.0, 0.5, 1.0]), np.array([0, 1, 1]), bins=2)
    assert table[["low", "high", "pairs"]].to_numpy().tolist() == [[0.0, 0.5, 1], [0.5, 1.0, 2]]


def test_unknown_labels_do_not_count():
    confidence, truth = np.array([[0.9, 0.1], [0.9, 0.6]]), np.array([[1, np.nan], [1, np.nan]])
    assert calibration.expected_calibration_error(confidence, truth) == pytest.approx(0.1)
    assert np.isnan(calibration.expected_calibration_error(confidence, np.full((2, 2), np.nan)))


@pytest.mark.parametrize("true_temperature", [0.5, 3.0])
def test_temperature_is_found_where_outcomes_were_drawn_with_it(true_temperature):
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 3, (20_000, 2)).astype(np.float32)
    truth = (generator.random(scores.shape) < expit(scores / true_temperature)).astype(np.float32)
    assert calibration.temperature(scores, truth) == pytest.approx(true_temperature, rel=0.05)
    calibrated = calibration.fit("temperature", scores, truth)(scores)
    before = calibration.expected_calibration_error(calibration.uncalibrated(scores), truth)
    assert before > 0.05 > 5 * calibration.expected_calibration_error(calibrated, truth)


def test_isotonic_regression_pools_what_falls_and_keeps_the_shape():
    scores = np.array([[-2, -1], [1, 2]], np.float32)
    calibrate = calibration.fit("isotonic", scores, np.array([[0, 1], [0, 1]], np.float32))
    assert calibrate(scores).tolist() == [[0.0, 0.5], [0.5, 1.0]]
    assert calibrate(np.array([[9, -9]], np.float32)).tolist() == [[1.0, 0.0]]


def test_both_methods_map_the_same_scores_to_near_the_true_probability():
    scores = np.repeat(np.float32([-2, 2]), 100)
    truth = np.concatenate([outcomes(0.3, 100), outcomes(0.7, 100)])
    for method in ("temperature", "isotonic"):
        np.testing.assert_allclose(calibration.fit(method, scores, truth)(np.float32([-2, 2])), [0.3, 0.7], atol=5e-3)
    smoothed = (0.7 * 101 + 0.3 * 1) / 102
    assert calibration.temperature(scores, truth) == pytest.approx(2 / logit(smoothed), rel=1e-3)


def test_ten_items_told_apart_without_a_mistake_are_no_reason_to_be_certain():
    scores, truth = np.repeat(np.float32([-5, 5]), 10), np.repeat(np.float32([0, 1]), 10)
    calibrate = calibration.fit("temperature", scores, truth)
    np.testing.assert_allclose(calibrate(np.float32([-5, 5])), [1 / 12, 11 / 12], rtol=1e-3)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_labels_of_one_class_cannot_be_calibrated_on(method):
    with pytest.raises(DataError, match="The 3 known labels to calibrate on are of one class"):
        calibration.fit(method, np.float32([1, 2, 3, 4]), np.float32([1, 1, 1, np.nan]))
