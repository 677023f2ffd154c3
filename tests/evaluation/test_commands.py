"""`avrec evaluate` on files that people have."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from avrec_spark import cli
from avrec_spark.errors import DataError, MissingColumnsError, SettingsError, UsageError
from avrec_spark.evaluation.commands import run_evaluate
from avrec_spark.evaluation.comparison import metrics_tables, run_comparison
from avrec_spark.evaluation.files import read_features, read_interactions

# Popular: item 1 has three users, item 2 two, item 3 one.
TRAIN = pd.DataFrame({"user_id": [10, 20, 30, 10, 20, 30], "item_id": [1, 1, 1, 2, 2, 3]})
# 10 is shown 3; 30 is shown 2; 99 is unknown and gets 1, 2, 3.
TEST = pd.DataFrame({"user_id": [10, 30, 99], "item_id": [3, 7, 2]})


def write(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    return path


def evaluate(tmp_path: Path, **changes: Any) -> dict[str, dict[str, float]]:
    arguments: dict[str, Any] = {
        "train": write(TRAIN, tmp_path / "train.parquet"),
        "test": write(TEST, tmp_path / "test.parquet"),
        "validation": None,
        "item_features": {},
        "model": "popular",
        "parameters": {},
        "ks": (1, 2),
        "out": tmp_path / "out",
    }
    return run_evaluate(**(arguments | changes))


def test_metrics_and_lists_are_written_as_the_contract_says(tmp_path: Path) -> None:
    figures = evaluate(tmp_path)
    assert figures["hit-rate@1"]["mean"] == pytest.approx(1 / 3)
    assert figures["hit-rate@2"]["mean"] == pytest.approx(2 / 3)
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {name: document[name] for name in figures} == figures
    assert document["settings"]["model"] == "popular"
    assert document["settings"]["ks"] == [1, 2]
    assert document["seconds"].keys() == {"fit", "recommend", "evaluate"}
    lists = pd.read_parquet(tmp_path / "out" / "recommendations.parquet")
    assert lists.to_dict("list") == {
        "user_id": [10, 30, 99, 99],
        "item_id": [3, 2, 1, 2],
        "rank": [1, 1, 1, 2],
        "score": [1.0, 2.0, 3.0, 2.0],
    }


@pytest.mark.parametrize("name", ["train.csv", "train.parquet", "folder.parquet"])
def test_csv_parquet_and_folders_give_the_same_figures(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
        write(TRAIN.head(2), path / "a.parquet")
        write(TRAIN.tail(4), path / "b.parquet")
    else:
        write(TRAIN, path)
    assert evaluate(tmp_path, train=path) == evaluate(tmp_path)


def test_a_delta_table_gives_the_same_figures(tmp_path: Path, spark: Any) -> None:
    path = tmp_path / "delta"
    spark.createDataFrame(TRAIN).write.format("delta").save(str(path))
    assert evaluate(tmp_path, train=path) == evaluate(tmp_path)


def test_the_spark_executor_gives_the_same_figures(tmp_path: Path, spark: Any) -> None:
    there, here = evaluate(tmp_path, executor="spark"), evaluate(tmp_path)
    assert {name: pytest.approx(figure) for name, figure in here.items()} == there


def test_ids_that_are_numbers_in_one_file_and_text_in_another_are_one(tmp_path: Path) -> None:
    test = write(TEST.assign(user_id=["10", "30", "x-99"]), tmp_path / "text.csv")
    assert evaluate(tmp_path, test=test)["hit-rate@2"] == evaluate(tmp_path)["hit-rate@2"]


def test_only_the_columns_of_an_interaction_are_read(tmp_path: Path) -> None:
    path = write(TRAIN.assign(weight=2.0, title="x"), tmp_path / "more.csv")
    assert list(read_interactions(path).columns) == ["user_id", "item_id", "weight"]


def test_a_missing_column_is_named_with_what_looks_like_it(tmp_path: Path) -> None:
    path = write(TRAIN.rename(columns={"item_id": "itemid"}), tmp_path / "odd.csv")
    with pytest.raises(MissingColumnsError, match=r"odd\.csv has no column item_id.*itemid looks like item_id"):
        evaluate(tmp_path, train=path)


@pytest.mark.parametrize("name", ["vectors.csv", "vectors.parquet"])
def test_features_are_the_one_column_of_number_lists(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"item_id": [1, 5], "title": ["a", "[b]"], "embedding": [[0.5, 1.0], [2.0, 3.0]]})
    features = read_features(write(frame, tmp_path / name))
    assert features["item_id"].tolist() == [1, 5]
    assert [vector.tolist() for vector in features["vector"]] == [[0.5, 1.0], [2.0, 3.0]]


def test_items_that_only_have_features_are_ranked_too(tmp_path: Path) -> None:
    path = write(pd.DataFrame({"item_id": [1, 7], "v": [[1.0], [2.0]]}), tmp_path / "v.parquet")
    figures = evaluate(tmp_path, item_features={"visual": path}, ks=(4,))
    assert figures["hit-rate@4"]["mean"] == 1.0


@pytest.mark.parametrize("columns", [{}, {"a": [[1.0]], "b": [[1.0]]}])
def test_features_without_one_clear_vector_column_are_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = write(pd.DataFrame({"item_id": [1], **columns}), tmp_path / "v.parquet")
    with pytest.raises(UsageError, match=f"has {len(columns)} columns of number lists"):
        read_features(path)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"train": Path("nowhere.csv")}, UsageError, r"nowhere\.csv does not exist"),
        ({"model": "eas"}, SettingsError, "no model eas"),
        ({"parameters": {"lamda": 1}}, SettingsError, "no parameter lamda"),
        ({"ks": (0,)}, UsageError, "list lengths are 0"),
        ({"executor": "dask"}, SettingsError, "no executor dask"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        evaluate(tmp_path, **changes)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match=r"noise\.parquet cannot be read"):
        read_interactions(tmp_path / "noise.parquet")


def test_an_empty_test_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no held-out interaction"):
        evaluate(tmp_path, test=write(TEST.head(0), tmp_path / "empty.parquet"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Nothing can be written to .*file"):
        evaluate(tmp_path, out=tmp_path / "file")


def test_beyond_accuracy_needs_no_further_file(tmp_path: Path) -> None:
    figures = evaluate(tmp_path)
    # 10 is shown 3, 30 is shown 2, and 99, whom train does not know, 1 and 2; of three train users.
    assert figures["popularity@2"]["mean"] == pytest.approx((1 / 3 + 2 / 3 + (3 / 3 + 2 / 3) / 2) / 3)
    assert {"novelty@2", "serendipity@2", "popularity-lift@2", "gini@2"} <= figures.keys()
    assert {"diversity@2", "miscalibration@2", "group-gini@2"}.isdisjoint(figures)


@pytest.mark.parametrize("executor", ["numpy", "spark"])
def test_further_files_bring_further_metrics(tmp_path: Path, executor: str, request: pytest.FixtureRequest) -> None:
    if executor == "spark":
        request.getfixturevalue("spark")
    knowledge = {
        "categories": write(
            pd.DataFrame({"item_id": [1, 2, 3], "categories": ["a", "b|a", '["b"]']}), tmp_path / "c.csv"
        ),
        "groups": write(pd.DataFrame({"item_id": [1, 2, 3], "group": ["x", "y", "y"]}), tmp_path / "g.csv"),
        "segments": write(pd.DataFrame({"user_id": [10, 99], "segment": ["old", "new"]}), tmp_path / "s.csv"),
    }
    vectors = write(pd.DataFrame({"item_id": [1, 2], "v": [[1.0, 0.0], [0.0, 1.0]]}), tmp_path / "v.parquet")
    figures = evaluate(tmp_path, knowledge=knowledge, item_features={"visual": vectors}, executor=executor)
    # Only 99 is shown two items with vectors, at a right angle.
    assert figures["diversity@2"]["mean"] == pytest.approx(1.0)
    assert figures["hit-rate@1/new"]["mean"] == 0.0
    assert figures["hit-rate@1/old"]["mean"] == 1.0
    # At the first place stand 3, 2 and 1.
    assert figures["exposure@1/y"]["mean"] == pytest.approx(2 / 3)
    assert figures["group-parity@1"]["mean"] == 1.0
    assert figures["miscalibration@2"]["mean"] > 0


def test_without_a_file_users_are_told_apart_by_their_history(tmp_path: Path) -> None:
    # 10 and 20 and 30 have two train items each, 99 has none; item 7 is cold, item 3 and 2 are not.
    figures = evaluate(tmp_path)
    assert figures["hit-rate@2/light"]["mean"] == 1 / 2
    assert figures["hit-rate@2/new"]["mean"] == 1.0
    assert figures["hit-rate@2/warm-items"]["mean"] == 1.0
    assert figures["hit-rate@2/cold-items"]["mean"] == 0.0
    assert "hit-rate@2/heavy" not in figures


def test_diversity_is_over_all_modalities(tmp_path: Path) -> None:
    # 99 is shown 1 and 2: alike in look, at a right angle in sound. The others are shown one item.
    look = write(pd.DataFrame({"item_id": [1, 2], "v": [[1.0, 0.0], [1.0, 0.0]]}), tmp_path / "look.parquet")
    sound = write(pd.DataFrame({"item_id": [1, 2], "v": [[5.0, 0.0], [0.0, 0.1]]}), tmp_path / "sound.parquet")
    figures = evaluate(tmp_path, item_features={"look": look, "sound": sound})
    assert figures["diversity@2"]["mean"] == pytest.approx((0 + 1) / 2)


def test_several_models_are_compared_user_by_user(tmp_path: Path) -> None:
    files = {
        "train": write(TRAIN, tmp_path / "train.csv"),
        "test": write(TEST, tmp_path / "test.csv"),
        "validation": None,
        "item_features": {},
    }
    found, compared = run_comparison(["popular", "sar"], {}, (2,), tmp_path / "out", **files)
    assert found.keys() == {"popular", "sar"}
    one = compared["ndcg@2"]["sar"]
    assert one.users == 3
    assert one.difference == pytest.approx(found["sar"]["ndcg@2"]["mean"] - found["popular"]["ndcg@2"]["mean"])
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document["reference"] == "popular"
    assert document["comparisons"]["ndcg@2"]["sar"]["difference"] == one.difference
    for model in found:
        assert (tmp_path / "out" / model / "metrics.json").is_file()
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "train.csv → " in page
    assert 'aria-label="novelty@2 against popularity@2: ' in page
    with pytest.raises(UsageError, match="reference eas is none of the models. Did you mean ease"):
        run_comparison(["ease", "sar"], {}, (2,), tmp_path / "out", "eas", **files)
    with pytest.raises(UsageError, match="sar is named twice"):
        run_comparison(["sar", "sar"], {}, (2,), tmp_path / "out", **files)


def run_command(tmp_path: Path, *more: str) -> Any:
    paths = write(TRAIN, tmp_path / "train.csv"), write(TEST, tmp_path / "test.csv")
    files = ["--train", str(paths[0]), "--test", str(paths[1]), "--out", str(tmp_path / "out"), "-k", "2"]
    return CliRunner().invoke(cli.app, ["evaluate", *files, *more])


def test_the_command_prints_a_table_of_one_model(tmp_path: Path) -> None:
    result = run_command(tmp_path, "--model", "popular")
    assert result.exit_code == 0
    assert any(line.split()[:2] == ["hit-rate@2", "0.6667"] for line in result.output.splitlines())


def test_the_command_prints_models_side_by_side_and_warns_of_too_few_users(tmp_path: Path) -> None:
    more = ["--model", "popular", "--model", "sar", "--set", "sar.half_life_days=7.0", "--reference", "sar"]
    result = run_command(tmp_path, *more)
    assert result.exit_code == 0
    assert ["metric", "popular", "sar"] in [line.split() for line in result.output.splitlines()]
    assert f"Page: {tmp_path / 'out' / 'comparison.html'}" in result.output
    assert "Difference from sar, paired by user" in result.output
    settings = json.loads((tmp_path / "out" / "sar" / "metrics.json").read_text())["settings"]
    assert settings["parameters"]["half_life_days"] == 7.0


def printed(metrics: dict[str, dict[str, float]], width: int) -> list[list[list[str]]]:
    """The words of each line of each table."""
    figures = {
        model: {name: {"mean": mean, "low": mean, "high": mean} for name, mean in found.items()}
        for model, found in metrics.items()
    }
    found = []
    for table in metrics_tables(figures, width):
        out = io.StringIO()
        Console(file=out, width=width).print(table)
        found.append([line.split() for line in out.getvalue().splitlines()])
    return found


def test_the_best_of_a_row_is_marked_and_segments_are_shown_by_what_models_are_compared_by() -> None:
    names = ("ndcg@5", "gini@5", "ndcg@5/new", "f1@5/new", "exposure@5/ann")
    one, other = dict(zip(names, (0.2, 0.9, 0.1, 0.1, 0.1), strict=True)), dict.fromkeys(names, 0.1)
    assert printed({"ease": one, "sar": other}, 80) == [
        [
            ["metric", "ease", "sar"],
            ["ndcg@5", "*0.2000", "0.1000"],
            ["gini@5", "0.9000", "*0.1000"],
            ["ndcg@5/new", "0.1000", "0.1000"],
        ]
    ]


def test_models_that_do_not_fit_side_by_side_go_into_further_tables() -> None:
    models = [f"a-long-model-name-{n}" for n in range(7)]
    tables = printed({model: {"ndcg@10": n / 10} for n, model in enumerate(models)}, 80)
    assert [name for table in tables for name in table[0][1:]] == models
    assert [len(table[0]) - 1 for table in tables] == [3, 3, 1]
    assert tables[2][1] == ["ndcg@10", "*0.6000"]


def test_a_parameter_of_a_model_that_is_not_evaluated_is_refused(tmp_path: Path) -> None:
    result = run_command(tmp_path, "--model", "popular", "--set", "ease.regularisation=3")
    assert result.exit_code == 2


def test_ids_in_csv_keep_64_bits_and_leading_noughts(tmp_path: Path) -> None:
    large = pd.DataFrame({"user_id": [2**62 + 1, 2**62 + 2], "item_id": ["007", "7"]})
    rows = read_interactions(write(large, tmp_path / "ids.csv"))
    assert rows["user_id"].tolist() == [2**62 + 1, 2**62 + 2]
    assert rows["item_id"].tolist() == ["007", "7"]


def test_rows_without_an_id_are_counted_and_refused(tmp_path: Path) -> None:
    (tmp_path / "gap.csv").write_text("user_id,item_id\n1,2\n,3\n")
    with pytest.raises(DataError, match=r"1 rows of .*gap\.csv have no user_id"):
        read_interactions(tmp_path / "gap.csv")


@pytest.mark.parametrize("weight", [float("nan"), -1.0])
def test_weights_that_cannot_be_are_refused(tmp_path: Path, weight: float) -> None:
    path = write(TRAIN.assign(weight=[weight, *[1.0] * 5]), tmp_path / "weighted.parquet")
    with pytest.raises(DataError, match="negative weight or none"):
        evaluate(tmp_path, train=path)


def test_what_people_do_not_tidy_works(tmp_path: Path) -> None:
    # Pairs that come twice in train and test, one user, a test item that train has not seen, k beyond the catalogue.
    train = write(pd.concat([TRAIN, TRAIN]), tmp_path / "twice.parquet")
    test = write(pd.DataFrame({"user_id": [10, 10, 10], "item_id": [3, 3, 999]}), tmp_path / "one.parquet")
    figures = evaluate(tmp_path, train=train, test=test, ks=(1, 50))
    assert figures["recall@50"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert figures["precision@50"]["mean"] == 1 / 50
