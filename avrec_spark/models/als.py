"""ALS, implicit and explicit, by Spark MLlib or in numpy; the platform's own top-K engine serves its factors."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import NoSparkSessionError
from avrec_spark.models.base import Recommender, choice
from avrec_spark.models.factorisation import alternate, half_step
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import Matrix, ScoreSource

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


ENGINES = ("spark", "numpy")


class ALS(Recommender):
    """Factors U, V with scores U Vᵀ.

    Implicit: every unseen pair is a weak 0, a seen one a 1 of confidence 1 + α · weight / mean weight; the division
    makes α mean the same whether events weigh 1 or 5. Explicit: U Vᵀ is fitted to the weights themselves (ratings), of
    the seen pairs alone: good at telling ratings, poor at choosing what to show.

    The engine spark needs an active SparkSession and, on a cluster whose machines share no temporary folder, the
    setting `spark.checkpoint.dir`; numpy runs the same steps in this process. Memory (users + items) × rank; time
    iterations × (interactions × rank² + (users + items) × rank³). Folding in solves for the user given the items: one
    more half-step, so that a known history gets the factors of the fit again.
    Source: Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008; for the explicit
    one Zhou et al., Large-Scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008.
    """

    name = "als"

    def __init__(
        self,
        *,
        implicit: bool = True,
        rank: int = 32,
        alpha: float = 5.0,
        regularisation: float = 0.3,
        iterations: int = 15,
        engine: str = "spark",
        seed: int = 42,
    ) -> None:
        self.implicit = implicit
        self.engine = choice("The parameter engine of the model als", engine, ENGINES)
        self.rank = rank
        self.alpha = alpha
        self.regularisation = regularisation
        self.iterations = iterations
        self.seed = seed

    @property
    def needs_spark(self) -> bool:
        return self.engine == "spark"

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        ratings = self._histories.matrix(self._histories.weight)
        self._unit = float(ratings.data.mean()) if self.implicit else 1.0
        ratings.data /= np.float32(self._unit)
        if self.engine == "spark":
            users, items = self._fit_on_spark(ratings)
        else:
            alpha = self.alpha if self.implicit else None
            users, items = alternate(ratings, self.rank, self.iterations, self.regularisation, alpha, self.seed)
        return [ScoreSource(users, np.ascontiguousarray(items.T))]

    def _left(self, histories: Histories) -> list[Matrix]:
        ratings = histories.matrix(histories.weight)
        ratings.data /= np.float32(self._unit)
        items = np.asarray(self._sources[0].right).T
        return [half_step(ratings, items, self.regularisation, self.alpha if self.implicit else None)]

    def _fit_on_spark(self, ratings: csr_matrix) -> tuple[NDArray[Any], NDArray[Any]]:
        """(user factors float32[n_users, rank], item factors float32[n_items, rank])."""
        from pyspark.ml.recommendation import ALS as MLlibALS
        from pyspark.sql import SparkSession

        spark = SparkSession.getActiveSession()
        if spark is None:
            raise NoSparkSessionError("Fitting the model als")
        _ensure_checkpoints(spark)
        entries = ratings.tocoo()
        frame = pd.DataFrame({c.USER_INDEX: entries.row, c.ITEM_INDEX: entries.col, c.WEIGHT: entries.data})
        als = MLlibALS(
            userCol=c.USER_INDEX,
            itemCol=c.ITEM_INDEX,
            ratingCol=c.WEIGHT,
            implicitPrefs=self.implicit,
            rank=self.rank,
            alpha=self.alpha,
            regParam=self.regularisation,
            maxIter=self.iterations,
            checkpointInterval=5,
            seed=self.seed,
        )
        fitted = als.fit(spark.createDataFrame(frame))
        users, items = (
            self._factors(factors, count)
            for factors, count in zip((fitted.userFactors, fitted.itemFactors), ratings.shape, strict=True)
        )
        return users, items

    def _factors(self, frame: DataFrame, count: int) -> NDArray[Any]:
        """float32[count, rank]; rows of users or items without interactions stay zero."""
        factors = np.zeros((count, self.rank), np.float32)
        rows = frame.toPandas()
        factors[rows["id"].to_numpy()] = np.stack(list(rows["features"]))
        return factors

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"unit": np.array(self._unit)}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._unit = float(extra["unit"])


def _ensure_checkpoints(spark: SparkSession) -> None:
    """Without checkpoints the lineage of twenty iterations overflows the JVM's stack."""
    if spark.sparkContext.getCheckpointDir() is None:
        folder = tempfile.mkdtemp(prefix="avrec-als-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        spark.sparkContext.setCheckpointDir(folder)
