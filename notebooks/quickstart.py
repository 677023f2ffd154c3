# Databricks notebook source
# MAGIC %md
# MAGIC # avrec_spark in ten minutes
# MAGIC From raw clips and behaviour to evaluated recommendations. On a cluster this notebook uses the session that is
# MAGIC already there; elsewhere it starts an embedded one. `root` says where the tables shall lie (on a cluster, a path
# MAGIC that all machines see), `config` names a settings file. Both are widgets on Databricks; elsewhere they are the
# MAGIC environment's `AVREC_NOTEBOOK_ROOT` and `AVREC_NOTEBOOK_CONFIG`.

# COMMAND ----------

import os
from pathlib import Path

from avrec_spark import config, session, tables
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner


def parameter(name: str, default: str) -> str:
    if "dbutils" in globals():
        dbutils.widgets.text(name, default)
        return dbutils.widgets.get(name)
    return os.environ.get(f"AVREC_NOTEBOOK_{name.upper()}", default)


ROOT = parameter("root", "lakehouse/quickstart")
CONFIG = parameter("config", "conf/demo.yaml")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Settings
# MAGIC A file, and what differs from it. Your own data: `catalog.source` is a folder of media or a list with a column
# MAGIC `uri`, `events.source` CSV, JSON lines or Parquet.

# COMMAND ----------

settings = config.load(
    CONFIG,
    [
        f"lakehouse.root={ROOT}",
        f"world.folder={ROOT}/world",
        f"catalog.source={ROOT}/world/catalog.csv",
        f"events.source={ROOT}/world/events.jsonl",
    ],
)
spark = session.get(settings.spark)
runner.render_world(settings)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Media and behaviour in

# COMMAND ----------

run_id = runner.run(["catalog", "events", "features"], settings)
lakehouse = Lakehouse(spark, settings.lakehouse.root)
lakehouse.read(tables.QUARANTINE).groupBy("source", "reason").count().show(truncate=False)
lakehouse.read(tables.ITEM_FEATURES).groupBy("modality", "encoder", "status").count().show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train, evaluate, promote
# MAGIC The torch models train under Horovod, one rank a task slot.

# COMMAND ----------

runner.run(["snapshot", "train", "evaluate", "promote"], settings, run_id)
metrics = lakehouse.read(tables.METRICS).where(f"run_id = '{run_id}' AND metric = '{settings.promote.metric}'")
metrics.orderBy("split", metrics["mean"].desc()).select("split", "model", "mean", "low", "high").show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Recommendations, neighbours, labels and the report

# COMMAND ----------

runner.run(["recommend", "neighbours", "labels", "report"], settings, run_id)
recommendations = lakehouse.read(tables.RECOMMENDATIONS)
recommendations.join(lakehouse.read(tables.ITEMS).select("item_id", "title"), "item_id").orderBy(
    "user_id", "rank"
).show(10, truncate=60)
report = Path(ROOT, "reports", run_id, "index.html")
print(f"The report: {report.absolute()}")
