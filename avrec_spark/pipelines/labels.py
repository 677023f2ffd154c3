"""labels: declared tags and people's decisions → predicted tags in silver.items, and a list of what to review.

Classifiers learn the tags of enough items from the vectors of all modalities but text, which read the declared tags,
and from the words themselves. Predictions stand apart from the declared tags, and a person's decision stands over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Row
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.encoders import registry
from avrec_spark.labels import review
from avrec_spark.labels.learning import Learnt, learn
from avrec_spark.labels.review import Question
from avrec_spark.labels.truth import known_labels, parts
from avrec_spark.labels.words import word_vectors
from avrec_spark.pipelines import sources, texts, vectors
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.report.data import REVIEW_PAGE, Clip

_WORDS = "words"
_BROKEN = "broken"
# (position of the item, label): whether it has it.
Decisions = dict[tuple[int, str], bool]
Predictions = list[list[tuple[str, float]]]


def run(context: Context) -> Counts:
    settings = context.settings.labels
    items = _items(context)
    read, refused = _take_corrections(context, items)
    counts = {"rows_in": len(items) + read, "rows_out": len(items) + read - refused, "quarantined": refused}
    decisions = _decisions(context, items)
    names, known = known_labels([item[c.TAGS] for item in items], [(*key, yes) for key, yes in decisions.items()])
    features = _features(context, items) if names else {}
    if not features:
        lacks = "a vector or any words" if names else "a tag, declared or decided"
        context.note(f"no item has {lacks}, so that there is nothing to learn")
        return counts
    learnt = learn(
        names,
        known,
        parts(pd.Series([item[c.ITEM_ID] for item in items]), settings.seed),
        features,
        at_least=settings.min_positives,
        method=settings.calibration,
        seed=settings.seed,
    )
    _tell(context, learnt)
    predictions = _predictions(items, names, learnt, decisions, settings.confidence)
    _write_predictions(context, items, predictions)
    _write_quality(context, learnt)
    asked = _write_review(context, items, [names[label] for label in learnt.labels], learnt, decisions)
    return counts | {
        "labels_learnt": len(learnt.labels),
        "labels_left_out": len(learnt.left_out),
        "items_tagged": sum(map(bool, predictions)),
        "items_without_features": int(np.isnan(learnt.confidence).all(axis=1).sum()) if len(learnt.labels) else 0,
        "decisions": len(decisions),
        "questions": asked,
    }


def _items(context: Context) -> list[Row]:
    """Every item in the order of its id. The driver holds them, and their vectors, as it does for neighbours."""
    items = context.lakehouse.read(tables.ITEMS)
    if c.PREDICTED_TAGS not in items.columns:  # written by an earlier version
        items = items.withColumn(c.PREDICTED_TAGS, F.lit(None))
    media = context.lakehouse.read_or_empty(tables.MEDIA)
    broken = media.where(~F.col(c.STATUS).isin(*tables.USABLE)).select(c.ITEM_ID, F.lit(True).alias(_BROKEN))
    catalog = context.lakehouse.read(tables.CATALOG).select(c.ITEM_ID, c.URI, c.STATUS)
    items = items.select(c.ITEM_ID, c.TITLE, c.TAGS, c.PREDICTED_TAGS)
    return items.join(catalog, c.ITEM_ID, "left").join(broken, c.ITEM_ID, "left").orderBy(c.ITEM_ID).collect()


# -- decisions ---------------------------------------------------------------------------------------------------------


def _take_corrections(context: Context, items: Sequence[Row]) -> tuple[int, int]:
    """Merge the filled-in lists into silver.decisions; returns how many rows they have, and how many are refused."""
    ids = {str(item[c.ITEM_ID]): item[c.ITEM_ID] for item in items}
    found = [(path, *review.read_decisions(path, ids)) for path in context.settings.labels.corrections]
    if not found:
        return 0, 0
    good = pd.concat([decided for _, decided, _, _ in found])
    good = good.drop_duplicates([c.ITEM_ID, c.LABEL], keep="last")
    if len(good):
        kind = "bigint" if isinstance(items[0][c.ITEM_ID], int) else "string"
        rows = [(ids[item], label, bool(yes), context.run_id) for item, label, yes in good.itertuples(index=False)]
        schema = f"{c.ITEM_ID} {kind}, {c.LABEL} string, {c.DECISION} boolean, {c.RUN_ID} string"
        frame = context.spark.createDataFrame(rows, schema).withColumn(c.RECORDED_AT, F.current_timestamp())
        context.lakehouse.merge(tables.DECISIONS, frame, if_differs=c.DECISION)
    wrong = [(path, *row, False) for path, _, refused, _ in found for row in refused.itertuples(index=False)]
    columns = (c.SOURCE, c.KEY, c.REASON, c.DETAIL, c.ORIGINAL)
    schema = ", ".join(f"{name} string" for name in columns) + f", {c.RETRYABLE} boolean"
    return sum(rows for *_, rows in found), context.quarantine(context.spark.createDataFrame(wrong, schema))


def _decisions(context: Context, items: Sequence[Row]) -> Decisions:
    position = {item[c.ITEM_ID]: number for number, item in enumerate(items)}
    rows = context.lakehouse.read_or_empty(tables.DECISIONS).select(c.ITEM_ID, c.LABEL, c.DECISION).collect()
    return {(position[item], label): yes for item, label, yes in rows if item in position}


# -- features ----------------------------------------------------------------------------------------------------------


def _features(context: Context, items: Sequence[Row]) -> dict[str, FeatureMatrix]:
    """Vectors by modality; one that no item has is left out."""
    ids = pd.Index([item[c.ITEM_ID] for item in items])
    reads_tags = [one.modality for one in registry.in_use(context.settings.features) if one.reads == texts.TEXT]
    rows = vectors.in_use(context).where(~F.col(c.MODALITY).isin(reads_tags))
    frame = rows.select(c.ITEM_ID, c.MODALITY, c.VECTOR).toPandas()
    frame["position"] = ids.get_indexer(frame[c.ITEM_ID])
    features = {
        str(modality): FeatureMatrix.of(str(modality), found["position"].to_numpy(), found[c.VECTOR], len(ids))
        for modality, found in frame[frame["position"] >= 0].groupby(c.MODALITY)
    }
    said = texts.words(context, tags=False).toPandas().set_index(c.ITEM_ID)[texts.WORDS].reindex(ids)
    words = word_vectors(said.fillna("").tolist(), context.settings.labels.seed)
    return features | ({_WORDS: words} if words is not None else {})


# -- results -----------------------------------------------------------------------------------------------------------


def _tell(context: Context, learnt: Learnt) -> None:
    context.facts["labels_left_out"] = dict(learnt.left_out)
    for label, reason in list(learnt.left_out.items())[:1]:
        others = f"; {len(learnt.left_out) - 1} more are in the manifest" if len(learnt.left_out) > 1 else ""
        context.note(f"not learnt: {label}, which {reason}{others}")
    if learnt.chosen:
        test = learnt.quality[(learnt.quality[c.MODEL] == learnt.chosen) & (learnt.quality[c.SPLIT] == "test")]
        figures = ", ".join(f"{row[c.METRIC]} {row[c.MEAN]:.3f}" for _, row in test.iterrows())
        context.note(f"{len(learnt.labels)} labels learnt by {learnt.chosen}; on test {figures}")


def _predictions(
    items: Sequence[Row], names: Sequence[str], learnt: Learnt, decisions: Decisions, at_least: float
) -> Predictions:
    """The tags of each item beside its declared ones, surest first: a person's yes with confidence 1, and what is
    predicted where no person has said no.
    """
    found: list[dict[str, float]] = [{} for _ in items]
    for item, label in np.argwhere(np.nan_to_num(learnt.confidence) >= at_least):
        found[item][names[learnt.labels[label]]] = round(float(learnt.confidence[item, label]), 4)
    for (item, label), yes in decisions.items():
        if yes:
            found[item][label] = 1.0
        else:
            found[item].pop(label, None)
    declared = [set(item[c.TAGS] or ()) for item in items]
    return [
        sorted(((tag, sure) for tag, sure in one.items() if tag not in known), key=lambda pair: (-pair[1], pair[0]))
        for one, known in zip(found, declared, strict=True)
    ]


def _write_predictions(context: Context, items: Sequence[Row], predictions: Predictions) -> None:
    """silver.items again, where any prediction has changed: jobs that read it have nothing new to do otherwise."""
    before = [[(tag, sure) for tag, sure in item[c.PREDICTED_TAGS] or ()] for item in items]
    if before == predictions:
        return
    table = context.lakehouse.read(tables.ITEMS).drop(c.PREDICTED_TAGS)
    rows = [(item[c.ITEM_ID], tags or None) for item, tags in zip(items, predictions, strict=True)]
    kinds = {c.ITEM_ID: dict(table.dtypes)[c.ITEM_ID], c.PREDICTED_TAGS: tables.ITEMS.columns[c.PREDICTED_TAGS]}
    frame = context.spark.createDataFrame(rows, ", ".join(f"{name} {kind}" for name, kind in kinds.items()))
    context.lakehouse.replace(tables.ITEMS, table.join(frame, c.ITEM_ID, "left"))


def _write_quality(context: Context, learnt: Learnt) -> None:
    """ops.metrics, under splits of their own: these are no figures of recommenders."""
    rows = [
        (context.run_id, row[c.MODEL], f"labels-{row[c.SPLIT]}", row[c.METRIC], float(row[c.MEAN]), None, None)
        for row in learnt.quality.dropna().to_dict("records")
    ]
    if rows:
        columns = ", ".join(f"{name} {kind}" for name, kind in tables.METRICS.columns.items())
        context.lakehouse.merge(tables.METRICS, context.spark.createDataFrame(rows, columns))
    logged = {f"{split}.{model}.{metric}": mean for _, model, split, metric, mean, _, _ in rows}
    context.tracking.log_metrics(context.mlflow_id, logged)
    _write_reliability(context, learnt)


def _write_reliability(context: Context, learnt: Learnt) -> None:
    frames = [table.assign(**{c.KIND: kind}) for kind, table in learnt.reliability.items()]
    if frames:
        rows = pd.concat(frames).assign(**{c.RUN_ID: context.run_id, c.MODEL: learnt.chosen})
        kinds = ", ".join(f"{name} {kind}" for name, kind in tables.RELIABILITY.columns.items())
        frame = context.spark.createDataFrame(rows[list(tables.RELIABILITY.columns)], kinds)
        context.lakehouse.merge(tables.RELIABILITY, frame)


def _write_review(
    context: Context, items: Sequence[Row], labels: Sequence[str], learnt: Learnt, decisions: Decisions
) -> int:
    """reports/RUN/review.csv and review.html; returns the number of questions, one a pair of item and label.

    Nobody is asked what is declared or decided, nor about items that cannot be looked at: gone, missing or broken.
    """
    confidence, column = learnt.confidence, {label: number for number, label in enumerate(labels)}
    unanswered = ~np.isnan(confidence)
    declared = [(row, tag) for row, item in enumerate(items) for tag in item[c.TAGS] or ()]
    for row, label in [*declared, *decisions]:
        if label in column:
            unanswered[row, column[label]] = False
    unanswered[[item[c.STATUS] != tables.PRESENT or bool(item[_BROKEN]) for item in items]] = False
    chosen = review.most_informative(np.nan_to_num(confidence), unanswered, context.settings.labels.review_items)
    thumbnails = _thumbnails(context, [items[row][c.ITEM_ID] for row, _ in chosen])
    questions = []
    for row, uncertain in chosen:
        item = items[row]
        clip = Clip(str(item[c.ITEM_ID]), item[c.TITLE], thumbnails.get(item[c.ITEM_ID]))
        asked = [(labels[label], float(confidence[row, label])) for label in uncertain]
        questions.append(Question(clip, item[c.URI] or "", asked))
    page = review.render(context.run_id, questions, learnt.quality, learnt.chosen, learnt.reliability, learnt.left_out)
    context.lakehouse.write_text(review.to_csv(questions), "reports", context.run_id, "review.csv")
    path = context.lakehouse.write_text(page, "reports", context.run_id, REVIEW_PAGE)
    context.note(f"review list: {path}")
    return sum(len(question.labels) for question in questions)


def _thumbnails(context: Context, ids: Sequence[Any]) -> Mapping[Any, bytes]:
    """Of each item that of its longest shot."""
    if not ids:
        return {}
    wanted = context.spark.createDataFrame([(one,) for one in ids], [c.ITEM_ID])
    shots = context.lakehouse.read_or_empty(tables.SHOTS).where(F.col(c.THUMBNAIL).isNotNull())
    longest = F.max_by(c.THUMBNAIL, F.struct(F.col(c.END) - F.col(c.START), -F.col(c.SHOT))).alias(c.THUMBNAIL)
    rows = shots.join(F.broadcast(wanted), c.ITEM_ID, "left_semi").groupBy(c.ITEM_ID).agg(longest).collect()
    return {row[c.ITEM_ID]: bytes(row[c.THUMBNAIL]) for row in rows}


def _check(settings: config.Settings) -> None:
    for path in settings.labels.corrections:
        sources.require("labels.corrections", path)


JOB = Job(
    name="labels",
    run=run,
    sections=("labels", "features"),
    # Not silver.items, which the job writes: what it reads of it is made of bronze.catalog.
    reads=(tables.CATALOG, tables.MEDIA, tables.TRANSCRIPTS, tables.ITEM_FEATURES, tables.SHOTS),
    sources=lambda settings: {
        f"corrections.{number}": sources.fingerprint(path) for number, path in enumerate(settings.labels.corrections)
    },
    check=_check,
)
