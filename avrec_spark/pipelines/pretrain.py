"""pretrain: gold.item_features → a content encoder for fusion, learnt without behaviour, in pretrained/RUN.

On request, for a catalogue that has no behaviour yet or little: `train.start.model=RUN` lets a later fit begin with it,
on this catalogue or another one with vectors of the same encoders. Parameters are those of `train.parameters.fusion`.
"""

from __future__ import annotations

from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.pretraining import every_item_once
from avrec_spark.pipelines import fitting, vectors
from avrec_spark.pipelines.job import Context, Counts, Job
from avrec_spark.pipelines.starting import PRETRAINED

_ALIGN = {"align": 1.0}


def run(context: Context) -> Counts:
    features = vectors.in_use(context).persist()
    kinds = sorted(row[0] for row in features.select(c.MODALITY).distinct().collect())
    frames = {kind: features.where(F.col(c.MODALITY) == kind).select(c.ITEM_ID, c.VECTOR).toPandas() for kind in kinds}
    features.unpersist()
    model = fitting.prepared(context, "fusion", **_ALIGN)
    assert isinstance(model, Fusion)
    staged = ("snapshots", f"pretrain-{context.run_id}")
    try:
        groups = max(context.settings.snapshot.row_groups, model.workers)
        known = every_item_once(frames).write(context.lakehouse.path(*staged), groups)
        start = model.pretrain(known)
    finally:
        context.lakehouse.remove(*staged)
    context.note(f"encoder: {start.save(context.lakehouse.path(PRETRAINED, context.run_id))}")
    fitting.checkpoints(context, "fusion").clear()
    return {"rows_in": sum(map(len, frames.values())), "items": len(known.items), "modalities": len(kinds)}


def _check(settings: config.Settings) -> None:
    fitting.create(settings.train, "fusion", **_ALIGN)


JOB = Job(
    name="pretrain",
    run=run,
    sections=("train", "features"),
    reads=(tables.ITEM_FEATURES,),
    check=_check,
)
