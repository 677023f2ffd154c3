"""report: what the tables say of a run → its report and the comparison of its models in <root>/reports/<run_id>/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import TEST, VALIDATION
from avrec_spark.events.types import IMPRESSION
from avrec_spark.pipelines import report_clips, report_content, report_users
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.report_clips import Section, Tables
from avrec_spark.provenance import code_version
from avrec_spark.report import comparison
from avrec_spark.report.data import ReportData
from avrec_spark.report.page import render

_MAX_GROUPS = 50
_MAX_FIGURES = 50_000
_EXAMPLE = "example"


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
    """Reads what one page shows; every query is bounded, and the clips are fetched once for all sections."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.lakehouse = context.lakehouse
        self.tables = Tables(context)

    def collect(self) -> ReportData:
        settings, of = self.context.settings.report, self.tables
        contact_sheet = report_clips.contact_sheet(of, settings.contact_sheet_items)
        neighbours = report_clips.neighbours(of)
        stories = report_users.stories(of, settings.users)
        new_items = report_users.new_items(of)
        item_map = report_content.item_map(of, settings.map_items)
        labels = report_content.labels(of)
        sections: tuple[Section[Any], ...] = (contact_sheet, neighbours, stories, new_items, item_map, labels)
        clips = report_clips.clips(of, frozenset().union(*(section.wants for section in sections)))
        jobs, metrics = self._jobs(), self._metrics()
        events = self._grouped(tables.INTERACTIONS, c.EVENT_TYPE)
        return ReportData(
            run_id=self.context.run_id,
            started=jobs[c.RECORDED_AT].min() if len(jobs) else None,
            finished=jobs[c.RECORDED_AT].max() if len(jobs) else None,
            code_version="{code_version} · {code_commit}".format(**code_version()),
            jobs=jobs,
            quarantine=self._quarantine(),
            items=of.items().count(),
            media_seconds=self._sum(tables.MEDIA, c.DURATION),
            media_statuses=self._grouped(tables.MEDIA, c.STATUS),
            events_in=of.rows(tables.EVENTS).count(),
            acts=sum(events.values()) - events.get(IMPRESSION, 0),
            impressions=events.get(IMPRESSION, 0),
            users=of.rows(tables.INTERACTIONS).select(c.USER_ID).distinct().count(),
            contact_sheet=contact_sheet.build(clips),
            coverage=self._coverage(),
            curves=self._curves(),
            metrics=metrics,
            comparisons=of.of_run(tables.COMPARISONS).limit(_MAX_FIGURES).toPandas(),
            comparison="comparison.html" if len(metrics) else None,
            champion=self._champion(),
            gates=report_content.gates(of),
            labels=labels.build(clips),
            item_map=item_map.build(clips),
            ablation=report_content.latest_ablation(of),
            stories=stories.build(clips),
            new_items=new_items.build(clips),
            neighbours=neighbours.build(clips),
            lineage=self._lineage(),
        )

    def _sum(self, table: tables.Table, column: str) -> float:
        row = self.tables.rows(table).agg(F.sum(column)).first()
        return float(row[0]) if row is not None and row[0] is not None else 0.0

    def _grouped(self, table: tables.Table, column: str) -> dict[str, int]:
        rows = self.tables.rows(table).groupBy(column).count().orderBy(F.desc("count")).limit(_MAX_GROUPS).collect()
        return {row[0]: row[1] for row in rows}

    def _jobs(self) -> pd.DataFrame:
        rows = self.tables.of_run(tables.JOB_RUNS).orderBy(c.RECORDED_AT).limit(_MAX_GROUPS)
        return rows.select(c.JOB, "seconds", "counts", c.RECORDED_AT).toPandas()

    def _quarantine(self) -> pd.DataFrame:
        grouped = self.tables.of_run(tables.QUARANTINE).groupBy(c.SOURCE, c.REASON)
        counted = grouped.agg(
            F.first(c.DETAIL).alias(c.DETAIL), F.count("*").alias("count"), F.min(c.ORIGINAL).alias(_EXAMPLE)
        )
        rows = counted.orderBy(c.SOURCE, F.desc("count")).limit(_MAX_GROUPS).toPandas()
        # Sources are paths; their last part is what people call them.
        return rows.assign(**{c.SOURCE: rows[c.SOURCE].str.rstrip("/").str.rsplit("/", n=1).str[-1]})

    def _coverage(self) -> pd.DataFrame:
        total = max(self.tables.items().count(), 1)
        present = F.sum(F.col(c.VECTOR).isNotNull().cast("int"))
        features = self.tables.rows(tables.ITEM_FEATURES).join(
            self.tables.items().select(c.ITEM_ID), c.ITEM_ID, "left_semi"
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
        rows = self.tables.of_run(tables.METRICS).where(F.col(c.SPLIT).isin(VALIDATION, TEST))
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

    def _lineage(self) -> dict[str, int]:
        versions = {table.full_name: self.lakehouse.version(table) for table in JOB.reads}
        return {name: version for name, version in versions.items() if version is not None}


JOB = Job(
    name="report",
    run=run,
    # Those of features say which vectors are in use.
    sections=("report", "features"),
    reads=(
        tables.CATALOG,
        tables.MEDIA,
        tables.SHOTS,
        tables.ITEM_FEATURES,
        tables.INTERACTIONS,
        tables.METRICS,
        tables.COMPARISONS,
        tables.RELIABILITY,
        tables.ITEM_EMBEDDINGS,
        tables.RECOMMENDATIONS,
        tables.ITEM_NEIGHBOURS,
    ),
)
