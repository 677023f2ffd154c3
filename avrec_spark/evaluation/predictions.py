"""Errors of predicted ratings and of predicted probabilities.

| metric | rows | formula | convention |
|---|---|---|---|
| rmse, mae | rating, score | √(Σ w (s − r)² / Σ w), Σ w \\|s − r\\| / Σ w | |
| log-loss | label, score | −Σ w (y log s + (1 − y) log(1 − s)) / Σ w | nats; s is kept within 1e-15 of 0 and 1 |
| accuracy | label, score | Σ w [y = (s ≥ ½)] / Σ w | |
| auc | label, score | P(score of a positive > of a negative) + ½ P(equal) | all rows together, unweighted |

Labels y are 0 or 1, the weight w is 1 where there is no column of that name. Equal scores everywhere give an AUC of ½.
The interval of the AUC is that of DeLong et al. 1988 (of independent rows), the others are by bootstrap over users.

Sources: Willmott and Matsuura 2005 (RMSE, MAE), Good 1952 (logarithmic score), Hanley and McNeil 1982 (AUC as the
Mann-Whitney statistic).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.errors import DataError
from avrec_spark.evaluation.bootstrap import Metrics
from avrec_spark.evaluation.rows import Columns, RowKernel, measure_numpy, measure_spark, numbers, weights

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SMALLEST = 1e-15
_QUANTILE = 1.959963984540054


def ratings_numpy(rows: pd.DataFrame, samples: int = 200) -> Metrics:
    """RMSE and MAE of a frame rating, score and optionally weight, user_id.

    >>> figures = ratings_numpy(pd.DataFrame({"rating": [4.0, 2.0], "score": [3.0, 4.0]}))
    >>> round(figures["rmse"]["mean"], 4), figures["mae"]["mean"]
    (1.5811, 1.5)
    """
    return measure_numpy(_RATINGS, rows, samples)


def ratings_spark(rows: DataFrame, samples: int = 200) -> Metrics:
    """The same from a Spark frame."""
    return measure_spark(_RATINGS, rows, samples)


def labels_numpy(rows: pd.DataFrame, samples: int = 200) -> Metrics:
    """Log-loss, accuracy and AUC of a frame label, score (a probability) and optionally weight, user_id.

    >>> figures = labels_numpy(pd.DataFrame({"label": [1, 1, 0, 0], "score": [0.8, 0.4, 0.4, 0.2]}))
    >>> {name: round(figure["mean"], 4) for name, figure in figures.items()}
    {'log-loss': 0.4684, 'accuracy': 0.75, 'auc': 0.875}

    AUC: of the four pairs three are in order and one is equal, (3 + ½) / 4.
    """
    return measure_numpy(_LABELS, rows, samples) | auc_numpy(rows)


def labels_spark(rows: DataFrame, samples: int = 200) -> Metrics:
    """The same from a Spark frame."""
    return measure_spark(_LABELS, rows, samples) | auc_spark(rows)


def auc_numpy(rows: pd.DataFrame) -> Metrics:
    """AUC of a frame label, score (any real number); empty where one of the classes is missing."""
    return _Ranking.of(_by_score(rows)).figures()


def auc_spark(rows: DataFrame) -> Metrics:
    """The same from a Spark frame: rows are counted by score, tasks take ranges of scores, which add up in order."""
    from pyspark.sql import functions as F

    label, score = F.col(c.LABEL).cast("double"), F.col(c.SCORE).cast("double")
    wrong = ~F.coalesce(label.isin(0.0, 1.0), F.lit(False)) | score.isNull() | F.isnan(score)
    if rows.where(wrong).limit(1).count():
        raise _impossible()
    counted = rows.groupBy(score.alias(c.SCORE)).agg(F.sum(label).alias("positive"), F.count("*").alias("rows"))
    counted = counted.select(c.SCORE, "positive", (F.col("rows") - F.col("positive")).alias("negative"))
    ordered = counted.repartitionByRange(c.SCORE).sortWithinPartitions(c.SCORE)

    def task(batches: Any) -> Any:
        total = _Ranking()
        for batch in batches:
            total = total.then(_Ranking.of(batch))
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        yield pd.DataFrame({"part": [context.partitionId()], "sums": [total.packed()]})

    parts = sorted(ordered.mapInPandas(task, "part int, sums array<double>").collect())
    total = _Ranking()
    for part in parts:
        total = total.then(_Ranking(*part["sums"]))
    return total.figures()


@dataclass(frozen=True)
class _Ranking:
    """A range of scores: its positives and negatives, and how they lie to each other.

    A positive's place is the number of negatives below it, a negative's that of positives above it, equal scores count
    a half. Kept are the sums of places and of their squares, which is all that AUC and DeLong's variance need.
    """

    positive: float = 0.0
    negative: float = 0.0
    below: float = 0.0
    below_squared: float = 0.0
    above: float = 0.0
    above_squared: float = 0.0

    @classmethod
    def of(cls, counts: pd.DataFrame) -> _Ranking:
        """Of distinct scores, rising, with their numbers of positives and negatives."""
        positive, negative = (counts[name].to_numpy(np.float64) for name in ("positive", "negative"))
        below = np.cumsum(negative) - negative / 2
        above = positive.sum() - np.cumsum(positive) + positive / 2
        sums = (positive.sum(), negative.sum(), positive @ below, positive @ below**2, negative @ above)
        return cls(*map(float, (*sums, negative @ above**2)))

    def then(self, higher: _Ranking) -> _Ranking:
        """Together with a range of higher scores: its positives are above all our negatives, and so on."""
        return _Ranking(
            self.positive + higher.positive,
            self.negative + higher.negative,
            self.below + higher.below + higher.positive * self.negative,
            self.below_squared
            + higher.below_squared
            + 2 * self.negative * higher.below
            + higher.positive * self.negative**2,
            self.above + higher.above + self.negative * higher.positive,
            self.above_squared
            + higher.above_squared
            + 2 * higher.positive * self.above
            + self.negative * higher.positive**2,
        )

    def packed(self) -> list[float]:
        return [self.positive, self.negative, self.below, self.below_squared, self.above, self.above_squared]

    def figures(self) -> Metrics:
        m, n = self.positive, self.negative
        if not m or not n:
            return {}
        auc = self.below / (m * n)
        # Variances of the places, each as a share of the other class.
        of_positives = (self.below_squared / n**2 - m * auc**2) / max(m - 1, 1)
        of_negatives = (self.above_squared / m**2 - n * auc**2) / max(n - 1, 1)
        half = _QUANTILE * float(np.sqrt(max(of_positives, 0.0) / m + max(of_negatives, 0.0) / n))
        return {"auc": {"mean": auc, "low": max(auc - half, 0.0), "high": min(auc + half, 1.0)}}


def _by_score(rows: pd.DataFrame) -> pd.DataFrame:
    label = pd.to_numeric(rows[c.LABEL], errors="coerce").astype(np.float64)
    score = pd.to_numeric(rows[c.SCORE], errors="coerce").astype(np.float64)
    if not label.isin([0.0, 1.0]).all() or score.isna().any():
        raise _impossible()
    sums = pd.DataFrame({"positive": label, "negative": 1 - label}).groupby(score).sum()
    return sums.sort_index().reset_index()


def _impossible() -> DataError:
    return DataError("Some labels are neither 0 nor 1, or some scores are no numbers.", "Leave such rows out.")


def _rating_rows(rows: pd.DataFrame) -> Columns:
    error, weight = numbers(rows, c.SCORE) - numbers(rows, c.RATING), weights(rows)
    return {"squared": weight * error**2, "absolute": weight * np.abs(error), "weight": weight}


def _rating_figures(sums: Columns) -> Columns:
    return {"rmse": np.sqrt(sums["squared"] / sums["weight"]), "mae": sums["absolute"] / sums["weight"]}


def _label_rows(rows: pd.DataFrame) -> Columns:
    label, score, weight = numbers(rows, c.LABEL, 0, 1), numbers(rows, c.SCORE, 0, 1), weights(rows)
    if not np.isin(label, (0.0, 1.0)).all():
        raise _impossible()
    kept = np.clip(score, _SMALLEST, 1 - _SMALLEST)
    loss = -np.where(label == 1, np.log(kept), np.log1p(-kept))
    right: NDArray[np.float64] = ((score >= 0.5) == (label == 1)).astype(np.float64)
    return {"loss": weight * loss, "right": weight * right, "weight": weight}


def _label_figures(sums: Columns) -> Columns:
    return {"log-loss": sums["loss"] / sums["weight"], "accuracy": sums["right"] / sums["weight"]}


_RATINGS = RowKernel(_rating_rows, _rating_figures, (c.RATING, c.SCORE), (c.WEIGHT,))
_LABELS = RowKernel(_label_rows, _label_figures, (c.LABEL, c.SCORE), (c.WEIGHT,))
