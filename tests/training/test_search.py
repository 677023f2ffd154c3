"""The settings search: on validation only, resumable, pruned, and written as settings that train takes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

from avrec_spark import cli, config, tables
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, SettingsError, UsageError
from avrec_spark.evaluation import yardsticks
from avrec_spark.evaluation.part import Part
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.models import registry
from avrec_spark.pipelines import tune as tuning
from avrec_spark.training import search as module
from avrec_spark.training.search import SPACES, Found, Range, Trial, search, space_of, write


def part_of(seed: int, users: int = 40, items: int = 30) -> Part:
    """Users of two tastes; each user's last item is held out."""
    generator = np.random.default_rng(seed)
    taste = np.arange(users) % 2
    rows = [(u, 2 * i + taste[u]) for u in range(users) for i in generator.permutation(items // 2)[:7]]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(timestamp=np.arange(len(rows)))
    last = frame.groupby("user_id").cumcount(ascending=False) == 0
    return Part(frame[~last], frame.loc[last, ["user_id", "item_id"]])


def test_a_resumed_search_tries_what_an_uninterrupted_one_tries(tmp_path: Path) -> None:
    parts = [part_of(1), part_of(2)]
    seen: dict[str, list[Trial]] = {"whole": [], "halves": []}
    search("item-knn", parts, 6, storage=tmp_path / "whole.db", on_trial=seen["whole"].append)
    for trials in (3, 6):
        found = search("item-knn", parts, trials, storage=tmp_path / "halves.db", on_trial=seen["halves"].append)
    whole, halves = ([(t.number, t.parameters, t.figures) for t in seen[name]] for name in ("whole", "halves"))
    assert whole == halves
    assert found.trials == 6
    assert found.value == max(t.figures[-1] for t in seen["whole"] if t.state == "complete")


def test_nothing_is_left_to_do_when_all_trials_are_there(tmp_path: Path) -> None:
    first = search("item-knn", [part_of(1)], 2, storage=tmp_path / "s.db")
    told: list[Trial] = []
    assert search("item-knn", [part_of(1)], 2, storage=tmp_path / "s.db", on_trial=told.append) == first
    assert told == []


@pytest.mark.parametrize("changed", [{"parts": [part_of(2)]}, {"metric": "recall@5"}, {"fixed": {"power": 0.5}}])
def test_another_search_in_the_same_file_starts_from_nothing(tmp_path: Path, changed: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"parts": [part_of(1)], "trials": 2, "storage": tmp_path / "s.db"}
    search("item-knn", **arguments)
    told: list[Trial] = []
    search("item-knn", **arguments | changed, on_trial=told.append)
    assert [trial.number for trial in told] == [0, 1]


def test_the_first_trial_is_where_the_search_starts() -> None:
    told: list[Trial] = []
    search("item-knn", [part_of(1)], 1, start={"shrinkage": 7.0}, on_trial=told.append)
    assert told[0].parameters == {"neighbours": 200, "shrinkage": 7.0, "power": 0.0}


def test_a_trial_that_a_killed_process_left_is_not_counted(tmp_path: Path) -> None:
    search("item-knn", [part_of(1)], 1, storage=tmp_path / "s.db")
    url = f"sqlite:///{tmp_path / 's.db'}"
    (name,) = optuna.get_all_study_names(url)
    optuna.load_study(study_name=name, storage=url).ask()
    told: list[Trial] = []
    search("item-knn", [part_of(1)], 2, storage=tmp_path / "s.db", on_trial=told.append)
    states = [trial.state.name for trial in optuna.load_study(study_name=name, storage=url).trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]
    assert len(told) == 1


def test_hopeless_trials_end_after_a_third_of_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is the learning rate, so that half of the trials are below the median."""
    fits: list[int] = []

    def figure(model: str, part: Part, metric: str, parameters: Any) -> float:
        fits.append(parameters["epochs"])
        return float(parameters["learning_rate"])

    monkeypatch.setattr(module, "_figure", figure)
    told: list[Trial] = []
    found = search("mf", [part_of(1), part_of(2)], 20, start={"epochs": 30}, on_trial=told.append)
    assert fits[:3] == [10, 30, 30]
    pruned = [trial for trial in told if trial.state == "pruned"]
    assert found.pruned == len(pruned) > 0
    assert all(len(trial.figures) == 1 for trial in pruned)
    assert len(fits) == 3 * (20 - len(pruned)) + len(pruned)
    # A pruned trial is never the answer, and nothing better was pruned.
    assert found.value == max(trial.parameters["learning_rate"] for trial in told)


def test_the_figure_is_that_of_the_parts_on_average() -> None:
    told: list[Trial] = []
    parts = [part_of(1), part_of(2)]
    search("item-knn", parts, 1, on_trial=told.append)
    first, both = told[0].figures
    second = search("item-knn", parts[1:], 1).value
    assert both == pytest.approx((first + second) / 2)
    assert first != second


def test_a_parameter_that_means_nothing_here_is_not_tried() -> None:
    told: list[Trial] = []
    search("ease", [part_of(1)], 8, on_trial=told.append)
    sides = {trial.parameters["side"] for trial in told}
    assert sides == {"item", "user"}
    assert all(("window" in trial.parameters) == (trial.parameters["side"] == "item") for trial in told)


@pytest.mark.parametrize("model", sorted(set(SPACES) & set(registry.NAMES)))
def test_a_space_holds_parameters_that_its_model_has_and_their_defaults(model: str) -> None:
    defaults = registry.create(model).parameters
    for name, values in SPACES[model].items():
        default = defaults[name]
        if isinstance(values, Range):
            assert values.low <= default <= values.high, name
            assert isinstance(values.low, int) == isinstance(default, int), name
            assert registry.create(model, **{name: values.high})
        else:
            assert default in values, name


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"model": "popular"}, SettingsError, "popular has no search space"),
        ({"model": "eas"}, SettingsError, "no model eas. Did you mean ease"),
        ({"fixed": {"lamda": 3}}, SettingsError, "has no parameter lamda"),
        ({"model": "sar", "fixed": {"half_life_days": 3.0}}, SettingsError, "All searched parameters .* are fixed"),
        ({"trials": 0}, UsageError, "number of trials is 0"),
        ({"metric": "ndcg"}, UsageError, "metric ndcg has no list length"),
        ({"metric": "ndgc@10"}, UsageError, "no metric ndgc. Did you mean ndcg@10"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes: dict[str, Any], error: type[Exception], sentence: str) -> None:
    arguments: dict[str, Any] = {"model": "item-knn", "parts": [part_of(1)], "trials": 1}
    with pytest.raises(error, match=sentence):
        search(**arguments | changes)


def test_fixed_parameters_leave_the_space() -> None:
    assert space_of("item-knn", {"power": 0.5}).keys() == {"neighbours", "shrinkage"}


def test_what_is_written_are_settings_that_train_takes(tmp_path: Path) -> None:
    found = Found("ease", "ndcg@10", 0.5, {"regularisation": 30.5, "side": "user"}, 9, 2)
    write(found, tmp_path / "tuned.yaml")
    train = config.load(tmp_path / "tuned.yaml", environment={}).train
    assert (train.models, train.parameters) == (("ease",), {"ease": found.parameters})
    mine = config.load(overrides=["lakehouse.root=here", "train.parameters={mf: {epochs: 3}}"], environment={})
    write(found, tmp_path / "whole.yaml", mine)
    again = config.load(tmp_path / "whole.yaml", environment={})
    assert again.lakehouse.root == "here"
    assert again.train.parameters == {"mf": {"epochs": 3}, "ease": found.parameters}


def test_a_file_collects_the_models_of_several_searches(tmp_path: Path) -> None:
    write(Found("ease", "ndcg@10", 0.4, {"regularisation": 3.0}, 9, 2), tmp_path / "tuned.yaml")
    write(Found("sar", "ndcg@10", 0.3, {"half_life_days": 7.0}, 4, 0), tmp_path / "tuned.yaml")
    write(Found("ease", "ndcg@10", 0.5, {"regularisation": 5.0}, 12, 2), tmp_path / "tuned.yaml")
    train = config.load(tmp_path / "tuned.yaml", environment={}).train
    assert train.models == ("ease", "sar")
    assert train.parameters == {"ease": {"regularisation": 5.0}, "sar": {"half_life_days": 7.0}}
    assert (tmp_path / "tuned.yaml").read_text().splitlines()[:2] == [
        "# sar: ndcg@10 0.3000 on validation, the best of 4 trials",
        "# ease: ndcg@10 0.5000 on validation, the best of 12 trials",
    ]


def test_a_blend_learns_its_weights_on_all_parts_in_one_trial() -> None:
    told: list[Trial] = []
    members = [{"model": "random"}, {"model": "item-knn", "neighbours": 5}]
    parts = [part_of(1), part_of(2)]
    found = search("blend", parts, 30, fixed={"members": members}, start={"weights": [1.0, 0.0]}, on_trial=told.append)
    guess, knn = found.parameters["weights"]
    assert guess < 0.4 < knn
    assert (found.metric, found.trials, len(told)) == ("ndcg@10", 1, 1)
    assert told[0].figures[0] < told[0].figures[-1] == found.value
    assert found.parameters["members"] == members
    for alone in (parts[:1], parts[1:]):
        assert search("blend", alone, 1, fixed={"members": members}).value != found.value


# -- test is never looked at -------------------------------------------------------------------------------------------


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder as the protocol tiktok has it, without the file test.parquet."""
    folder, part = tmp_path / "videos", part_of(3)
    folder.mkdir()
    part.train.to_parquet(folder / "train.parquet")
    part.held_out.to_parquet(folder / "validation.parquet")
    for name in ("image", "audio"):
        vectors = np.random.default_rng(1).normal(size=(30, 4)).astype("f4")
        pd.DataFrame({"item_id": range(30), name: list(vectors)}).to_parquet(folder / f"{name}_features.parquet")
    return folder


def tune(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])


def test_a_yardstick_is_tuned_without_its_test_file_and_each_trial_is_a_run_under_the_search(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AVREC_TRACKING__URI", raising=False)
    out = tmp_path / "tuned" / "walk.yaml"
    said = tune("--yardstick", "tiktok", "--data", videos, "--model", "walk", "--trials", 3, "--out", out)
    assert said.exit_code == 0, said.output
    assert "recall@20" in said.stdout and "3 trials" in said.stdout
    assert config.load(out, environment={}).train.models == ("walk",)
    members = 'members=[{"model": "walk"}, {"model": "random"}]'
    said = tune("--yardstick", "tiktok", "--data", videos, "--model", "blend", "--set", members, "--out", out)
    assert said.exit_code == 0, said.output
    parameters = config.load(out, environment={}).train.parameters
    assert parameters["blend"]["members"][0] == {**yardsticks.TIKTOK.tuned("walk").parameters, "model": "walk"}
    assert parameters.keys() == {"walk", "blend"}

    client = mlflow.MlflowClient(f"sqlite:///{out.parent / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("avrec").experiment_id])
    (_, parent) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in trials} == {"trial-0", "trial-1", "trial-2"}
    assert all("recall_at_20" in run.data.metrics and "neighbours" in run.data.params for run in trials)


def test_what_a_snapshot_is_tuned_on_is_its_train_and_validation_part(tmp_path: Path) -> None:
    part = part_of(4)
    vectors = pd.DataFrame({"item_id": [3, 4], "vector": [[1.0, 2.0], [0.0, 1.0]]})
    training_set = TrainingSet.from_frames(part.train, {"visual": vectors}, validation=part.held_out)
    training_set.write(tmp_path / "snapshot")
    assert not (tmp_path / "snapshot" / "test").exists()
    read = Part.of_snapshot(tmp_path / "snapshot")

    def ordered(frame: pd.DataFrame) -> pd.DataFrame:
        pairs = frame[["user_id", "item_id"]].astype("int64")
        return pairs.sort_values(["user_id", "item_id"], ignore_index=True)

    pd.testing.assert_frame_equal(ordered(read.train), ordered(part.train))
    known = part.held_out[part.held_out["item_id"].isin({*part.train["item_id"], 3, 4})]
    pd.testing.assert_frame_equal(ordered(read.held_out), ordered(known))
    assert read.features["visual"].sort_values("item_id")["vector"].map(list).tolist() == [[1.0, 2.0], [0.0, 1.0]]


def test_the_latest_snapshot_is_tuned_and_the_file_keeps_its_settings(spark: Any, tmp_path: Path) -> None:
    root = tmp_path / "lakehouse"
    rows = []
    for number in (1, 2):
        part = part_of(number)
        TrainingSet.from_frames(part.train, validation=part.held_out).write(tmp_path / f"snapshot{number}")
        rows.append((f"s{number}", "r", str(tmp_path / f"snapshot{number}"), {}, "{}", {}, datetime(2026, 1, number)))
    schema = ", ".join(f"{name} {kind}" for name, kind in tables.SNAPSHOTS.columns.items())
    Lakehouse(spark, str(root)).append(tables.SNAPSHOTS, spark.createDataFrame(rows, schema))
    settings = config.load(overrides=[f"lakehouse.root={root}", "promote.metric=recall@3"], environment={})
    request = tuning.Request("item-knn", 2, tmp_path / "tuned.yaml", {"power": 0.5})
    found = tuning.on_snapshot(request, settings)
    # Of the second snapshot, by the metric that decides on promotion, with the fixed parameter.
    assert found == search("item-knn", [Part.of_snapshot(tmp_path / "snapshot2")], 2, "recall@3", {"power": 0.5})
    written = config.load(tmp_path / "tuned.yaml", environment={})
    assert written.lakehouse.root == str(root)
    assert written.train.parameters == {"item-knn": found.parameters}


@pytest.mark.parametrize("arguments", [(), ("--yardstick", "tiktok", "--config", "conf/demo.yaml")])
def test_one_place_to_search_is_asked_for(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert tune("--model", "ease", "--out", tmp_path / "x.yaml", *arguments).exit_code == 2


def test_a_validation_part_without_rows_is_refused(videos: Path, tmp_path: Path) -> None:
    pd.read_parquet(videos / "validation.parquet").head(0).to_parquet(videos / "validation.parquet")
    said = tune("--yardstick", "tiktok", "--data", videos, "--model", "walk", "--out", tmp_path / "x.yaml")
    assert said.exit_code == DataError.exit_code
    assert not (tmp_path / "x.yaml").exists()
