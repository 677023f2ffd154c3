"""What the platform understands of the items: gates, the map of their vectors, labels, the worth of each modality."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.pipelines import ablation, vectors
from avrec_spark.pipelines.neighbours import FUSED
from avrec_spark.pipelines.report_clips import Clips, Section, Tables
from avrec_spark.report.data import REVIEW_PAGE, Ablation, Clip, ItemMap, Labels, Point, Tagged
from avrec_spark.report.projection import on_a_plane

_GROUPS = 8
_TAGGED = 8
_COLOURED = 5
_MAX_FIGURES = 10_000
# Of the thumbnails that hover over the map: a page holds hundreds of them.
_SMALL_WIDTH, _SMALL_QUALITY = 112, 70
_BY, _GROUP, _N = "by", "group", "items"


# -- gates -------------------------------------------------------------------------------------------------------------


def gates(of: Tables) -> pd.DataFrame:
    """by, group, items, modality, gate: means over the items of a group that have the modality.

    Groups are of all items, of a kind of media, of what is missing, and of a tag; the largest of each.
    """
    embeddings = _fused(of).where(F.col(c.GATES).isNotNull())
    first = embeddings.select(F.map_keys(c.GATES)).first()
    modalities = sorted(first[0]) if first is not None else []
    if not modalities:
        return pd.DataFrame(columns=[_BY, _GROUP, _N, c.MODALITY, "gate"])
    heard = {name: F.col(c.GATES).getItem(name) for name in modalities}
    means = [F.avg(F.when(gate > 0, gate)).alias(name) for name, gate in heard.items()]
    grouped = _groups(of, embeddings, modalities).join(embeddings, c.ITEM_ID).groupBy(_BY, _GROUP)
    place = f"row_number() OVER (PARTITION BY {_BY} ORDER BY {_N} DESC, `{_GROUP}`)"
    largest = grouped.agg(F.count("*").alias(_N), *means).withColumn("place", F.expr(place))
    frame = largest.where(F.col("place") <= _GROUPS).orderBy(_BY, "place").drop("place").toPandas()
    return frame.melt([_BY, _GROUP, _N], modalities, c.MODALITY, "gate")


def _groups(of: Tables, embeddings: DataFrame, modalities: list[str]) -> DataFrame:
    """item_id, by, group: an item is in several groups."""
    lacking = [F.when(F.coalesce(F.col(c.GATES).getItem(name), F.lit(0.0)) <= 0, F.lit(name)) for name in modalities]
    missing = F.concat_ws(", ", *lacking)
    video, audio = F.col("video_codec").isNotNull(), F.col("audio_codec").isNotNull()
    kind = (
        F.when(video & audio, "video with sound")
        .when(video, "video without sound")
        .when(audio, "sound alone")
        .otherwise("no media")
    )
    items, media = embeddings.select(c.ITEM_ID, c.GATES), of.rows(tables.MEDIA)
    media = items.join(media.select(c.ITEM_ID, "video_codec", "audio_codec"), c.ITEM_ID, "left")
    tags = of.rows(tables.ITEMS).select(c.ITEM_ID, F.explode(c.TAGS).alias(_GROUP))
    parts = {
        "": items.select(c.ITEM_ID, F.lit("all items").alias(_GROUP)),
        "kind of media": media.select(c.ITEM_ID, kind.alias(_GROUP)),
        "what is missing": items.select(c.ITEM_ID, F.when(missing == "", "nothing").otherwise(missing).alias(_GROUP)),
        "tag": tags,
    }
    first, *others = [part.withColumn(_BY, F.lit(by)) for by, part in parts.items()]
    for part in others:
        first = first.unionByName(part)
    return first


def _fused(of: Tables) -> DataFrame:
    """The item vectors of the run's fusion model."""
    return of.rows(tables.ITEM_EMBEDDINGS).where(F.col(c.MODEL_VERSION) == of.context.run_id)


# -- the map -----------------------------------------------------------------------------------------------------------


def item_map(of: Tables, count: int) -> Section[ItemMap | None]:
    """`count` items at most, drawn by a hash of their ids: t-SNE and the page stay quick whatever the catalogue."""
    kind, placed = _vectors(of)
    total = placed.count() if kind else 0
    if not total or not count:
        return Section.of(lambda known: None)
    drawn = placed.orderBy(F.xxhash64(c.ITEM_ID)).limit(count)
    about = drawn.join(of.rows(tables.ITEMS).select(c.ITEM_ID, c.TAGS), c.ITEM_ID, "left")
    rows = about.join(of.touched(), c.ITEM_ID, "left").orderBy(F.xxhash64(c.ITEM_ID)).collect()
    places = on_a_plane(np.array([row[c.VECTOR] for row in rows], np.float32))
    groups = _telling_tags(rows)

    def build(known: Clips) -> ItemMap:
        points = [
            Point(_small(known[row[c.ITEM_ID]]), float(x), float(y), group, row["users"] is not None)
            for row, (x, y), group in zip(rows, places, groups, strict=True)
        ]
        return ItemMap(kind, total, points)

    return Section.of(build, (row[c.ITEM_ID] for row in rows))


