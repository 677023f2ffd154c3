"""report: what the tables say of a run → its report and the comparison of its models in <root>/reports/<run_id>/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import TEST, VALIDATION
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.provenance import code_version
from avrec_spark.recommend.reasons import POPULAR
from avrec_spark.report import comparison
from avrec_spark.report.data import REVIEW_PAGE, Clip, ReportData, Shown, UserStory
from avrec_spark.report.page import render

_SHOWN_ITEMS = 6
_SHOWN_NEIGHBOURS = 4
_MAX_GROUPS = 50
_MAX_FIGURES = 50_000
_EXAMPLE = "example"
_ITEMS = "items"


def run(context: Context) -> Counts:
    data = _Collector(context).collect()
    pages = {"index.html": render(data)}
    if data.comparison:
        title = f"Run {data.run_id}"
        pages[data.comparison] = comparison.render(title, data.metrics, data.comparisons, home="index.html")
    paths = {name: context.lakehouse.write_text(page, "reports", context.run_id, name) for name, page in pages.items()}
    context.note(f"report: {paths['index.html']}")
    return {"bytes": sum(len(page.encode()) for page in pages.values())}


class _Collector:
    """Reads what one page shows; every query is bounded."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.settings = context.settings.report
        self.lakehouse = context.lakehouse
        self.clips: dict[Any, Clip] = {}

    def collect(self) -> ReportData:
        stories, neighbours = self._story_rows(), self._neighbour_rows()
        catalogue = self._catalogue()
        wanted = set(catalogue) | {row[c.ITEM_ID] for rows in stories.values() for part in rows for row in part}
        wanted |= {row[name] for row in neighbours for name in (c.ITEM_ID, c.NEIGHBOUR_ID)}
        self.clips = self._clips(wanted)
        jobs, metrics = self._jobs(), self._metrics()
        media = self._grouped(tables.MEDIA, c.STATUS)
        return ReportData(
            run_id=self.context.run_id,
            started=jobs[c.RECORDED_AT].min() if len(jobs) else None,
            finished=jobs[c.RECORDED_AT].max() if len(jobs) else None,
            code_version="{code_version} · {code_commit}".format(**code_version()),
            jobs=jobs,
            quarantine=self._quarantine(),
            items=self._current_items().count(),
            media_seconds=self._sum(tables.MEDIA, c.DURATION),
            media_statuses=media,
            events_in=self._count(tables.EVENTS),
            interactions=self._count(tables.INTERACTIONS),
            users=self._distinct(tables.INTERACTIONS, c.USER_ID),
            contact_sheet=[self.clips[item] for item in catalogue if item in self.clips],
            coverage=self._coverage(),
            curves=self._curves(),
            metrics=metrics,
            comparisons=self._of_run(tables.COMPARISONS).limit(_MAX_FIGURES).toPandas(),
            comparison="comparison.html" if len(metrics) else None,
            review=REVIEW_PAGE if self.lakehouse.is_file("reports", self.context.run_id, REVIEW_PAGE) else None,
            champion=self._champion(),
            gates=self._gates(),
            stories=[self._story(user, *rows) for user, rows in stories.items()],
            neighbours=self._neighbours(neighbours),
            lineage=self._lineage(),
        )

    # -- figures -----------------------------------------------------------------------------------------------------

    def _rows(self, table: tables.Table) -> DataFrame:
        return self.lakehouse.read_or_empty(table)

    def _of_run(self, table: tables.Table) -> DataFrame:
        return self._rows(table).where(F.col(c.RUN_ID) == self.context.run_id)

    def _count(self, table: tables.Table) -> int:
        return self._rows(table).count()

    def _sum(self, table: tables.Table, column: str) -> float:
        row = self._rows(table).agg(F.sum(column)).first()
        return float(row[0]) if row is not None and row[0] is not None else 0.0

    def _distinct(self, table: tables.Table, column: str) -> int:
        return self._rows(table).select(column).distinct().count()

    def _grouped(self, table: tables.Table, column: str) -> dict[str, int]:
        rows = self._rows(table).groupBy(column).count().orderBy(F.desc("count")).limit(_MAX_GROUPS).collect()
        return {row[0]: row[1] for row in rows}

    def _jobs(self) -> pd.DataFrame:
        rows = self._of_run(tables.JOB_RUNS).orderBy(c.RECORDED_AT).limit(_MAX_GROUPS)
        return rows.select(c.JOB, "seconds", "counts", c.RECORDED_AT).toPandas()

    def _quarantine(self) -> pd.DataFrame:
        grouped = self._of_run(tables.QUARANTINE).groupBy(c.SOURCE, c.REASON)
        counted = grouped.agg(
            F.first(c.DETAIL).alias(c.DETAIL), F.count("*").alias("count"), F.min(c.ORIGINAL).alias(_EXAMPLE)
        )
        rows = counted.orderBy(c.SOURCE, F.desc("count")).limit(_MAX_GROUPS).toPandas()
        # Sources are paths; their last part is what people call them.
        return rows.assign(**{c.SOURCE: rows[c.SOURCE].str.rstrip("/").str.rsplit("/", n=1).str[-1]})

    def _coverage(self) -> pd.DataFrame:
        total = max(self._current_items().count(), 1)
        present = F.sum(F.col(c.VECTOR).isNotNull().cast("int"))
        features = self._rows(tables.ITEM_FEATURES).join(
            self._current_items().select(c.ITEM_ID), c.ITEM_ID, "left_semi"
        )
        rows = features.groupBy(c.MODALITY, c.ENCODER, c.ENCODER_VERSION, c.DIMENSION).agg(present.alias("items"))
        frame = rows.orderBy(c.MODALITY, c.ENCODER).limit(_MAX_GROUPS).toPandas()
        return frame.assign(share=frame["items"] / total)

    def _curves(self) -> pd.DataFrame:
        mlflow_id = self.context.tracking.job_run_id(self.context.run_id, "train")
        history = self.context.tracking.history(mlflow_id) if mlflow_id else []
        rows = [(*name.split("/", 1), epoch, value) for name, epoch, value in history]
        return pd.DataFrame(rows, columns=["model", "metric", "epoch", "value"])

    def _metrics(self) -> pd.DataFrame:
        """Those of recommenders; the labels job has a page of its own."""
        rows = self._of_run(tables.METRICS).where(F.col(c.SPLIT).isin(VALIDATION, TEST))
        return rows.limit(_MAX_FIGURES).toPandas()

    def _champion(self) -> Mapping[str, Any] | None:
        champion = self.context.tracking.champion(self.context.settings.promote.registered_model)
        if champion is None:
            return None
        tags = champion.tags
        mine = tags.get("avrec.run_id") == self.context.run_id
        return {
            "model": tags.get("avrec.model", "?"),
            "metric": tags.get("avrec.metric", ""),
            "value": float(tags.get("avrec.validation", 0)),
            "decision": (
                f"{tags.get('avrec.model')} is the champion (version {champion.version}, "
                + ("promoted by this run" if mine else f"promoted by run {tags.get('avrec.run_id')}")
                + f"): {float(tags.get('avrec.validation', 0)):.4f} {tags.get('avrec.metric')} on validation against "
                f"{float(tags.get('avrec.reference', 0)):.4f} of the popular list."
            ),
        }

    def _gates(self) -> dict[str, float]:
        rows = self._rows(tables.ITEM_EMBEDDINGS).where(F.col(c.MODEL_VERSION) == self.context.run_id)
        gates = rows.select(F.explode(c.GATES).alias(c.MODALITY, "gate")).where("gate > 0")
        found = gates.groupBy(c.MODALITY).agg(F.avg("gate")).orderBy(c.MODALITY).limit(_MAX_GROUPS).collect()
        return {row[0]: float(row[1]) for row in found}

    def _lineage(self) -> dict[str, int]:
        versions = {table.full_name: self.lakehouse.version(table) for table in JOB.reads}
        return {name: version for name, version in versions.items() if version is not None}

    # -- clips -------------------------------------------------------------------------------------------------------

    def _current_items(self) -> DataFrame:
        return self._rows(tables.CATALOG).where(F.col(c.STATUS) != tables.GONE)

    def _catalogue(self) -> list[Any]:
        """Ids of the items on the contact sheet: what went wrong first, then in an order that says nothing."""
        media = self._rows(tables.MEDIA).select(c.ITEM_ID, F.col(c.STATUS).alias("media_status"))
        rows = self._current_items().join(media, c.ITEM_ID, "left")
        order = [(F.col("media_status") == "ok").asc_nulls_first(), F.xxhash64(c.ITEM_ID)]
        return [
            row[0] for row in rows.orderBy(*order).select(c.ITEM_ID).limit(self.settings.contact_sheet_items).collect()
        ]

    def _clips(self, item_ids: set[Any]) -> dict[Any, Clip]:
        if not item_ids:
            return {}
        kind = "bigint" if all(isinstance(item, int) for item in item_ids) else "string"
        wanted = self.context.spark.createDataFrame([(item,) for item in item_ids], f"{c.ITEM_ID} {kind}")
        middle = F.expr(f"row_number() OVER (PARTITION BY {c.ITEM_ID} ORDER BY {c.END} - {c.START} DESC, {c.SHOT}) = 1")
        longest = self._rows(tables.SHOTS).withColumn("longest", middle).where("longest")
        media = self._rows(tables.MEDIA).select(c.ITEM_ID, c.DURATION, c.STATUS, c.REASON)
        rows = (
            F.broadcast(wanted)
            .join(self._rows(tables.ITEMS).select(c.ITEM_ID, c.TITLE), c.ITEM_ID, "left")
            .join(media, c.ITEM_ID, "left")
            .join(longest.select(c.ITEM_ID, c.THUMBNAIL), c.ITEM_ID, "left")
            .collect()
        )
        return {
            row[c.ITEM_ID]: Clip(
                item_id=str(row[c.ITEM_ID]),
                title=row[c.TITLE] or str(row[c.ITEM_ID]),
                thumbnail=bytes(row[c.THUMBNAIL]) if row[c.THUMBNAIL] is not None else None,
                duration=row[c.DURATION],
                status=row[c.STATUS] or "not decoded",
                reason=row[c.REASON],
            )
            for row in rows
        }

    # -- users -------------------------------------------------------------------------------------------------------

    def _story_rows(self) -> dict[Any, tuple[Sequence[Any], Sequence[Any]]]:
        """(history, recommendations) of some users: one of the fallback, the others at random but always the same."""
        lists = self._rows(tables.RECOMMENDATIONS)
        users = lists.groupBy(c.USER_ID).agg(F.max(F.array_contains(c.REASONS, POPULAR)).alias("fallback"))
        order = F.expr(f"row_number() OVER (PARTITION BY fallback ORDER BY xxhash64({c.USER_ID}))")
        ranked = users.withColumn("order", order)
        chosen = ranked.orderBy("fallback", "order").where("NOT fallback OR order = 1")
        warm = [row[0] for row in chosen.where("NOT fallback").limit(max(self.settings.users - 1, 0)).collect()]
        cold = [row[0] for row in chosen.where("fallback").limit(min(self.settings.users, 1)).collect()]
        mine = F.col(c.USER_ID).isin(warm + cold)
        history = _by_user(self._history(self._rows(tables.INTERACTIONS).where(mine & (F.col(c.WEIGHT) > 0))))
        recommended = _by_user(lists.where(mine & (F.col(c.RANK) <= _SHOWN_ITEMS)).orderBy(c.RANK))
        return {user: (history.get(user, []), recommended.get(user, [])) for user in warm + cold}

    def _history(self, interactions: DataFrame) -> DataFrame:
        """The latest items of each user, latest first, with what the user did, and of how many they are."""
        items = interactions.groupBy(c.USER_ID, c.ITEM_ID).agg(
            F.array_sort(F.collect_set(c.EVENT_TYPE)).alias(c.EVENT_TYPE), F.max(c.TIMESTAMP).alias(c.TIMESTAMP)
        )
        latest = f"row_number() OVER (PARTITION BY {c.USER_ID} ORDER BY {c.TIMESTAMP} DESC, {c.ITEM_ID})"
        counted = items.withColumns(
            {_ITEMS: F.expr(f"count(*) OVER (PARTITION BY {c.USER_ID})"), c.RANK: F.expr(latest)}
        )
        return counted.where(F.col(c.RANK) <= _SHOWN_ITEMS).orderBy(c.RANK)

    def _story(self, user: Any, history: Sequence[Any], recommended: Sequence[Any]) -> UserStory:
        return UserStory(
            user_id=str(user),
            history=[
                Shown(self.clips[row[c.ITEM_ID]], f"{', '.join(row[c.EVENT_TYPE])} · {row[c.TIMESTAMP]:%d %b %Y}")
                for row in history
            ],
            recommendations=[
                Shown(self.clips[row[c.ITEM_ID]], "; ".join(row[c.REASONS] or ()), row[c.SCORE]) for row in recommended
            ],
            fallback=any(POPULAR in (row[c.REASONS] or ()) for row in recommended),
            history_items=history[0][_ITEMS] if history else 0,
        )

    # -- neighbours --------------------------------------------------------------------------------------------------

    def _neighbour_rows(self) -> Sequence[Any]:
        rows = self._rows(tables.ITEM_NEIGHBOURS)
        kinds = rows.groupBy(c.ITEM_ID).agg(F.countDistinct(c.KIND).alias("kinds"))
        chosen = kinds.orderBy(F.desc("kinds"), F.xxhash64(c.ITEM_ID)).limit(_SHOWN_ITEMS).select(c.ITEM_ID)
        near = rows.where(F.col(c.RANK) <= _SHOWN_NEIGHBOURS).join(chosen, c.ITEM_ID, "left_semi")
        return near.orderBy(F.xxhash64(c.ITEM_ID), c.KIND, c.RANK).collect()

    def _neighbours(self, rows: Sequence[Any]) -> list[tuple[Clip, dict[str, list[Shown]]]]:
        found: dict[Any, dict[str, list[Shown]]] = {}
        for row in rows:
            shown = Shown(self.clips[row[c.NEIGHBOUR_ID]], score=row[c.SIMILARITY])
            found.setdefault(row[c.ITEM_ID], {}).setdefault(row[c.KIND], []).append(shown)
        return [(self.clips[item], kinds) for item, kinds in found.items()]


def _by_user(rows: DataFrame) -> dict[Any, list[Any]]:
    """Rows by their user, in their order. For frames that hold a few users and are bounded."""
    grouped: dict[Any, list[Any]] = {}
    for row in rows.collect():
        grouped.setdefault(row[c.USER_ID], []).append(row)
    return grouped


JOB = Job(
    name="report",
    run=run,
    sections=("report",),
    reads=(
        tables.CATALOG,
        tables.MEDIA,
        tables.SHOTS,
        tables.ITEM_FEATURES,
        tables.INTERACTIONS,
        tables.METRICS,
        tables.COMPARISONS,
        tables.ITEM_EMBEDDINGS,
        tables.RECOMMENDATIONS,
        tables.ITEM_NEIGHBOURS,
    ),
)
