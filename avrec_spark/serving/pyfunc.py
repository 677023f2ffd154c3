"""A fitted recommender as an MLflow pyfunc: users in, ranked items out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import avrec_spark
from avrec_spark import columns as c
from avrec_spark.models.base import Recommender

DEFAULT_K = 10
# The program that MLflow runs to load the model.
CODE = Path(__file__).with_name("packaged.py")


class PackagedRecommender(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Takes a frame with a column `user_id`, gives `user_id, item_id, rank, score`.

    Users without history get the popular list. Parameters: `k`, how many items a user.
    """

    def load_context(self, context: Any) -> None:
        self.recommender = Recommender.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        k = int((params or {}).get("k", DEFAULT_K))
        return self.recommender.recommend(model_input[c.USER_ID].to_numpy(), k)


def signature(recommender: Recommender) -> ModelSignature:
    """Input and output columns with the id types that the model was trained on."""
    user, item = (_kind(index.ids) for index in (recommender.users, recommender.items))
    return ModelSignature(
        inputs=Schema([ColSpec(user, c.USER_ID)]),
        outputs=Schema(
            [
                ColSpec(user, c.USER_ID),
                ColSpec(item, c.ITEM_ID),
                ColSpec(DataType.long, c.RANK),
                ColSpec(DataType.double, c.SCORE),
            ]
        ),
        params=ParamSchema([ParamSpec("k", DataType.long, DEFAULT_K)]),
    )


def requirements() -> list[str]:
    return [f"avrec-spark[training]=={avrec_spark.__version__}"]


def _kind(ids: np.ndarray[Any, Any]) -> DataType:
    return DataType.long if np.issubdtype(ids.dtype, np.integer) else DataType.string
