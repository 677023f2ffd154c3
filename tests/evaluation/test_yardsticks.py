"""The published protocols: their splits, the rows of their tables, and that settings are chosen without test."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark import config
from avrec_spark.dataset.splits import leave_last_out, stratified_split
from avrec_spark.errors import DataError, UsageError
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.evaluation.commands import run_yardstick
from avrec_spark.models import registry


def test_the_split_is_the_published_one(movielens: Path) -> None:
    (part,) = yardsticks.LF_100K.folds(movielens, "ease")
    train, test = part.train, part.held_out
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
    (part,) = yardsticks.LF_100K.folds(movielens, "ease")
    train, test = part.train, part.held_out
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


# -- last-out-100k -----------------------------------------------------------------------------------------------------


def test_popular_has_the_published_figures_of_the_next_item(movielens: Path, tmp_path: Path) -> None:
    figures = run_yardstick("last-out-100k", "popular", movielens, tmp_path)
    assert figures["hit-rate@10"]["mean"] == pytest.approx(0.0859, abs=5e-5)
    assert figures["ndcg@10"]["mean"] == pytest.approx(0.0449, abs=5e-5)


def test_the_last_item_by_id_is_another_protocol(movielens: Path) -> None:
    """A fingerprint that any order of ties had would guard nothing."""
    rows = yardsticks.read_movielens(movielens)
    by_id = rows.sort_values(["timestamp", "item_id"]).groupby("user_id").tail(1)
    assert yardsticks.fingerprint(by_id) != yardsticks.LAST_OUT_100K.fingerprints[0]


# Before conftest.py puts something quick in its place.
encoded_titles = yardsticks.title_vectors


# -- cold-100k ---------------------------------------------------------------------------------------------------------


def test_cold_folds_are_the_published_ones_and_nobody_has_touched_their_items(movielens: Path) -> None:
    folds = yardsticks.COLD_100K.folds(movielens, "ridge")
    assert [len(part.candidates) for part in folds if part.candidates is not None] == [337, 337, 336, 336, 336]
    for part in folds:
        assert not part.train["item_id"].isin(part.candidates).any()
        assert part.held_out["item_id"].isin(part.candidates).all()
        assert part.held_out["weight"].min() == 4


def test_ties_between_cold_items_say_nothing_of_their_ids(movielens: Path, tmp_path: Path) -> None:
    """Popularity knows nothing of cold items: all tie, and low ids are popular films."""
    figures = run_yardstick("cold-100k", "popular", movielens, tmp_path)
    lists = pd.read_parquet(tmp_path / "recommendations.parquet")
    assert list(lists.columns) == ["user_id", "item_id", "rank", "score", "fold"]
    assert (lists["score"] == 0).all()
    for fold, rows in lists.groupby("fold"):
        items = yardsticks.COLD_100K.folds(movielens, "popular")[fold].candidates
        assert rows["item_id"].isin(items).all()
        # A hundred random items of the fold in order of id: 10 of them on average 0.5 along; id order would give 0.015.
        place = pd.Series(np.sort(items)).searchsorted(rows["item_id"].unique()) / len(items)
        assert 0.2 < place.mean() < 0.8
    folds = json.loads((tmp_path / "metrics.json").read_text())["folds"]
    assert len(folds) == 5
    assert figures["ndcg@10"]["mean"] == pytest.approx(np.mean([fold["ndcg@10"]["mean"] for fold in folds]))


def test_near_titles_have_near_vectors() -> None:
    first, second, other = encoded_titles(("Toy Story", "Toy Story 2", "Casablanca"))
    assert first @ second > first @ other


def test_films_are_described_by_genre_and_year(movielens: Path) -> None:
    films = yardsticks.read_films(movielens).set_index("item_id")
    assert films.loc[1, ["title", "year"]].tolist() == ["Toy Story", 1995]
    assert films.loc[1, "categories"] == ["Animation", "Children's", "Comedy"]
    features = yardsticks.film_features(films.reset_index())
    years = features["year"].set_index("item_id")["vector"]
    # Toy Story, GoldenEye (both 1995), The Wizard of Oz (1939).
    assert ((years[1] - years[2]) ** 2).sum() == 0
    assert ((years[1] - years[132]) ** 2).sum() == 1995 - 1939
    assert len(years) < len(features["genre"]) == len(features["title"]) == len(films)


def test_an_alias_stands_for_the_model_that_the_protocol_names(
    movielens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = replace(yardsticks.LF_100K, best={"best-cf": "popular"})
    monkeypatch.setitem(yardsticks.PROTOCOLS, "lf-100k", named)
    figures = run_yardstick("lf-100k", "best-cf", movielens, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["settings"]["model"] == "popular"
    assert figures["ndcg@10"]["mean"] == pytest.approx(0.2524, abs=5e-4)
    with pytest.raises(UsageError, match="lf-100k names no model as best"):
        run_yardstick("lf-100k", "best", movielens, tmp_path)


# -- tiktok ------------------------------------------------------------------------------------------------------------


def test_popular_has_the_measured_figures_on_videos_and_knows_no_cold_one(tiktok: Path, tmp_path: Path) -> None:
    figures = run_yardstick("tiktok", "popular", tiktok, tmp_path)
    assert figures["recall@20"]["mean"] == pytest.approx(0.0597, abs=5e-5)
    assert figures["ndcg@20"]["mean"] == pytest.approx(0.0255, abs=5e-5)
    assert figures["recall@20/cold-items"]["mean"] == 0
    # 449 of the 6,130 pairs are cold.
    assert figures["recall@20/warm-items"]["mean"] == pytest.approx(figures["recall@20"]["mean"] * 6130 / 5681)
    lists = pd.read_parquet(tmp_path / "recommendations.parquet")
    assert (lists.groupby("user_id").size() == 20).all()
    assert lists["user_id"].nunique() == 6130


def lists_with_another_validation(data: Path, work: Path, model: str, **parameters: Any) -> list[pd.DataFrame]:
    """What a model recommends with the data as they are, and with another validation file."""
    other = work / "other"
    shutil.copytree(data, other, copy_function=shutil.copyfile)
    pd.DataFrame({"user_id": [0, 1], "item_id": [5, 5]}, dtype="int32").to_parquet(other / "validation.parquet")
    for folder in (data, other):
        run_yardstick("tiktok", model, folder, work / f"of-{folder.name}", parameters=parameters)
    return [pd.read_parquet(work / f"of-{folder.name}" / "recommendations.parquet") for folder in (data, other)]


def test_lists_do_not_change_when_the_validation_file_is_replaced(tiktok: Path, tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(*lists_with_another_validation(tiktok, tmp_path, "item-knn", neighbours=20))


def test_neither_do_those_of_a_model_that_could_choose_its_best_epoch_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, generator = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    pairs = pd.DataFrame({"user_id": np.arange(240) % 20, "item_id": generator.integers(0, 30, 240)}, dtype="int32")
    pairs = pairs.drop_duplicates()
    for part, rows in (("train", pairs[40:]), ("validation", pairs[20:40]), ("test", pairs[:20])):
        rows.to_parquet(data / f"{part}.parquet")
    for name in ("image", "audio"):
        vectors = list(generator.normal(size=(30, 3)).astype("f4"))
        pd.DataFrame({"item_id": np.arange(30, dtype="int32"), name: vectors}).to_parquet(
            data / f"{name}_features.parquet"
        )
    protocol = replace(yardsticks.TIKTOK, fingerprints=(yardsticks.fingerprint(pairs[:20]),))
    monkeypatch.setitem(yardsticks.PROTOCOLS, "tiktok", protocol)
    pd.testing.assert_frame_equal(
        *lists_with_another_validation(data, tmp_path, "mf", epochs=6, patience=1, dimension=4)
    )


def test_a_folder_without_videos_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no train\.parquet in .*tiktok\. Give --data a folder with train, validation"
    ):
        yardsticks.TIKTOK.folds(tmp_path, "popular")


# -- what settings are chosen by ---------------------------------------------------------------------------------------


def _with_other_test_rows(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a file in which all that test may know is something else, and train is as it was."""
    if name == "lf-100k":
        held = rows["row"].isin(stratified_split(rows)[1]["row"])
        return rows.assign(user_id=rows["user_id"].where(~held, 7), weight=rows["weight"].where(~held, 1))
    if name == "last-out-100k":
        last = leave_last_out(rows, 1, 0, ties="row")["split"] == "test"
        return rows.assign(item_id=rows["item_id"].where(~last, 1))
    fold = np.array_split(np.random.default_rng(42).permutation(np.sort(rows["item_id"].unique())), 5)[0]
    return rows.assign(weight=rows["weight"].where(~rows["item_id"].isin(fold), 5))


