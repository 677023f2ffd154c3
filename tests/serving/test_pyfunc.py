"""The packaged model: what MLflow loads answers as the recommender did, and says what goes in and comes out."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server import invocations, load_model

from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.serving import pyfunc


@pytest.fixture(params=["integers", "texts"])
def fitted(request: pytest.FixtureRequest) -> Recommender:
    pairs = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [10, 11, 11, 12, 10]})
    return registry.create("ease", regularisation=1.0).fit(pairs if request.param == "integers" else pairs.astype(str))


def package(recommender: Recommender, folder: Path) -> mlflow.pyfunc.PyFuncModel:
    recommender.save(folder / "saved")
    items = recommender.items.ids
    item_tags = pd.DataFrame({"item_id": items, "tags": [["jazz"] if str(one) == "12" else ["news"] for one in items]})
    pyfunc.keep_tags(item_tags, folder / "saved")
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
    assert [(column.name, str(column.type), column.required) for column in signature.inputs] == [
        ("user_id", f"DataType.{kind}", True),
        ("history", f"Array({kind})", False),
        ("tags", "Array(string)", False),
    ]
    assert [(column.name, column.type.name) for column in signature.outputs] == [
        ("user_id", kind),
        ("item_id", kind),
        ("rank", "long"),
        ("score", "double"),
    ]


def test_new_users_are_answered_by_their_histories_or_declared_tags_among_known_ones(fitted, tmp_path):
    first, second, third = np.sort(fitted.items.ids).tolist()
    users = [fitted.users.ids[0], *(type(fitted.users.ids.tolist()[0])(number) for number in (97, 98))]
    asked = pd.DataFrame({"user_id": users, "history": [None, [first, second], []], "tags": [None, None, ["jazz"]]})
    answer = package(fitted, tmp_path).predict(asked, params={"k": 1})
    ways = [
        fitted.recommend(users[:1], 1),
        fitted.recommend_for_history([[first, second]], 1),
        fitted.recommend_for_history([[third]], 1, filter_seen=False),
    ]
    assert answer["user_id"].tolist() == users
    assert answer["item_id"].tolist() == [one["item_id"].iloc[0] for one in ways]
    assert answer["score"].tolist() == pytest.approx([one["score"].iloc[0] for one in ways])
    # What is in a history does not come again.
    assert answer["item_id"][1] == third


def test_the_scoring_server_reads_histories_as_json(fitted, tmp_path):
    number = fitted.items.ids.dtype.kind == "i"
    user, history = (97, [10, 11]) if number else ("97", ["10", "11"])
    package(fitted, tmp_path)
    served = load_model(str(tmp_path / "packaged"))
    known = fitted.users.ids.tolist()[0]
    records = [{"user_id": user, "history": history}, {"user_id": known, "history": []}]
    body = json.dumps({"dataframe_records": records, "params": {"k": 1}})
    answer = json.loads(invocations(body, "application/json", served, served.metadata.get_input_schema()).response)
    assert [row["user_id"] for row in answer["predictions"]] == [user, known]
    assert str(answer["predictions"][0]["item_id"]) == "12"


def test_no_code_is_pickled(fitted, tmp_path):
    package(fitted, tmp_path)
    assert not [file.name for file in (tmp_path / "packaged").rglob("*") if file.suffix in (".pkl", ".pickle")]
