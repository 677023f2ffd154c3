"""lf-100k: the published split, and the rows of its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from avrec_spark.errors import DataError, UsageError
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.evaluation.commands import run_yardstick


def test_the_split_is_the_published_one(movielens: Path) -> None:
    train, test = yardsticks.LF_100K.parts(movielens, "ease")
    assert (len(train), len(test)) == (75_066, 24_934)
    everything = pd.concat([train, test])
    assert (everything["user_id"].nunique(), everything["item_id"].nunique()) == (943, 1_682)
    assert yardsticks.fingerprint(test) == "107620cfe645be935fd0d6fba8fa701bfff14f326e1a1a315ba967f6009dee25"


@pytest.mark.parametrize("executor", ["numpy", "spark"])
def test_sar_has_its_published_row_on_both_executors(
    movielens: Path, tmp_path: Path, executor: str, spark: Any
) -> None:
    figures = run_yardstick("lf-100k", "sar", movielens, tmp_path, executor)
    published = {"ndcg@10": 0.393819, "precision@10": 0.340615, "recall@10": 0.185377, "map@10": 0.114038}
    assert {name: figures[name]["mean"] for name in published} == pytest.approx(published, abs=5e-4)


def test_ease_reaches_its_gate_and_its_lists_give_its_figures(movielens: Path, tmp_path: Path) -> None:
    figures = run_yardstick("lf-100k", "ease", movielens, tmp_path)
    assert figures["ndcg@10"]["low"] < figures["ndcg@10"]["mean"] < figures["ndcg@10"]["high"]
    assert figures["ndcg@10"]["mean"] >= 0.480
    lists = pd.read_parquet(tmp_path / "recommendations.parquet")
    train, test = yardsticks.LF_100K.parts(movielens, "ease")
    assert len(lists) == 10 * 943
    assert len(lists.merge(train, on=["user_id", "item_id"])) == 0
    again = executors.evaluate_numpy(lists, test, (10,), train["item_id"].nunique())
    assert again["ndcg@10"]["mean"] == pytest.approx(figures["ndcg@10"]["mean"])


def test_popular_has_the_measured_figure(movielens: Path, tmp_path: Path) -> None:
    assert run_yardstick("lf-100k", "popular", movielens, tmp_path)["ndcg@10"]["mean"] == pytest.approx(
        0.2524, abs=1e-3
    )


def test_als_in_spark_reaches_its_gate(movielens: Path, tmp_path: Path, spark: Any) -> None:
    assert run_yardstick("lf-100k", "als", movielens, tmp_path)["ndcg@10"]["mean"] >= 0.470


def test_an_unknown_yardstick_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no yardstick lf-100\. Did you mean lf-100k\? Choose of lf-100k"):
        run_yardstick("lf-100", "ease", None, tmp_path)


def test_missing_data_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no ml-100k\.inter in .* Run make data, or give --data"):
        run_yardstick("lf-100k", "ease", tmp_path, tmp_path / "out")


def test_data_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *(f"{n}\t1\t3\t5" for n in range(8))]
    (tmp_path / "ml-100k.inter").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"test rows of lf-100k have the fingerprint .*, not 107620cfe645"):
        run_yardstick("lf-100k", "ease", tmp_path, tmp_path / "out")
