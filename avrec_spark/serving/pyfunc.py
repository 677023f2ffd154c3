"""A fitted recommender as an MLflow pyfunc: users in, known or new, ranked items out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

import avrec_spark
from avrec_spark import columns as c
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.newcomers import histories_of_tags

DEFAULT_K = 10
HISTORY = "history"
# The program that MLflow runs to load the model.
CODE = Path(__file__).with_name("packaged.py")
# Beside the model's own files: the tags of its items, which newcomers may declare.
_TAGS = "tags.parquet"


class PackagedRecommender(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Takes a frame of users, gives `user_id, item_id, rank, score`. Parameters: `k`, how many items a user.

    Columns: `user_id`; `history`, if known, item ids in order of time; `tags`, if declared, tags of items. A row with a
    history is answered by that alone (`Recommender.recommend_for_history`), one with tags by items that have them, as
    `avrec recommend --tags` does. Any other row is answered for its `user_id`, a stranger's with the popular list.
    Raises `FoldInError` for a history where the model's users are no function of theirs.

        model = mlflow.pyfunc.load_model("models:/avrec-recommender@champion")
        model.predict(pd.DataFrame({"user_id": ["new"], "history": [["clip-1", "clip-2"]]}), params={"k": 5})
    """

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["model"])
        self.recommender = Recommender.load(folder)
        self.tags = _read_tags(folder, self.recommender)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        k = int((params or {}).get("k", DEFAULT_K))
        users = model_input[c.USER_ID].to_numpy()
        histories, tags = _lists(model_input, HISTORY), _lists(model_input, c.TAGS)
        told = np.array([bool(one) for one in histories], np.bool_)
        declared = np.array([bool(one) for one in tags], np.bool_) & ~told
        lists = [self.recommender.recommend(users[~told & ~declared], k)]
        if told.any():
            given = [one for one in histories if one]
            lists.append(_named(self.recommender.recommend_for_history(given, k), users[told]))
        if declared.any():
            given = histories_of_tags(self.tags, [tags[row] for row in np.flatnonzero(declared)])
            found = self.recommender.recommend_for_history(given, k, filter_seen=False)
            lists.append(_named(found, users[declared]))
        if len(lists) == 1:
            return lists[0]
        answer = pd.concat([one for one in lists if len(one)], ignore_index=True)
        place = pd.Index(users).unique().get_indexer(answer[c.USER_ID])
        return answer.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def keep_tags(item_tags: pd.DataFrame, folder: Path) -> None:
    """Write item_id and tags (lists) into the folder of a saved model, for users who declare tags."""
    item_tags[[c.ITEM_ID, c.TAGS]].to_parquet(folder / _TAGS)


def signature(recommender: Recommender) -> ModelSignature:
    """Input and output columns with the id types that the model was trained on."""
    user, item = (_kind(index.ids) for index in (recommender.users, recommender.items))
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(user, c.USER_ID),
                ColSpec(Array(item), HISTORY, required=False),
                ColSpec(Array(DataType.string), c.TAGS, required=False),
            ]
        ),
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


def _read_tags(folder: Path, recommender: Recommender) -> pd.DataFrame:
    """item_id and tags of items that the model knows, the most popular first."""
    if not (folder / _TAGS).is_file():
        return pd.DataFrame({c.ITEM_ID: [], c.TAGS: []})
    tags = pd.read_parquet(folder / _TAGS)
    known = tags[tags[c.ITEM_ID].isin(recommender.items.ids)]
    return known.sort_values(c.ITEM_ID, key=recommender.popularity, ascending=False)


def _lists(frame: pd.DataFrame, column: str) -> list[list[Any]]:
    """The column's lists, empty where there is none."""
    if column not in frame:
        return [[] for _ in range(len(frame))]
    return [list(value) if isinstance(value, (list, tuple, np.ndarray)) else [] for value in frame[column]]


def _named(lists: pd.DataFrame, users: np.ndarray[Any, Any]) -> pd.DataFrame:
    """Lists whose user_id is a position, with the users there."""
    return lists.assign(**{c.USER_ID: users[lists[c.USER_ID]]})
