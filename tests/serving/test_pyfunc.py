"""The packaged model: what MLflow loads answers as the recommender did, and says what goes in and comes out."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.serving import pyfunc


@pytest.fixture(params=["integers", "texts"])
def fitted(request: pytest.FixtureRequest) -> Recommender:
    pairs = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [10, 11, 11, 12, 10]})
    return registry.create("ease", regularisation=1.0).fit(pairs if request.param == "integers" else pairs.astype(str))


def package(recommender: Recommender, folder: Path) -> mlflow.pyfunc.PyFuncModel:
    recommender.save(folder / "saved")
    mlflow.pyfunc.save_model(
        folder / "packaged",
        python_model=str(pyfunc.CODE),
        artifacts={"model": (folder / "saved").as_uri()},
        signature=pyfunc.signature(recommender),
        input_example=pd.DataFrame({"user_id": recommender.users.ids[:1]}),
        pip_requirements=pyfunc.requirements(),
    )
    return mlflow.pyfunc.load_model(str(folder / "packaged"))


def test_a_packaged_model_answers_as_the_recommender_did(fitted, tmp_path):
    users = fitted.users.ids
    answer = package(fitted, tmp_path).predict(pd.DataFrame({"user_id": users}), params={"k": 2})
    pd.testing.assert_frame_equal(answer, fitted.recommend(users, 2))


def test_a_stranger_gets_the_popular_list_of_the_default_length(fitted, tmp_path):
    stranger = 99 if fitted.users.ids.dtype.kind == "i" else "99"
    answer = package(fitted, tmp_path).predict(pd.DataFrame({"user_id": [stranger]}))
    # Three items in all, fewer than the default; items 10 and 11 have two users each, item 12 has one.
    assert answer["item_id"].astype(str).tolist()[-1] == "12"
    assert answer["score"].tolist() == [2.0, 2.0, 1.0]


def test_the_signature_has_the_types_of_the_ids(fitted):
    signature = pyfunc.signature(fitted)
    kind = "long" if np.issubdtype(fitted.users.ids.dtype, np.integer) else "string"
    assert [(column.name, column.type.name) for column in signature.inputs] == [("user_id", kind)]
    assert [(column.name, column.type.name) for column in signature.outputs] == [
        ("user_id", kind),
        ("item_id", kind),
        ("rank", "long"),
        ("score", "double"),
    ]


def test_no_code_is_pickled(fitted, tmp_path):
    package(fitted, tmp_path)
    assert not [file.name for file in (tmp_path / "packaged").rglob("*") if file.suffix in (".pkl", ".pickle")]
