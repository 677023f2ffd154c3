"""The lf-100k yardstick for the models of the registry."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from avrec_spark.evaluation import commands
from benchmarks.table import table

MODELS = ("popular", "sar", "als", "ease", "mf")


def run() -> str:
    rows = []
    for model in MODELS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as out:
            metrics = commands.run_yardstick(
                name="lf-100k", model=model, data=None, out=Path(out), executor="numpy", parameters={}
            )
        figures = [metrics[f"{name}@10"] for name in ("ndcg", "precision", "recall", "map")]
        lead = f"{figures[0]['mean']:.4f} [{figures[0]['low']:.3f}, {figures[0]['high']:.3f}]"
        seconds = f"{time.monotonic() - started:.1f}"
        rows.append([model, lead, *[f"{figure['mean']:.4f}" for figure in figures[1:]], seconds])
    header = ["model", "NDCG@10 [95 %]", "P@10", "R@10", "MAP", "seconds, all"]
    return table("lf-100k", "avrec yardstick lf-100k --model M --out DIR", header, rows)
