"""The whole flow on a 12-clip world, once, by the quick start notebook; these tests look at what it left."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from avrec_spark import config, tables
from avrec_spark.errors import RunConflictError
from avrec_spark.evaluation import executors
from avrec_spark.evaluation.catalogue import Catalogue
from avrec_spark.evaluation.segments import by_history
from avrec_spark.models.base import Recommender
from avrec_spark.pipelines import evaluate, held_out, report_content, runner
from avrec_spark.pipelines.job import Context
from avrec_spark.pipelines.report_clips import Tables
from avrec_spark.progress import Progress
from avrec_spark.recommend.reasons import POPULAR


def truth(daily):
    return json.loads((daily.world / "truth.json").read_text())


def manifest(daily, job, run_id="first"):
    return json.loads(Path(daily.lakehouse.path("manifests", run_id, f"{job}.json")).read_text())


def test_every_job_leaves_a_manifest_and_a_row(daily):
    assert [manifest(daily, job)["status"] for job in runner.JOBS] == ["done"] * len(runner.JOBS)
    runs = daily.rows(tables.JOB_RUNS)
    assert sorted(runs[runs["run_id"] == "first"]["job"]) == sorted(runner.JOBS)


@pytest.mark.parametrize("job", ["catalog", "events", "features"])
def test_rows_in_are_rows_out_and_quarantined(daily, job):
    counts = manifest(daily, job)["counts"]
    assert counts["rows_in"] == counts["rows_out"] + counts["quarantined"]


def test_nothing_half_done_is_left_behind(daily):
    assert not list(Path(daily.lakehouse.path("staging")).rglob("*.parquet"))


def test_every_broken_event_is_refused_for_its_own_reason(daily):
    refused = daily.rows(tables.QUARANTINE).query("run_id == 'first' and source != 'media'")
    assert refused.groupby("reason").size().to_dict() == truth(daily)["broken_lines"]


def test_each_broken_file_is_a_row_with_a_reason_and_not_a_crash(daily):
    media = daily.rows(tables.MEDIA).set_index("item_id")
    said = {item: (media.loc[item, "status"], media.loc[item, "reason"]) for item in truth(daily)["broken_items"]}
    assert said == {
        "broken-upload": ("corrupt", "no_index"),
        "not-a-video": ("corrupt", "not_media"),
        "never-arrived": ("missing", "not_found"),
    }
    refused = daily.rows(tables.QUARANTINE).query("run_id == 'first' and source == 'media'")
    assert set(refused["key"]) == set(truth(daily)["broken_items"])


def test_every_clip_has_a_unit_vector_of_each_modality_with_its_provenance(daily):
    features = daily.rows(tables.ITEM_FEATURES).query("status == 'ok'")
    widths = {"visual": 1280, "colour": 108, "motion": 27, "audio": 222, "text": 384}
    senses = {"visual": "look", "colour": "look", "motion": "look", "audio": "sound", "text": "words"}
    for modality, width in widths.items():
        clips = [clip["item_id"] for clip in truth(daily)["clips"] if clip["lacks"] != senses[modality]]
        assert len(clips) == 11
        rows = features[(features["modality"] == modality) & features["item_id"].isin(clips)]
        assert len(rows) == len(clips)
        vectors = np.stack(rows["vector"].tolist())
        assert vectors.shape[1] == width
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        named = rows[["encoder", "encoder_version", "parameters_hash", "input_hash"]]
        assert named.notna().all().all()


def test_a_clip_has_no_vector_of_the_modality_that_it_lacks(daily):
    rows = daily.rows(tables.ITEM_FEATURES).query("status == 'ok'")
    has = rows.groupby("item_id")["modality"].agg(set)
    lacking = {clip["lacks"]: has[clip["item_id"]] for clip in truth(daily)["clips"] if clip["lacks"]}
    assert lacking == {
        "look": {"audio", "text"},
        "sound": {"visual", "colour", "motion", "text"},
        "words": {"visual", "colour", "motion", "audio"},
    }


def test_what_was_shown_is_kept_and_is_no_preference(daily):
    shown = daily.rows(tables.INTERACTIONS).query("event_type == 'impression'")
    assert shown["propensity"].between(0, 1, inclusive="right").all()
    assert set(shown["position"]) == set(range(6))
    assert not shown["weight"].any()


def test_clips_of_one_planted_palette_look_more_alike_than_others(daily):
    palette = {clip["item_id"]: clip["palette"] for clip in truth(daily)["clips"]}
    rows = daily.rows(tables.ITEM_FEATURES).query("modality == 'visual' and status == 'ok'")
    vectors = np.stack(rows["vector"].tolist())
    same = np.array([[palette[a] == palette[b] for b in rows["item_id"]] for a in rows["item_id"]])
    cosine = vectors @ vectors.T
    others = ~np.eye(len(rows), dtype=bool)
    assert cosine[same & others].mean() > cosine[~same].mean()


def test_the_same_run_again_does_nothing(daily):
    before = {table.full_name: daily.lakehouse.version(table) for table in tables.ALL}
    runner.run(runner.expand("daily"), daily.settings, "first")
    assert {table.full_name: daily.lakehouse.version(table) for table in tables.ALL} == before


def test_the_same_run_id_with_other_inputs_is_refused(daily):
    changed = daily.settings.model_copy(update={"recommend": config.RecommendSettings(k=3)})
    with pytest.raises(RunConflictError) as error:
        runner.run(["recommend"], changed, "first")
    assert error.value.exit_code == 2
    assert "Run first has already done the job recommend with other inputs" in str(error.value)
    assert "settings.recommend" in str(error.value)


def test_a_second_run_over_an_unchanged_catalogue_decodes_nothing(daily):
    features = daily.lakehouse.version(tables.ITEM_FEATURES)
    runner.run(["catalog", "features"], daily.settings, "second")
    counts = manifest(daily, "features", "second")["counts"]
    assert (counts["files_decoded"], counts["texts_encoded"]) == (0, 0)
    assert (counts["rows_in"], counts["quarantined"]) == (15, 3)
    assert daily.lakehouse.version(tables.ITEM_FEATURES) == features


def test_the_snapshot_names_the_table_versions_it_was_made_of(daily):
    row = daily.rows(tables.SNAPSHOTS).iloc[0]
    assert set(dict(row["table_versions"])) == {"silver.interactions", "gold.item_features"}
    users = pd.read_parquet(f"{row['path']}/users")
    parts = {name: pd.read_parquet(f"{row['path']}/{name}") for name in ("train", "validation", "test")}
    pairs = pd.concat(parts.values())[["user_index", "item_index"]]
    assert not pairs.duplicated().any()
    assert set(pairs["user_index"]) == set(users["user_index"])


def test_models_that_draw_at_random_take_the_seed_of_the_settings(daily):
    models = daily.rows(tables.MODELS).set_index("model")["parameters"].map(json.loads)
    seeds = {name: said["seed"] for name, said in models.items() if "seed" in said}
    assert seeds == {"als": 11, "fusion": 11}


def test_every_model_is_evaluated_on_validation_and_test(daily):
    metrics = daily.rows(tables.METRICS)
    assert set(metrics["model"]) == set(daily.settings.train.models)
    accuracy = ("ndcg", "precision", "recall", "map", "mrr", "hit-rate", "f1", "map-min")
    beyond = ("novelty", "popularity", "serendipity", "diversity", "unexpectedness", "miscalibration")
    overall = ("coverage", "gini", "entropy", "group-gini", "group-parity", "group-divergence")
    wanted = {f"{name}@{k}" for name in (*accuracy, *beyond, "popularity-lift", *overall) for k in (3, 5)}
    for _, rows in metrics.groupby(["model", "split"]):
        assert {name for name in rows["metric"] if "/" not in name} == wanted
        # Users by their history, and creators by their channel.
        assert {"ndcg@3/light", "ndcg@3/heavy"} <= set(rows["metric"])
        assert rows.loc[rows["metric"].str.startswith("exposure@3/channel-"), "mean"].sum() == pytest.approx(1.0)
    assert metrics.loc[metrics["metric"].str.partition("@")[0].isin(accuracy), "mean"].between(0, 1).all()


def test_every_model_is_compared_with_the_best_on_test(daily):
    metrics = daily.rows(tables.METRICS).query("split == 'test'").set_index(["metric", "model"])["mean"]
    compared = daily.rows(tables.COMPARISONS)
    for metric, rows in compared.groupby("metric"):
        best = rows["best"].iloc[0]
        assert {*rows["model"], best} == set(daily.settings.train.models)
        for row in rows.itertuples():
            # Users of whom the figure is not defined in both are left out of a pair.
            if metric.startswith(("ndcg", "recall")):
                assert row.difference == pytest.approx(metrics[metric, row.model] - metrics[metric, best])
                assert row.difference <= 0
    assert {"ndcg@3", "novelty@3", "diversity@3"} <= set(compared["metric"])


def test_what_evaluation_knows_of_items_and_users_is_that_of_the_tables(daily, spark):
    path = daily.rows(tables.SNAPSHOTS).iloc[0]["path"]
    users, items = pd.read_parquet(f"{path}/users"), pd.read_parquet(f"{path}/items")
    train, held_out = (
        pd.read_parquet(f"{path}/{part}").merge(users).merge(items)[["user_id", "item_id"]]
        for part in ("train", "test")
    )
    about = daily.rows(tables.ITEMS).merge(items)
    uri = daily.rows(tables.MODELS).set_index("model").loc["popular", "model_uri"]
    model = Recommender.load(daily.tracking.download(uri) / "artifacts" / "model")
    alone = executors.evaluate_numpy(
        model.recommend(held_out["user_id"].unique(), 5),
        held_out,
        (3, 5),
        len(items),
        20,
        Catalogue.from_frames(
            items=items["item_id"],
            train=train,
            categories=about.rename(columns={"tags": "categories"}),
            groups=about.rename(columns={"channel": "group"}),
        ),
        histories=train,
        segments=by_history(held_out["user_id"], train["user_id"].value_counts()),
    )
    recorded = daily.rows(tables.METRICS).query("model == 'popular' and split == 'test'").set_index("metric")
    assert {"novelty@3", "popularity-lift@5", "miscalibration@3", "group-parity@3", "ndcg@3/light"} <= alone.keys()
    for name, figure in alone.items():
        assert recorded.loc[name, ["mean", "low", "high"]].tolist() == pytest.approx(list(figure.values())), name


def test_both_executors_give_the_figures_that_the_run_recorded(daily, spark):
    path = daily.rows(tables.SNAPSHOTS).iloc[0]["path"]
    users, items = pd.read_parquet(f"{path}/users"), pd.read_parquet(f"{path}/items")
    held_out = pd.read_parquet(f"{path}/test").merge(users).merge(items)[["user_id", "item_id"]]
    uri = daily.rows(tables.MODELS).set_index("model").loc["ease", "model_uri"]
    model = Recommender.load(daily.tracking.download(uri) / "artifacts" / "model")
    lists = model.recommend(held_out["user_id"].unique(), 5)
    alone = executors.evaluate_numpy(lists, held_out, (3, 5), len(items), 20)
    recorded = daily.rows(tables.METRICS).query("model == 'ease' and split == 'test'").set_index("metric")
    for name, figure in alone.items():
        assert recorded.loc[name, ["mean", "low", "high"]].tolist() == pytest.approx(list(figure.values()))


def test_the_driver_measures_what_spark_has_recorded(daily, spark):
    auto = daily.settings.evaluate.model_copy(update={"executor": "auto"})
    settings = daily.settings.model_copy(update={"evaluate": auto})
    context = Context(settings, "first", "evaluate", spark, daily.lakehouse, daily.tracking, Progress())
    known = held_out.read(context, daily.rows(tables.SNAPSHOTS).iloc[0]["snapshot_id"])
    uri = daily.rows(tables.MODELS).set_index("model").loc["ease", "model_uri"]
    model = Recommender.load(daily.tracking.download(uri) / "artifacts" / "model")
    metrics, users = evaluate.measure(context, model, known)
    assert known.on_driver
    recorded = daily.rows(tables.METRICS).query("model == 'ease'").set_index(["split", "metric"])
    assert len(recorded) == sum(len(figures) for figures in metrics.values())
    for split, figures in metrics.items():
        for name, figure in figures.items():
            assert recorded.loc[(split, name), ["mean", "low", "high"]].tolist() == pytest.approx(
                list(figure.values()), abs=1e-9
            ), name
    assert users["diversity@3"].mean() == pytest.approx(metrics["test"]["diversity@3"]["mean"])


def test_every_user_is_recommended_unseen_items_with_a_reason(daily):
    lists, seen = daily.rows(tables.RECOMMENDATIONS), daily.rows(tables.INTERACTIONS)
    assert set(lists["user_id"]) == set(seen["user_id"])
    liked = seen[seen["weight"] > 0][["user_id", "item_id"]].drop_duplicates()
    assert lists.merge(liked, on=["user_id", "item_id"]).empty
    assert (lists["reasons"].map(len) == 1).all()
    because = lists.dropna(subset=["because"])[["user_id", "because"]].rename(columns={"because": "item_id"})
    assert len(because) > len(lists) / 2
    assert len(because.merge(liked, on=["user_id", "item_id"])) == len(because)
    for _, ranks in lists.sort_values("rank").groupby("user_id")["rank"]:
        assert ranks.tolist() == list(range(1, len(ranks) + 1))


def test_what_cannot_be_played_is_not_recommended(daily):
    assert not set(daily.rows(tables.RECOMMENDATIONS)["item_id"]) & set(truth(daily)["broken_items"])


def test_a_user_without_history_gets_the_popular_list(daily):
    seen = daily.rows(tables.INTERACTIONS).groupby("user_id")["weight"].max()
    strangers = seen[seen == 0].index
    lists = daily.rows(tables.RECOMMENDATIONS)
    fallback = lists[lists["reasons"].map(lambda reasons: POPULAR in reasons)]
    assert set(strangers) <= set(fallback["user_id"])


def test_every_item_has_neighbours_of_each_kind_and_never_itself(daily):
    rows = daily.rows(tables.ITEM_NEIGHBOURS)
    assert set(rows["kind"]) == {"visual", "colour", "motion", "audio", "text", "fused"}
    assert (rows["item_id"] != rows["neighbour_id"]).all()
    assert rows.groupby(["kind", "item_id"])["rank"].max().eq(3).all()


def test_gates_can_be_read_and_belong_to_modalities_that_the_item_has(daily):
    gates = daily.rows(tables.ITEM_EMBEDDINGS).set_index("item_id")["gates"].map(dict)
    reached = {"look": "visual", "sound": "audio", "words": "text"}
    for clip in truth(daily)["clips"]:
        of_clip = gates[clip["item_id"]]
        assert sum(of_clip.values()) <= 1 + 1e-3
        for sense, modality in reached.items():
            assert (of_clip[modality] > 0) == (clip["lacks"] != sense), (clip, modality)
    assert gates["not-a-video"]["visual"] == 0
    assert gates["not-a-video"]["text"] > 0


def test_gates_of_groups_are_means_over_the_items_that_have_the_modality(daily):
    context = Context(daily.settings, "first", "report", daily.lakehouse.spark, daily.lakehouse, None, Progress())
    found = report_content.gates(Tables(context)).set_index(["by", "group", "modality"])
    gates = pd.DataFrame(daily.rows(tables.ITEM_EMBEDDINGS).set_index("item_id")["gates"].map(dict).to_dict()).T
    for modality in gates:
        mean = gates.loc[gates[modality] > 0, modality].mean()
        assert found.loc[("", "all items", modality), "gate"] == pytest.approx(mean)
    assert found.loc[("", "all items", "text"), "items"] == 15
    silent = [clip["item_id"] for clip in truth(daily)["clips"] if clip["lacks"] == "sound"]
    for group in (("kind of media", "video without sound"), ("what is missing", "audio")):
        assert found.loc[(*group, "text"), "items"] == len(silent)
        assert np.isnan(found.loc[(*group, "audio"), "gate"])
        assert found.loc[(*group, "text"), "gate"] == pytest.approx(gates.loc[silent, "text"].mean())


def test_one_mlflow_run_a_pipeline_run_with_a_child_a_job(daily):
    client, experiment = daily.tracking.client, daily.tracking.experiment_id
    runs = client.search_runs([experiment], "tags.`avrec.run_id` = 'first'")
    jobs = {run.data.tags["avrec.job"]: run for run in runs}
    assert set(jobs) == {"pipeline", *runner.JOBS}
    parent = jobs.pop("pipeline")
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *jobs.values())} == {"FINISHED"}
    assert jobs["snapshot"].data.tags["input.table.silver.interactions"] == "0"
    assert jobs["train"].data.tags["code_version"]
    assert jobs["train"].data.params["train.workers"] == "2"
    losses = client.get_metric_history(jobs["train"].info.run_id, "fusion/loss")
    assert [metric.step for metric in losses] == [1, 2, 3]
    assert "validation.ease.ndcg_at_3" in jobs["evaluate"].data.metrics


def test_the_champion_answers_through_mlflow_with_its_signature(daily):
    champion = daily.tracking.champion(daily.settings.promote.registered_model)
    assert champion is not None
    model = mlflow.pyfunc.load_model(champion.source)
    assert [column.name for column in model.metadata.get_input_schema()] == ["user_id", "history", "tags"]
    user = daily.rows(tables.RECOMMENDATIONS)["user_id"].iloc[0]
    newcomer = model.predict(pd.DataFrame({"user_id": ["new"], "tags": [["landscape"]]}), params={"k": 2})
    assert newcomer["user_id"].tolist() == ["new", "new"]
    answer = model.predict(pd.DataFrame({"user_id": [user]}), params={"k": 2})
    assert answer["rank"].tolist() == [1, 2]
    assert float(champion.tags["avrec.validation"]) >= float(champion.tags["avrec.reference"])


def test_the_report_is_one_page_with_every_section_and_nothing_from_outside(daily):
    page = Path(daily.lakehouse.path("reports", "first", "index.html")).read_text()
    assert (
        "has the best ndcg@3 on test" in Path(daily.lakehouse.path("reports", "first", "comparison.html")).read_text()
    )
    for section in ("intake", "catalogue", "features", "training", "metrics", "users", "neighbours", "provenance"):
        assert f'<section id="{section}">' in page
    events = daily.rows(tables.INTERACTIONS)["event_type"]
    acts, shown = (events != "impression").sum(), (events == "impression").sum()
    assert f"<b>{acts:,}</b> became interactions" in page and f"<b>{shown:,}</b> say what users were shown" in page
    assert 'src="http' not in page and 'href="http' not in page
    assert "champion" in page
    assert page.count("data:image/jpeg;base64,") >= 12