@pytest.mark.parametrize("name", ["lf-100k", "last-out-100k", "cold-100k"])
def test_what_settings_are_chosen_by_is_the_same_whatever_test_is(movielens: Path, tmp_path: Path, name: str) -> None:
    changed = _with_other_test_rows(name, yardsticks.read_movielens(movielens))
    columns = {
        "user_id": "user_id:token",
        "item_id": "item_id:token",
        "weight": "rating:float",
        "timestamp": "timestamp:float",
    }
    changed[list(columns)].rename(columns=columns).to_csv(tmp_path / "ml-100k.inter", sep="\t", index=False)
    shutil.copyfile(movielens / "ml-100k" / "ml-100k.item", tmp_path / "ml-100k.item")
    protocol = yardsticks.find(name)
    with pytest.raises(DataError, match="fingerprint"):
        protocol.folds(tmp_path, "sar")
    for here, there in zip(*(protocol.validation_parts(data, "sar", 2) for data in (movielens, tmp_path)), strict=True):
        pd.testing.assert_frame_equal(here.train, there.train, check_dtype=False)
        pd.testing.assert_frame_equal(here.held_out, there.held_out, check_dtype=False)


@pytest.mark.parametrize("file", sorted(Path("conf/yardsticks").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_settings_in_conf_are_of_models_that_take_them(file: Path) -> None:
    train = config.load(file, environment={}).train
    assert list(train.parameters) == list(train.models)
    for model, parameters in train.parameters.items():
        assert registry.create(model, **parameters).name == model
        if file.stem in yardsticks.PROTOCOLS:
            assert yardsticks.find(file.stem).tuned(model).parameters == parameters


@pytest.mark.parametrize("name", ["lf-100k", "last-out-100k"])
def test_validation_is_a_part_of_train(movielens: Path, name: str) -> None:
    protocol = yardsticks.find(name)
    train = protocol.folds(movielens, "ease")[0].train
    for part in protocol.validation_parts(movielens, "ease", 2):
        assert set(part.train["row"]) | set(part.held_out["row"]) <= set(train["row"])
        assert not set(part.train["row"]) & set(part.held_out["row"])


def test_cold_validation_holds_out_items_of_the_first_folds_train(movielens: Path) -> None:
    first = yardsticks.COLD_100K.folds(movielens, "ridge")[0]
    for part in yardsticks.COLD_100K.validation_parts(movielens, "ridge", 5):
        assert not np.isin(part.candidates, first.candidates).any()
        assert not part.train["item_id"].isin([*part.candidates, *first.candidates]).any()
