"""The published protocols for the models that they are about: `make bench-models`.

Settings are those in conf/yardsticks, which `avrec tune` has chosen on validation. What is random is fitted with three
seeds, the members of a blend as well.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avrec_spark import config
from avrec_spark.errors import UsageError
from avrec_spark.evaluation import commands, yardsticks
from avrec_spark.evaluation.executors import Metrics
from avrec_spark.models import registry
from benchmarks.table import table

# What is added to each seed of the settings; members of a blend that differ by one in their seed stay apart.
SEEDS = (0, 100, 200)
TITLES = {"ndcg": "NDCG", "hit-rate": "HR", "precision": "P", "recall": "R", "map": "MAP"}
CONF = Path(__file__).parents[1] / "conf" / "yardsticks"


@dataclass(frozen=True)
class Protocol:
    """What is shown of a yardstick: metrics, the first one with interval and spread, and models.

    `others` are files beside the yardstick's own that have other settings of a model.
    """

    metrics: tuple[str, ...]
    models: tuple[str, ...]
    others: tuple[str, ...] = ()


PROTOCOLS = {
    "lf-100k": Protocol(
        ("ndcg@10", "precision@10", "recall@10", "map@10"),
        ("popular", "sar", "item-knn", "user-knn", "als", "ease", "mf", "lightgcn", "two-tower", "blend"),
        ("lf-100k-user-side", "lf-100k-numpy"),
    ),
    "last-out-100k": Protocol(
        ("hit-rate@10", "ndcg@10"), ("popular", "item-knn", "ease", "markov", "transformer", "blend")
    ),
    "cold-100k": Protocol(("ndcg@10", "recall@10"), ("random", "content-cosine", "ridge", "kernel-ridge", "fusion")),
    "tiktok": Protocol(("recall@20", "ndcg@20"), ("popular", "item-knn", "user-knn", "ease", "walk", "lightgcn")),
}


def lf_100k() -> str:
    return _section("lf-100k")


def last_out_100k() -> str:
    return _section("last-out-100k")


def cold_100k() -> str:
    return _section("cold-100k")


def tiktok() -> str:
    return _section("tiktok")


def _section(name: str) -> str:
    protocol = PROTOCOLS[name]
    data = data_of(name)
    try:
        yardsticks.find(name).folds(data, "popular")
    except UsageError as error:
        return f"## {name}\n\nNot measured: {error}\n"
    rows = []
    for label, model, parameters in _models(name, protocol):
        metrics, seconds = _measured(name, model, parameters, data)
        first = [figures[protocol.metrics[0]] for figures in metrics]
        means = [figure["mean"] for figure in first]
        interval = f"[{first[0]['low']:.3f}, {first[0]['high']:.3f}]"
        spread = f"{min(means):.4f} – {max(means):.4f}" if len(means) > 1 else ""
        others = [f"{_mean([figures[metric]['mean'] for figures in metrics]):.4f}" for metric in protocol.metrics[1:]]
        rows.append([label, f"{_mean(means):.4f}", interval, spread, *others, f"{_mean(seconds):.1f}"])
    lead, *rest = (_title(metric) for metric in protocol.metrics)
    header = ["model", lead, "95 %, first seed", f"{len(SEEDS)} seeds", *rest, "seconds"]
    return table(name, f"avrec yardstick {name} --model M --out DIR", header, rows)


def data_of(name: str) -> Path | None:
    """The folder of the protocol's data; None where `make data` fetches them."""
    return Path(os.environ["AVREC_TIKTOK"]) if name == "tiktok" and "AVREC_TIKTOK" in os.environ else None


def _models(name: str, protocol: Protocol) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(label, model, parameters)"""
    for model in protocol.models:
        yield model, model, yardsticks.find(name).tuned(model).parameters
    for file in protocol.others:
        for model, parameters in config.load(CONF / f"{file}.yaml", environment={}).train.parameters.items():
            # All of them: what is left out would be taken from the yardstick's own file.
            yield f"{model} ({file})", model, registry.create(model, **parameters).parameters


def _measured(
    name: str, model: str, parameters: Mapping[str, Any], data: Path | None
) -> tuple[list[Metrics], list[float]]:
    """The metrics and seconds of each seed; of one run where nothing is random."""
    found, seconds = [], []
    for values in seeded(model, parameters):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            found.append(commands.run_yardstick(name, model, data, Path(out), "numpy", values))
        seconds.append(time.perf_counter() - started)
    return found, seconds


def seeded(model: str, parameters: Mapping[str, Any], seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """The parameters with each seed, added to those of a blend's members; once where there is no seed to give."""

    def with_seed(model: str, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        known = registry.create(model, **parameters).parameters
        return {**parameters, "seed": known["seed"] + seed} if "seed" in known else dict(parameters)

    def member(one: Mapping[str, Any], seed: int) -> dict[str, Any]:
        values = {name: value for name, value in one.items() if name != "model"}
        return {"model": one["model"], **with_seed(one["model"], values, seed)}

    seeded = [with_seed(model, parameters, seed) for seed in seeds]
    if "members" in parameters:
        seeded = [{**parameters, "members": [member(one, seed) for one in parameters["members"]]} for seed in seeds]
    return [one for number, one in enumerate(seeded) if one not in seeded[:number]]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _title(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{TITLES[name]}@{k}"
