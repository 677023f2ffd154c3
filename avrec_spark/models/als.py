"""Implicit ALS by Spark MLlib; its factors are served by the platform's own top-K engine."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import NoSparkSessionError
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.topk import ScoreSource

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class ALS(Recommender):
    """Factors U, V with scores U Vᵀ, confidence 1 + α · weight / mean weight.

    The division makes α mean the same whether events weigh 1 or 5.

    Needs an active SparkSession; on a cluster whose machines share no temporary folder, also the setting
    `spark.checkpoint.dir`. Source: Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets,
    ICDM 2008.
    """

    name = "als"
    needs_spark = True

    def __init__(
        self,
        *,
        rank: int = 32,
        alpha: float = 5.0,
        regularisation: float = 0.3,
        iterations: int = 15,
        seed: int = 42,
    ) -> None:
        self.rank = rank
        self.alpha = alpha
        self.regularisation = regularisation
        self.iterations = iterations
        self.seed = seed

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        from pyspark.ml.recommendation import ALS as MLlibALS
        from pyspark.sql import SparkSession

        spark = SparkSession.getActiveSession()
        if spark is None:
            raise NoSparkSessionError("Fitting the model als")
        _ensure_checkpoints(spark)
        matrix = training_set.matrix().tocoo()
        weight = matrix.data / matrix.data.mean()
        frame = pd.DataFrame({c.USER_INDEX: matrix.row, c.ITEM_INDEX: matrix.col, c.WEIGHT: weight})
        als = MLlibALS(
            userCol=c.USER_INDEX,
            itemCol=c.ITEM_INDEX,
            ratingCol=c.WEIGHT,
            implicitPrefs=True,
            rank=self.rank,
            alpha=self.alpha,
            regParam=self.regularisation,
            maxIter=self.iterations,
            checkpointInterval=5,
            seed=self.seed,
        )
        fitted = als.fit(spark.createDataFrame(frame))
        users = self._factors(fitted.userFactors, len(training_set.users))
        items = self._factors(fitted.itemFactors, len(training_set.items))
        return [ScoreSource(users, np.ascontiguousarray(items.T))]

    def _factors(self, frame: DataFrame, count: int) -> NDArray[Any]:
        """float32[count, rank]; rows of users or items without interactions stay zero."""
        factors = np.zeros((count, self.rank), np.float32)
        rows = frame.toPandas()
        factors[rows["id"].to_numpy()] = np.stack(list(rows["features"]))
        return factors


def _ensure_checkpoints(spark: SparkSession) -> None:
    """Without checkpoints the lineage of twenty iterations overflows the JVM's stack."""
    if spark.sparkContext.getCheckpointDir() is None:
        folder = tempfile.mkdtemp(prefix="avrec-als-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        spark.sparkContext.setCheckpointDir(folder)
