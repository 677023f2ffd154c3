"""The fusion model: its gates, what each modality is worth, missing modalities, ranks, and the speed of embedding.

Settings are those in conf/yardsticks, chosen on validation. Everything random is fitted with three seeds.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from avrec_spark import columns as c
from avrec_spark import config, session
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.describe import one_thread as one_core
from avrec_spark.errors import UsageError
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.evaluation.part import Part
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.module import FusionModule
from avrec_spark.training import launchers, loop
from avrec_spark.training.blocked_softmax import cross_entropy
from avrec_spark.training.launchers import Launcher
from benchmarks.models import SEEDS, data_of, seeded
from benchmarks.table import table
from benchmarks.training import alone, one_thread

COLD_MODELS = ("random", "content-cosine", "ridge", "kernel-ridge", "fusion", "blend")
VIDEO_MODELS = ("popular", "lightgcn", "fusion", "blend")
COMMAND = "make bench-fusion"
NOISE, _NOISE_WIDTH = "noise", 128
# Validation may be read as often as one likes; seeds of tiktok differ by more than its modalities.
VALIDATION_SEEDS = (*SEEDS, 300, 400, 500)
# For the speed of embedding, of the softmax, and of ranks.
ITEMS, WIDTHS = 50_000, {"visual": 1280, "audio": 128, "text": 384}
USERS, ROWS, TRAINED_ITEMS, DIMENSION = 50_000, 400_000, 4_000, 64
EPOCHS, ROUNDS, BATCHES = 3, 2, (8_192, 32_768)


def films() -> str:
    return _quality("cold-100k", COLD_MODELS, ("all",))


def videos() -> str:
    try:
        yardsticks.find("tiktok").folds(data_of("tiktok"), "fusion")
    except UsageError as error:
        return f"## Fusion: tiktok\n\nNot measured: {error}\n"
    return _quality("tiktok", VIDEO_MODELS, ("all", "warm", "cold"))


def kept() -> str:
    """What each modality is worth on the validation part of tiktok, which is what it is kept for."""
    name = "tiktok"
    try:
        every = tuple(_folds(name, "fusion", True)[0].features)
    except UsageError as error:
        return f"## Fusion: modalities of {name} on validation\n\nNot measured: {error}\n"
    return _by_validation(name, every)


def speed() -> str:
    return "\n".join([_softmax(), _ranks(), _embedding()])


# -- quality -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """A model to fit on each fold of a yardstick's test or validation, with the seeds of this run and the features of
    these modalities."""

    yardstick: str
    model: str
    modalities: tuple[str, ...]
    run: int = 0
    validation: bool = False


@dataclass(frozen=True)
class Found:
    """Means over the folds: metrics of all, warm and cold test pairs; of fusion also how much of each modality is heard
    in the first fold, and the metric of cold items when a modality is missing as they are embedded."""

    metrics: Mapping[str, Mapping[str, float]]
    gates: Mapping[str, float]
    missing: Mapping[str, float]


def _quality(name: str, models: tuple[str, ...], kinds: tuple[str, ...]) -> str:
    every = tuple(_folds(name, "fusion")[0].features)
    gates = {model: [Fit(name, model, every, run) for run in range(len(_settings(name, model)))] for model in models}
    ablation = {kept: [Fit(name, "fusion", kept, run) for run in range(len(SEEDS))] for kept in _kept(every)}
    fits = list(dict.fromkeys([fit for each in (*ablation.values(), *gates.values()) for fit in each]))
    # The longest first, so that no worker is left alone with one of them.
    fits.sort(key=lambda fit: fit.model != "blend")
    found = _found(fits)
    return "\n".join(
        [
            _gates(name, {model: [found[fit] for fit in each] for model, each in gates.items()}, kinds),
            _ablation(name, {kept: [found[fit] for fit in each] for kept, each in ablation.items()}),
            _missing(name, every, {kept: [found[fit] for fit in each] for kept, each in ablation.items()}),
        ]
    )


def _found(fits: Sequence[Fit]) -> dict[Fit, Found]:
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), one_core) as pool:
        return dict(zip(fits, pool.map(_fitted, fits), strict=True))


def _kept(every: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All modalities, all but one, and all with one of noise.

    >>> _kept(("image", "audio"))
    [('image', 'audio'), ('audio',), ('image',), ('image', 'audio', 'noise')]
    """
    return [every, *(_without(every, gone) for gone in every), (*every, NOISE)]


def _without(every: tuple[str, ...], gone: str) -> tuple[str, ...]:
    return tuple(one for one in every if one != gone)


def _gates(name: str, found: Mapping[str, list[Found]], kinds: tuple[str, ...]) -> str:
    protocol = yardsticks.find(name)
    metrics = list(dict.fromkeys([protocol.metric, f"ndcg@{protocol.k}"]))
    columns = [(kind, metric) for kind in kinds for metric in metrics]
    rows = [
        [model, *(_spread([one.metrics[kind][metric] for one in each]) for kind, metric in columns)]
        for model, each in found.items()
    ]
    header = [metric if kind == "all" else f"{kind}: {metric}" for kind, metric in columns]
    return table(f"Fusion: {name}", COMMAND, ["model", *header], rows)