def _vectors(of: Tables) -> tuple[str, DataFrame]:
    """Those of the run's fusion model, else of the modality that most items have; the kind is empty without any."""
    fused = _fused(of).select(c.ITEM_ID, c.VECTOR)
    if fused.take(1):
        return FUSED, fused
    features = vectors.in_use(of.context)
    most = features.groupBy(c.MODALITY).count().orderBy(F.desc("count"), c.MODALITY).first()
    kind = most[0] if most is not None else ""
    return kind, features.where(F.col(c.MODALITY) == kind).select(c.ITEM_ID, c.VECTOR)


def _telling_tags(rows: list[Row]) -> list[str]:
    """Of each item the rarest of the most frequent tags that not every item has; empty where it has none of them."""
    counts = pd.Series([tag for row in rows for tag in row[c.TAGS] or ()], dtype=object).value_counts()
    chosen = list(counts[counts < sum(bool(row[c.TAGS]) for row in rows)].index[:_COLOURED])
    return [next((tag for tag in reversed(chosen) if tag in (row[c.TAGS] or ())), "") for row in rows]


def _small(clip: Clip) -> Clip:
    """The clip with a smaller thumbnail; without one where it is no picture."""
    if clip.thumbnail is None:
        return clip
    picture = cv2.imdecode(np.frombuffer(clip.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return replace(clip, thumbnail=None)
    height = max(1, round(picture.shape[0] * _SMALL_WIDTH / picture.shape[1]))
    small = cv2.resize(picture, (_SMALL_WIDTH, height), interpolation=cv2.INTER_AREA)
    return replace(clip, thumbnail=cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _SMALL_QUALITY])[1].tobytes())


# -- labels ------------------------------------------------------------------------------------------------------------


def labels(of: Tables) -> Section[Labels]:
    """What the labels job of the run has left, and some items with the surest predicted tags."""
    review = of.context.lakehouse.is_file("reports", of.context.run_id, REVIEW_PAGE)
    if not review:
        return Section.of(lambda known: Labels())
    bins = of.of_run(tables.RELIABILITY).orderBy(c.KIND, c.LOW).limit(_MAX_FIGURES).toPandas()
    figures = of.of_run(tables.METRICS).where(F.col(c.SPLIT).startswith("labels-")).limit(_MAX_FIGURES).toPandas()
    predicted = of.rows(tables.ITEMS).where(F.size(c.PREDICTED_TAGS) > 0)
    surest = F.col(c.PREDICTED_TAGS)[0]["confidence"]
    rows = predicted.orderBy(surest.desc(), F.xxhash64(c.ITEM_ID)).limit(_TAGGED).collect()
    count = predicted.count()

    def build(known: Clips) -> Labels:
        return Labels(
            chosen=str(bins[c.MODEL].iloc[0]) if len(bins) else "",
            quality=figures.assign(**{c.SPLIT: figures[c.SPLIT].str.removeprefix("labels-")}),
            reliability=bins,
            tagged=[
                Tagged(known[row[c.ITEM_ID]], row[c.TAGS] or (), [(tag, sure) for tag, sure in row[c.PREDICTED_TAGS]])
                for row in rows
            ],
            tagged_items=count,
            review=REVIEW_PAGE,
        )

    return Section.of(build, (row[c.ITEM_ID] for row in rows))


# -- ablation ----------------------------------------------------------------------------------------------------------


def latest_ablation(of: Tables) -> Ablation:
    """That of the run, or else of the latest run that has measured it."""
    done = of.rows(tables.JOB_RUNS).where((F.col(c.JOB) == ablation.JOB.name) & (F.col(c.STATUS) == "done"))
    measured = done.where(F.col("counts")["fits"] > 0)
    mine = (F.col(c.RUN_ID) == of.context.run_id).desc()
    found = measured.orderBy(mine, F.col(c.RECORDED_AT).desc()).select(c.RUN_ID).first()
    if found is None:
        return Ablation()
    its = (F.col(c.RUN_ID) == found[0]) & (F.col(c.SPLIT) == ablation.SPLIT)
    metrics, comparisons = (
        of.rows(table).where(its).limit(_MAX_FIGURES).toPandas() for table in (tables.METRICS, tables.COMPARISONS)
    )
    return Ablation(found[0], metrics, comparisons)
