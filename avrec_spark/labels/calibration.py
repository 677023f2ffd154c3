"""Scores into probabilities that mean what they say, and the figure that tells how far they do.

Both calibrators are fitted to all labels together, on items that the classifier has not learnt from: few labels have
enough items for a calibrator of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from avrec_spark.errors import DataError

BINS = 15

# Scores of any shape → probabilities of the same shape.
Calibrator = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def uncalibrated(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logistic function of the scores, as they are."""
    return np.asarray(expit(scores.astype(np.float64)))


def temperature(scores: NDArray[np.float32], known: NDArray[np.float32]) -> float:
    """The T > 0 for which σ(score / T) has the lowest cross-entropy (Guo et al. 2017, section 4.2, for two classes).

    Arrays of the same shape; labels are 1, 0 and NaN, the latter not counted. Raises `DataError` where all known labels
    are the same. T is looked for between 0.01 and 100. With N+ labels of 1 and N- of 0 the targets are
    (N+ + 1) / (N+ + 2) and 1 / (N- + 2) in place of 1 and 0 (Platt 1999): scores that tell a few items apart without a
    mistake are no reason to be certain.

    >>> scores = np.repeat(np.float32([4, -4]), 4)  # 3 of 4 are right, of the targets 5/6 and 1/6: 2/3, so ln 2 = 4 / T
    >>> round(temperature(scores, np.float32([1, 1, 1, 0, 0, 0, 0, 1])), 2)
    5.77
    """
    z, truth = _known(scores, known)
    positives = truth.sum()
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))

    def cross_entropy(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        return float((np.logaddexp(0, scaled) - target * scaled).mean())

    found = minimize_scalar(cross_entropy, bounds=(np.log(0.01), np.log(100)), method="bounded")
    return float(np.exp(found.x))


def fit(method: str, scores: NDArray[np.float32], known: NDArray[np.float32]) -> Calibrator:
    """A calibrator by `temperature` scaling or by `isotonic` regression (Zadrozny and Elkan 2002).

    Temperature keeps the order of the scores and needs few items; isotonic fits any rising curve, makes ties, and may
    answer 0 or 1. Arrays and errors are those of `temperature`.
    """
    if method == "temperature":
        t = temperature(scores, known)
        return lambda new: uncalibrated(new / np.float32(t))
    z, truth = _known(scores, known)
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(z, truth)
    return lambda new: np.asarray(curve.predict(new.ravel().astype(np.float64))).reshape(new.shape)


def reliability(confidence: NDArray[Any], known: NDArray[Any], bins: int = BINS) -> pd.DataFrame:
    """One row a bin of equal width that holds any pair of item and label: low, high, pairs, confidence, share.

    `confidence` is the mean probability in the bin, `share` that of the pairs that are truly so.

    >>> reliability(np.array([0.1, 0.2, 0.9]), np.array([0, 1, 1]), bins=2)
       low  high  pairs  confidence  share
    0  0.0   0.5      2        0.15    0.5
    1  0.5   1.0      1        0.90    1.0
    """
    said = ~np.isnan(known)
    frame = pd.DataFrame({"confidence": confidence[said].astype(float), "truth": known[said].astype(float)})
    frame["bin"] = np.minimum((frame["confidence"] * bins).astype(int), bins - 1)
    found = frame.groupby("bin").agg(
        pairs=("truth", "size"), confidence=("confidence", "mean"), share=("truth", "mean")
    )
    edges = pd.DataFrame({"low": found.index / bins, "high": (found.index + 1) / bins}, index=found.index)
    return edges.join(found).reset_index(drop=True)


def expected_calibration_error(confidence: NDArray[Any], known: NDArray[Any], bins: int = BINS) -> float:
    """ECE = Σ_b |B_b| / n · |share(B_b) - confidence(B_b)| over bins B_b of equal width (Guo et al. 2017, equation 3).

    Of pairs of item and label, each a question of its own with the answer yes or no: confidence is the probability of
    yes. NaN where nothing is known.

    >>> round(expected_calibration_error(np.array([0.1, 0.2, 0.9]), np.array([0, 1, 1]), bins=2), 4)  # .35·⅔ + .1·⅓
    0.2667
    """
    table = reliability(confidence, known, bins)
    if table.empty:
        return float("nan")
    return float(np.average((table["share"] - table["confidence"]).abs(), weights=table["pairs"]))


def _known(scores: NDArray[np.float32], known: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    said = ~np.isnan(known)
    z, truth = scores[said].astype(np.float64), known[said].astype(np.float64)
    if len(np.unique(truth)) < 2:
        raise DataError(
            f"The {len(truth)} known labels to calibrate on are of one class.",
            "A probability needs items with and without the label: label more items.",
        )
    return z, truth