def _ablation(name: str, found: Mapping[tuple[str, ...], list[Found]]) -> str:
    """Changes are paired by seed."""
    protocol = yardsticks.find(name)
    values = {kept: [one.metrics["all"][protocol.metric] for one in each] for kept, each in found.items()}
    full = next(iter(values.values()))
    rows = []
    for kept, each in found.items():
        change = statistics.mean(value / of_all - 1 for value, of_all in zip(values[kept], full, strict=True))
        heard = ", ".join(f"{one} {mean:.2f}" for one, mean in each[0].gates.items())
        rows.append([" + ".join(kept), _spread(values[kept]), f"{100 * change:+.1f} %", heard])
    header = ["modalities", protocol.metric, "against all", "heard, first seed"]
    return table(f"Fusion: modalities of {name}", COMMAND, header, rows)


def _by_validation(name: str, every: tuple[str, ...]) -> str:
    """Like `_ablation`, with more seeds, where looking costs nothing."""
    metric, n = yardsticks.find(name).metric, len(VALIDATION_SEEDS)
    fits = {kept: [Fit(name, "fusion", kept, run, validation=True) for run in range(n)] for kept in _kept(every)}
    found = _found([fit for each in fits.values() for fit in each])
    values = {kept: [found[fit].metrics["all"][metric] for fit in each] for kept, each in fits.items()}
    rows = []
    for kept, each in values.items():
        changes = [value / of_all - 1 for value, of_all in zip(each, values[every], strict=True)]
        worse = sum(change < 0 for change in changes)
        rows.append([" + ".join(kept), _spread(each), f"{100 * statistics.mean(changes):+.1f} %", str(worse)])
    header = ["modalities", metric, "against all", f"worse, of {n} seeds"]
    return table(f"Fusion: modalities of {name} on validation", COMMAND, header, rows)


def _missing(name: str, every: tuple[str, ...], found: Mapping[tuple[str, ...], list[Found]]) -> str:
    """A modality that is missing when items are embedded, next to a model that never had it; cold items only."""
    metric = yardsticks.find(name).metric
    rows = [
        [
            gone,
            _spread([one.missing[gone] for one in found[every]]),
            _spread([one.metrics["cold"][metric] for one in found[_without(every, gone)]]),
        ]
        for gone in every
    ]
    header = ["missing", "at inference", "in training too"]
    return table(f"Fusion: a missing modality, cold items of {name}, {metric}", COMMAND, header, rows)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} – {max(values):.4f})"


@cache
def _folds(name: str, model: str, validation: bool = False) -> list[Part]:
    protocol = yardsticks.find(name)
    return (protocol.validation_parts if validation else protocol.folds)(data_of(name), model)


