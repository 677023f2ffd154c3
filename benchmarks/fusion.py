"""The fusion model: its gates, what each modality is worth, missing modalities, ranks, and the speed of embedding.

Settings are those in conf/yardsticks, chosen on validation. Everything random is fitted with three seeds.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from avrec_spark import columns as c
from avrec_spark import config, session
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import UsageError
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.evaluation.part import Part
from avrec_spark.models import registry
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.module import FusionModule
from avrec_spark.training import launchers, loop
from benchmarks.models import data_of
from benchmarks.table import table
from benchmarks.training import one_thread

SEEDS = (42, 142, 242)
COLD_MODELS = ("random", "content-cosine", "ridge", "kernel-ridge", "fusion", "blend")
VIDEO_MODELS = ("popular", "lightgcn", "fusion", "blend")
COMMAND = "make bench-fusion"
_NOISE_WIDTH = 128
# For the speed of embedding, and for ranks.
ITEMS, WIDTHS = 50_000, {"visual": 1280, "audio": 128, "text": 384}
USERS, ROWS, TRAINED_ITEMS, BATCH, EPOCHS = 50_000, 400_000, 4_000, 8_192, 3


def films() -> str:
    return "\n".join([_gates("cold-100k", COLD_MODELS), _ablation("cold-100k"), _missing("cold-100k")])


def videos() -> str:
    try:
        yardsticks.find("tiktok").folds(data_of("tiktok"), "fusion")
    except UsageError as error:
        return f"## Fusion: tiktok\n\nNot measured: {error}\n"
    return "\n".join([_gates("tiktok", VIDEO_MODELS), _ablation("tiktok"), _missing("tiktok")])


def speed() -> str:
    return "\n".join([_ranks(), _embedding()])


# -- quality -----------------------------------------------------------------------------------------------------------


def _gates(name: str, models: tuple[str, ...]) -> str:
    protocol = yardsticks.find(name)
    rows = []
    for model in models:
        seeds = SEEDS if "seed" in registry.create(model).parameters else SEEDS[:1]
        found = [_figures(name, model, seed) for seed in seeds]
        cells = []
        for kind in ("all", "warm", "cold"):
            for metric in (protocol.metric, f"ndcg@{protocol.k}"):
                values = [one[kind][metric] for one in found if kind in one]
                cells.append(_spread(values) if values else "")
        rows.append([model, *(cells if name == "tiktok" else cells[:1])])
    header = [f"{kind}{metric}" for kind in ("", "warm ", "cold ") for metric in ("Recall@20", "NDCG@20")]
    return table(f"Fusion: {name}", COMMAND, ["model", *(header if name == "tiktok" else ["NDCG@10"])], rows)


def _ablation(name: str) -> str:
    """Each modality alone, each left out, all of them, and all with one of noise; paired by fold and seed."""
    protocol = yardsticks.find(name)
    modalities = tuple(protocol.folds(data_of(name), "fusion")[0].features)
    without = [tuple(one for one in modalities if one != gone) for gone in modalities]
    chosen = list(dict.fromkeys([modalities, *without, *((one,) for one in modalities), (*modalities, "noise")]))
    rows, full = [], None
    for kept in chosen:
        values = [_figures(name, "fusion", seed, kept)["all"][protocol.metric] for seed in SEEDS]
        full = full or values
        change = statistics.mean(value / of_all - 1 for value, of_all in zip(values, full, strict=True))
        heard = _heard(name, kept)
        rows.append([" + ".join(kept), _spread(values), f"{100 * change:+.1f} %", heard])
    header = ["modalities", protocol.metric, "against all", "mean gates, first seed"]
    return table(f"Fusion: modalities of {name}", COMMAND, header, rows)


def _missing(name: str) -> str:
    """A modality that is missing when items are embedded, next to a model that never had it; cold items only."""
    protocol = yardsticks.find(name)
    modalities = tuple(protocol.folds(data_of(name), "fusion")[0].features)
    rows = []
    for gone in modalities:
        kept = tuple(one for one in modalities if one != gone)
        trained = [_cold_figure(name, seed, kept, kept) for seed in SEEDS]
        missing = [_cold_figure(name, seed, modalities, kept) for seed in SEEDS]
        rows.append([gone, _spread(missing), _spread(trained)])
    header = ["missing", "at inference", "in training too"]
    return table(f"Fusion: a missing modality, cold items of {name}, {protocol.metric}", COMMAND, header, rows)


def _parts(name: str, model: str, modalities: tuple[str, ...]) -> list[Part]:
    """The folds with these modalities only, one of them perhaps pure noise."""
    parts = yardsticks.find(name).folds(data_of(name), model)
    return [replace(part, features=_features(part, modalities)) for part in parts]


def _features(part: Part, modalities: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    items = next(iter(part.features.values()))[c.ITEM_ID]
    drawn = np.random.default_rng(0).normal(size=(len(items), _NOISE_WIDTH)).astype(np.float32)
    known = {**part.features, "noise": pd.DataFrame({c.ITEM_ID: items, c.VECTOR: list(drawn)})}
    return {one: known[one] for one in modalities}


@cache
def _fitted(name: str, model: str, seed: int, modalities: tuple[str, ...]) -> list[tuple[Part, Any]]:
    """The parts and the model fitted on each; without modalities, those that the protocol has."""
    protocol = yardsticks.find(name)
    modalities = modalities or tuple(protocol.folds(data_of(name), model)[0].features)
    parameters = _seeded(protocol.tuned(model).parameters, seed)
    if "seed" in registry.create(model).parameters:
        parameters["seed"] = seed
    parts = _parts(name, model, modalities)
    return [(part, registry.create(model, **parameters).fit_training_set(part.training_set())) for part in parts]


def _seeded(parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The parameters, the seeds of a blend's members moved by that of the run, and all of them different."""
    if "members" not in parameters:
        return dict(parameters)
    members = [
        {**one, "seed": one["seed"] + seed - SEEDS[0]} if "seed" in one else one for one in parameters["members"]
    ]
    return {**parameters, "members": members}


