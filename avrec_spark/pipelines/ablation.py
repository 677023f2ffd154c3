"""ablation: what each modality is worth to the fusion model → ops.metrics and ops.comparisons, split `ablation`.

On request: fusion is fitted with all modalities, with each left out, and with each alone, all with the same settings
and seed. The figures are of validation, because they tell which modalities to keep; test is only for reporting. Each
fit is a Spark task, which reads the snapshot for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.dataset.splits import VALIDATION
from avrec_spark.describe import one_thread
from avrec_spark.evaluation import executors
from avrec_spark.evaluation.metrics import PER_USER, parts
from avrec_spark.evaluation.part import Part
from avrec_spark.evaluation.segments import COLD_ITEMS
from avrec_spark.evaluation.significance import compare_frames
from avrec_spark.models import registry
from avrec_spark.pipelines import snapshots
from avrec_spark.pipelines.job import Context, Counts, Job

SPLIT = "ablation"
ALL = "all modalities"
_MODEL = "fusion"


def run(context: Context) -> Counts:
    snapshot = snapshots.latest(context.lakehouse, context.run_id)
    settings = context.settings.train
    parameters = {"seed": settings.seed} | settings.parameters.get(_MODEL, {})
    modalities = [name for name in _modalities(snapshot["path"]) if name != parameters.get("labels")]
    if len(modalities) < 2 or not snapshot["rows"].get(VALIDATION):
        context.note(f"nothing to leave out: {len(modalities)} modalities, {snapshot['rows'].get(VALIDATION, 0)} pairs")
        return {"fits": 0}
    fits = variants(modalities)
    measure = _Measure(snapshot["path"], parameters, _metric(context.settings.promote.metric))
    tasks = context.spark.sparkContext.parallelize(list(fits.items()), len(fits))
    users = dict(tasks.map(lambda fit: (fit[0], measure(fit[1]))).collect())
    _write(context, users)
    return {"fits": len(fits), "rows_out": sum(frame.shape[1] - 1 for frame in users.values())}


def variants(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What is fitted, by name. Of two modalities the one left out is the other alone.

    >>> list(variants(["audio", "text"]))
    ['all modalities', 'audio alone', 'text alone']
    >>> variants(["audio", "text", "visual"])["without text"]
    ('audio', 'visual')
    """
    left_out = modalities if len(modalities) > 2 else ()
    return {
        ALL: tuple(modalities),
        **{f"without {one}": tuple(other for other in modalities if other != one) for one in left_out},
        **{f"{one} alone": (one,) for one in modalities},
    }


@dataclass(frozen=True)
class _Measure:
    """Fits fusion on some modalities of a snapshot, and measures it on validation, by which its best epoch is chosen,
    too.
    """

    path: str
    parameters: Mapping[str, Any]
    metric: str

    def __call__(self, modalities: tuple[str, ...]) -> pd.DataFrame:
        """user_id and the metric of each user, of all held-out pairs and, where there are any, of those of items that
        nobody has in train.
        """
        one_thread()
        whole = Part.of_snapshot(self.path)
        features = {name: whole.features[name] for name in modalities}
        part = replace(whole, features=features, validation=whole.held_out)
        model = registry.create(_MODEL, **self.parameters).fit_training_set(part.training_set())
        k = parts(self.metric)[1]
        lists = part.lists(model, k)
        found = executors.per_user_numpy(lists, part.held_out, (k,))[[c.USER_ID, self.metric]]
        cold = part.held_out[~part.held_out[c.ITEM_ID].isin(part.train[c.ITEM_ID])]
        if cold.empty:
            return found
        of_cold = executors.per_user_numpy(lists[lists[c.USER_ID].isin(cold[c.USER_ID])], cold, (k,))
        named = of_cold[[c.USER_ID, self.metric]].rename(columns={self.metric: f"{self.metric}/{COLD_ITEMS}"})
        return found.merge(named, on=c.USER_ID, how="left")


def _modalities(path: str) -> list[str]:
    return sorted(folder.name for folder in Path(path, "features").glob("*"))


def _metric(wanted: str) -> str:
    """The metric of promotion, where it is one of single users; else NDCG at its length."""
    name, k, _ = parts(wanted)
    return wanted if name in PER_USER else f"ndcg@{k}"


def _write(context: Context, users: Mapping[str, pd.DataFrame]) -> None:
    """The means, and each variant against all modalities, paired by user."""
    names = [str(name) for name in users[ALL].columns if name != c.USER_ID]
    means = [
        (context.run_id, variant, SPLIT, name, float(frame[name].mean()), None, None)
        for variant, frame in users.items()
        for name in names
    ]
    samples = context.settings.evaluate.bootstrap_samples
    compared = [
        {c.RUN_ID: context.run_id, c.SPLIT: SPLIT, c.MODEL: variant, "best": ALL, **one.as_dict()}
        for name in names
        for variant, one in compare_frames(users, ALL, name, samples).items()
    ]
    for table, rows in (
        (tables.METRICS, means),
        (tables.COMPARISONS, [tuple(row[name] for name in tables.COMPARISONS.columns) for row in compared]),
    ):
        schema = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
        context.lakehouse.merge(table, context.spark.createDataFrame(rows, schema))
    logged = {f"{variant}.{name}": mean for _, variant, _, name, mean, _, _ in means}
    context.tracking.log_metrics(context.mlflow_id, logged)


JOB = Job(name="ablation", run=run, sections=("train", "promote", "evaluate"), reads=(tables.SNAPSHOTS,))