def _settings(name: str, model: str, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    return seeded(model, yardsticks.find(name).tuned(model).parameters, seeds)


def _fitted(fit: Fit) -> Found:
    protocol = yardsticks.find(fit.yardstick)
    folds = _folds(fit.yardstick, fit.model, fit.validation)
    parts = [replace(part, features=_features(part, fit.modalities)) for part in folds]
    seeds = VALIDATION_SEEDS if fit.validation else SEEDS
    parameters = _settings(fit.yardstick, fit.model, seeds)[fit.run]
    models = [registry.create(fit.model, **parameters).fit_training_set(part.training_set()) for part in parts]
    metrics = _metrics(fit.yardstick, parts, models)
    fused = [model for model in models if isinstance(model, Fusion)]
    if not fused or fit.validation:
        return Found(metrics, {}, {})
    missing = {}
    for gone in fit.modalities if len(fit.modalities) > 1 else ():
        kept = _without(fit.modalities, gone)
        served = [_served(part, model, kept) for part, model in zip(parts, fused, strict=True)]
        missing[gone] = _metrics(fit.yardstick, parts, served)["cold"][protocol.metric]
    return Found(metrics, dict(fused[0].gates().mean()), missing)


def _features(part: Part, modalities: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The vectors of these modalities only, one of them perhaps pure noise."""
    items = next(iter(part.features.values()))[c.ITEM_ID]
    drawn = np.random.default_rng(0).normal(size=(len(items), _NOISE_WIDTH)).astype(np.float32)
    known = {**part.features, NOISE: pd.DataFrame({c.ITEM_ID: items, c.VECTOR: list(drawn)})}
    return {one: known[one] for one in modalities}


def _metrics(name: str, parts: list[Part], models: Sequence[Recommender]) -> dict[str, dict[str, float]]:
    """Means over the folds."""
    k = yardsticks.find(name).k
    found: dict[str, list[dict[str, float]]] = {}
    for part, model in zip(parts, models, strict=True):
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


def _served(part: Part, model: Fusion, modalities: tuple[str, ...]) -> Fusion:
    """The model with cold items embedded from these modalities."""
    cold = model.items.ids[~np.isin(model.items.ids, part.train[c.ITEM_ID])]
    features = {one: frame[frame[c.ITEM_ID].isin(cold)] for one, frame in _features(part, modalities).items()}
    embedded = model.embed(features)
    cosines, *rest = model.score_sources()
    right = np.asarray(cosines.right).copy()
    # Items without any of the modalities are not embedded, and keep no content.
    right[:, model.items.encode(cold)] = 0
    right[:, model.items.encode(embedded[c.ITEM_ID])] = np.stack(embedded[c.VECTOR].tolist()).T
    served = copy.copy(model)
    served._sources = [replace(cosines, right=right), *rest]
    return served


# -- speed -------------------------------------------------------------------------------------------------------------


def _softmax() -> str:
    """Loss and gradients of one batch on one thread: all logits at once, and in blocks."""
    generator = torch.Generator().manual_seed(0)
    users, items = (
        torch.randn(n, DIMENSION, generator=generator).requires_grad_() for n in (BATCHES[0], TRAINED_ITEMS)
    )
    bias, row, weight = torch.zeros(len(items)), torch.arange(len(users)), torch.ones(len(users))
    place = torch.randint(len(items), row.shape, generator=generator)

    def whole() -> Tensor:
        return functional.cross_entropy(users @ items.T + bias, place, reduction="sum")

    def blocked() -> Tensor:
        return cross_entropy(users, items, bias, row, place, weight)

    seconds: dict[str, list[float]] = {"all logits at once": [], "in blocks": []}
    with _on_one_thread():
        for _ in range(11):
            for loss, each in zip((whole, blocked), seconds.values(), strict=True):
                started = time.perf_counter()
                loss().backward()  # type: ignore[no-untyped-call]
                each.append(time.perf_counter() - started)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    first = medians["all logits at once"]
    rows = [[name, f"{1000 * one:.0f}", f"{first / one:.2f}"] for name, one in medians.items()]
    title = f"Softmax: {BATCHES[0]:,} users, {TRAINED_ITEMS:,} items, {DIMENSION} dimensions"
    return table(title, COMMAND, ["logits", "ms, with gradients", "times as fast"], rows)


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
            launcher = launchers.create("horovod", 120)
            given = loop.TrainingConfig(path=folder, factory=FusionModule, parameters=parameters, epochs=EPOCHS)
            rows = [row for batch in BATCHES for row in _scaled(launcher, replace(given, batch_size=batch))]
    finally:
        spark.stop()
    return (
        table(
            f"Fusion: ranks, {TRAINED_ITEMS:,} items, {USERS:,} users",
            COMMAND,
            ["batch", "ranks", "samples/s", "× one rank"],
            rows,
        )
        + f'\nMedians of {ROUNDS} rounds, ratios within a round, one thread a rank. In the rows "alone" two trainings '
        "run at the same time and exchange nothing, and the figure is of one: twice its ratio is what both cores are "
        "worth. A step propagates all users and items over the graph on every rank, whatever the batch is, so that "
        "ranks that share a batch divide only the softmax; with a batch each (`scale_with_ranks`) they divide the "
        "steps.\n"
    )


def _scaled(launcher: Launcher, given: loop.TrainingConfig) -> list[list[str]]:
    """Rows of one batch size."""
    runs = {
        "1": (one_thread, given, 1),
        "2, half a batch each": (one_thread, given, 2),
        "2, a batch each": (one_thread, replace(given, scale_with_ranks=True), 2),
        "2, each alone": (alone, given, 2),
    }
    rounds = [{name: _speed(launcher.launch(*run)) for name, run in runs.items()} for _ in range(ROUNDS)]
    return [
        [
            f"{given.batch_size:,}",
            name,
            f"{statistics.median(one[name] for one in rounds):,.0f}",
            _range([one[name] / one["1"] for one in rounds]),
        ]
        for name in runs
    ]


def _speed(history: list[dict[str, Any]]) -> float:
    """Samples a second of a rank alone, or of all in step."""
    return statistics.median(entry["samples_per_second"] for entry in history[1:])


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def _embedding() -> str:
    """Vectors of items from stored features, on one core."""
    features = _stored(ITEMS)
    pairs = pd.DataFrame({c.USER_ID: np.arange(200) % 20, c.ITEM_ID: np.arange(200)})
    few = {name: frame.head(200) for name, frame in features.items()}
    model = registry.create("fusion", epochs=1).fit(pairs, few)
    assert isinstance(model, Fusion)
    seconds = []
    with _on_one_thread():
        for _ in range(3):
            started = time.process_time()
            model.embed(features)
            seconds.append(time.process_time() - started)
    what = ", ".join(f"{name} {width}" for name, width in WIDTHS.items())
    rows = [[what, f"{ITEMS:,}", f"{ITEMS / statistics.median(seconds):,.0f}"]]
    return table("Fusion: item embeddings", COMMAND, ["stored vectors", "items", "items/s a core"], rows)


@contextmanager
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _stored(n: int) -> dict[str, pd.DataFrame]:
    generator: Mapping[str, Any] = {name: np.random.default_rng(width) for name, width in WIDTHS.items()}
    return {
        name: pd.DataFrame(
            {c.ITEM_ID: np.arange(n), c.VECTOR: list(generator[name].normal(size=(n, width)).astype(np.float32))}
        )
        for name, width in WIDTHS.items()
    }
