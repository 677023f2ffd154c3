"""The vectors that models, neighbours and reports use: those of the encoders in use, one a modality and item."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from avrec_spark import columns as c
from avrec_spark import tables
from avrec_spark.encoders import registry
from avrec_spark.pipelines.job import Context

_ORIGIN = (c.MODALITY, c.ENCODER, c.ENCODER_VERSION, c.PARAMETERS_HASH)


def origins(context: Context) -> list[tuple[str, str, str, str]]:
    """(modality, encoder, version, parameters hash) of each encoder in use."""
    return [
        (encoder.modality, encoder.name, encoder.version, encoder.parameters_hash)
        for encoder in registry.in_use(context.settings.features)
    ]


def in_use(context: Context) -> DataFrame:
    """Rows of gold.item_features with a vector; those of other or older encoders stay in the table, unused."""
    features = context.lakehouse.read_or_empty(tables.ITEM_FEATURES).where(F.col(c.VECTOR).isNotNull())
    current = context.spark.createDataFrame(origins(context), ", ".join(f"{name} string" for name in _ORIGIN))
    return features.join(F.broadcast(current), list(_ORIGIN), "left_semi")
