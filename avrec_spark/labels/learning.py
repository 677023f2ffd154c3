"""Learn labels: fit every classifier, choose one on validation, calibrate it, and measure all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.labels import calibration, classify
from avrec_spark.labels.calibration import Calibrator
from avrec_spark.labels.classify import Labelled
from avrec_spark.labels.metrics import METRICS, f1, mean_average_precision
from avrec_spark.labels.truth import CALIBRATION, TEST, TRAIN, VALIDATION, learnable

_QUALITY = (c.MODEL, c.SPLIT, c.METRIC, c.MEAN)


@dataclass(frozen=True)
class Learnt:
    """What n items and their labels have taught.

    `labels` are the columns of the L learnt labels, `confidence` float64[n, L] calibrated probabilities, NaN for items
    without any modality; `left_out` the reason of each label that is not learnt; `quality` model, split, metric, mean;
    `reliability` tables of the chosen classifier on test, before and after calibration.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]
    left_out: Mapping[str, str]
    chosen: str = ""
    quality: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_QUALITY)))
    reliability: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def learn(
    names: Sequence[str],
    known: NDArray[np.float32],
    part: NDArray[np.str_],
    features: Mapping[str, FeatureMatrix],
    *,
    at_least: int = 20,
    method: str = "temperature",
    seed: int = 42,
) -> Learnt:
    """`names` and `known` as of `truth.known_labels`, `part` as of `truth.parts`, `features` by modality.

    An item without any modality teaches nothing and is predicted nothing. Raises `DataError` as `classify.inputs` does.
    """
    x, has_any = classify.inputs(features)
    known = np.where(has_any[:, None], known, np.float32(np.nan))
    learnt, left_out = learnable(names, known, part, at_least)
    labels = np.flatnonzero(learnt)
    confidence = np.full((len(x), len(labels)), np.nan)
    if not len(labels):
        return Learnt(labels, confidence, left_out)
    rows = {name: np.flatnonzero(has_any & (part == name)) for name in (TRAIN, CALIBRATION, VALIDATION, TEST)}
    labelled: dict[str, Labelled] = {name: (x[at], known[at][:, labels]) for name, at in rows.items()}
    classifiers = [classify.fit(name, labelled[TRAIN], labelled[VALIDATION], seed) for name in classify.CANDIDATES]
    x_calibration, said = labelled[CALIBRATION]
    calibrators = {one.name: calibration.fit(method, one.scores(x_calibration), said) for one in classifiers}
    chosen = classify.best(classifiers, labelled[VALIDATION])
    calibrate = calibrators[chosen.name]
    confidence[has_any] = calibrate(chosen.scores(x[has_any]))
    found = [
        (one.name, split, *figure)
        for split in (VALIDATION, TEST)
        for one in classifiers
        for figure in figures(one.scores(labelled[split][0]), labelled[split][1], calibrators[one.name]).items()
    ]
    test, truth = labelled[TEST]
    scores = chosen.scores(test)
    reliability = {
        "as scored": calibration.reliability(calibration.uncalibrated(scores), truth),
        "calibrated": calibration.reliability(calibrate(scores), truth),
    }
    quality = pd.DataFrame(found, columns=list(_QUALITY))
    return Learnt(labels, confidence, left_out, chosen.name, quality, reliability)


def figures(scores: NDArray[np.float32], known: NDArray[np.float32], calibrate: Calibrator) -> dict[str, float]:
    """`METRICS` of scores and labels, both float32[n, L]; labels that nobody has decided are NaN and do not count."""
    confidence = calibrate(scores)
    found = f1(known, confidence >= 0.5)
    before = calibration.expected_calibration_error(calibration.uncalibrated(scores), known)
    after = calibration.expected_calibration_error(confidence, known)
    # The order of the scores: isotonic regression makes ties.
    precision = mean_average_precision(known, scores)
    return dict(zip(METRICS, (precision, found["macro"], found["micro"], before, after), strict=True))
