"""The ablation on a snapshot in which one modality tells what people like, and the other one is noise."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import ablation, runner
from avrec_spark.pipelines.report_clips import Tables
from avrec_spark.pipelines.report_content import latest_ablation

QUICK = {"epochs": 8, "dimension": 8, "content_rank": 8, "batch_size": 256, "seed": 1}
COLD = 6


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> str:
    """60 users of two tastes; of 40 items the last ones are in validation only, where every second user likes one."""
    generator = np.random.default_rng(0)
    items = np.arange(40)
    taste = items % 2
    warm = [(user, item) for user in range(60) for item in items[:-COLD] if item % 2 == user % 2]
    pairs = pd.DataFrame(warm, columns=[c.USER_ID, c.ITEM_ID])
    drawn = generator.random(len(pairs)) < 0.4
    held = pd.DataFrame([(user, 40 - COLD + user % COLD) for user in range(60)], columns=pairs.columns)
    features = {
        "noise": generator.normal(size=(40, 4)),
        "taste": np.stack([taste, 1 - taste], axis=1) + generator.normal(0, 0.1, (40, 2)),
    }
    frames = {name: pd.DataFrame({c.ITEM_ID: items, c.VECTOR: list(values)}) for name, values in features.items()}
    # Some of what users like beside the new items, so that all pairs and those of new items differ.
    validation = pd.concat([held, pairs[~drawn].groupby(c.USER_ID).head(1)])
    path = tmp_path_factory.mktemp("snapshot") / "s"
    TrainingSet.from_frames(pairs[drawn], frames, validation=validation).write(path)
    return str(path)


def test_what_tells_taste_finds_the_new_items_and_noise_does_not(snapshot):
    measure = ablation._Measure(snapshot, QUICK, "recall@13")
    means = {name: measure((name,)).drop(columns=c.USER_ID).mean() for name in ("taste", "noise")}
    assert list(means["taste"].index) == ["recall@13", "recall@13/cold-items"]
    # Of the 13 or so items that are left of a user's 20, a taste that is known finds most, noise a third.
    assert means["taste"]["recall@13/cold-items"] > means["noise"]["recall@13/cold-items"] + 0.25


@pytest.mark.slow
def test_every_variant_is_recorded_and_compared_with_all_modalities(spark, snapshot, tmp_path):
    lakehouse = Lakehouse(spark, str(tmp_path))
    rows = [("s", "r1", snapshot, {"train": 1, "validation": 1})]
    schema = "snapshot_id string, run_id string, path string, rows map<string,bigint>"
    lakehouse.append(tables.SNAPSHOTS, spark.createDataFrame(rows, schema))
    given = [f"lakehouse.root={tmp_path}", "promote.metric=ndcg@3", f"train.parameters={json.dumps({'fusion': QUICK})}"]
    settings = config.load(None, given, environment={})
    runner.run(["ablation"], settings, "r1")
    metrics = lakehouse.read(tables.METRICS).toPandas()
    assert set(metrics["split"]) == {"ablation"}
    assert set(metrics["model"]) == {"all modalities", "noise alone", "taste alone"}
    against = lakehouse.read(tables.COMPARISONS).toPandas()
    assert set(against["best"]) == {"all modalities"}
    assert set(zip(against["model"], against["metric"], strict=True)) == {
        (model, metric) for model in ("noise alone", "taste alone") for metric in ("ndcg@3", "ndcg@3/cold-items")
    }

    # A later run's report shows it, as of the run that has measured it.
    found = latest_ablation(Tables(runner_context(settings, lakehouse)))
    assert (found.run_id, len(found.metrics), len(found.comparisons)) == ("r1", 6, 4)


def runner_context(settings: config.Settings, lakehouse: Lakehouse) -> ablation.Context:
    return ablation.Context(settings, "r2", "report", lakehouse.spark, lakehouse, None, None)


@pytest.mark.slow
def test_one_modality_has_nothing_to_be_left_out(spark, snapshot, tmp_path):
    lakehouse = Lakehouse(spark, str(tmp_path))
    folder = tmp_path / "s"
    read = TrainingSet.read(snapshot)
    TrainingSet(**{**vars(read), "features": {"taste": read.features["taste"]}}).write(folder)
    rows = [("s", "r1", str(folder), {"validation": 1})]
    schema = "snapshot_id string, run_id string, path string, rows map<string,bigint>"
    lakehouse.append(tables.SNAPSHOTS, spark.createDataFrame(rows, schema))
    runner.run(["ablation"], config.load(None, [f"lakehouse.root={tmp_path}"], environment={}), "r1")
    assert not lakehouse.exists(tables.METRICS)
    assert latest_ablation(Tables(runner_context(config.Settings(), lakehouse))).run_id == ""