def _figures(name: str, model: str, seed: int, modalities: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    """Metrics of all, warm and cold test pairs, means over the folds."""
    return _measured(name, _fitted(name, model, seed, modalities))


def _measured(name: str, fitted: list[tuple[Part, Any]]) -> dict[str, dict[str, float]]:
    k = yardsticks.find(name).k
    found: dict[str, list[dict[str, float]]] = {}
    for part, model in fitted:
        lists = part.lists(model, k)
        known = part.held_out[c.ITEM_ID].isin(part.train[c.ITEM_ID])
        for kind, pairs in (("all", part.held_out), ("warm", part.held_out[known]), ("cold", part.held_out[~known])):
            if len(pairs):
                metrics = executors.evaluate_numpy(lists, pairs, (k,), part.n_ranked(model), bootstrap=0)
                found.setdefault(kind, []).append({metric: figure["mean"] for metric, figure in metrics.items()})
    return {
        kind: {metric: statistics.mean(one[metric] for one in each) for metric in each[0]}
        for kind, each in found.items()
    }


def _cold_figure(name: str, seed: int, fitted_on: tuple[str, ...], served: tuple[str, ...]) -> float:
    """The protocol's metric on cold pairs where cold items are embedded from the modalities `served`."""
    served_with = []
    for part, model in _fitted(name, "fusion", seed, fitted_on):
        cold = model._popularity == 0
        features = {
            one: frame[frame[c.ITEM_ID].isin(model.items.ids[cold])] for one, frame in _features(part, served).items()
        }
        embedded = model.embed(features)
        source = model.score_sources()[0]
        right = source.right.copy()
        right[:, model.items.encode(embedded[c.ITEM_ID])] = np.stack(embedded[c.VECTOR].tolist()).T
        other = copy.copy(model)
        other._sources = [replace(source, right=right), *model.score_sources()[1:]]
        served_with.append((part, other))
    return _measured(name, served_with)["cold"][yardsticks.find(name).metric]


def _heard(name: str, kept: tuple[str, ...]) -> str:
    gates = _fitted(name, "fusion", SEEDS[0], kept)[0][1].gates()
    return ", ".join(f"{one} {mean:.2f}" for one, mean in gates.mean().items())


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} – {max(values):.4f})"


# -- speed -------------------------------------------------------------------------------------------------------------


def _ranks() -> str:
    """Two Horovod ranks against one, one thread each."""
    generator = np.random.default_rng(0)
    pairs = pd.DataFrame(
        {c.USER_ID: generator.integers(0, USERS, ROWS), c.ITEM_ID: generator.integers(0, TRAINED_ITEMS, ROWS)}
    )
    parameters = {name: Fusion().parameters[name] for name in Fusion.module_parameters}
    spark = session.get(config.SparkSettings(master="local[2,4]"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            TrainingSet.from_frames(pairs, _stored(TRAINED_ITEMS)).write(folder, row_groups=16)
            given = loop.TrainingConfig(
                path=folder, factory=FusionModule, parameters=parameters, epochs=EPOCHS, batch_size=BATCH
            )
            launcher = launchers.create("horovod", 120)
            speeds = []
            for ranks in (1, 2):
                history = launcher.launch(one_thread, given, ranks)
                speeds.append(statistics.median(entry["samples_per_second"] for entry in history[1:]))
    finally:
        spark.stop()
    rows = [[str(n), f"{speed:,.0f}", f"{speed / speeds[0]:.2f}"] for n, speed in zip((1, 2), speeds, strict=True)]
    title = f"Fusion: ranks, {TRAINED_ITEMS:,} items, global batches of {BATCH:,}"
    return table(title, COMMAND, ["ranks", "samples/s", "× one rank"], rows)


def _embedding() -> str:
    """Vectors of items from stored features, on one core."""
    features = _stored(ITEMS)
    pairs = pd.DataFrame({c.USER_ID: np.arange(200) % 20, c.ITEM_ID: np.arange(200)})
    few = {name: frame.head(200) for name, frame in features.items()}
    model = registry.create("fusion", epochs=1).fit(pairs, few)
    assert isinstance(model, Fusion)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        model.embed(features)
        seconds.append(time.process_time() - started)
    torch.set_num_threads(threads)
    what = ", ".join(f"{name} {width}" for name, width in WIDTHS.items())
    rows = [[what, f"{ITEMS:,}", f"{ITEMS / statistics.median(seconds):,.0f}"]]
    return table("Fusion: item embeddings", COMMAND, ["stored vectors", "items", "items/s a core"], rows)


def _stored(n: int) -> dict[str, pd.DataFrame]:
    generator: Mapping[str, Any] = {name: np.random.default_rng(width) for name, width in WIDTHS.items()}
    return {
        name: pd.DataFrame(
            {c.ITEM_ID: np.arange(n), c.VECTOR: list(generator[name].normal(size=(n, width)).astype(np.float32))}
        )
        for name, width in WIDTHS.items()
    }
