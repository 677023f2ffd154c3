"""`avrec evaluate` and `avrec yardstick`: fit one model, rank, measure, and write what came out.

Both write to the folder `out`: metrics.json (`{"ndcg@10": {"mean": …, "low": …, "high": …}, …}` and beside the metrics
the keys `settings` and `seconds`) and recommendations.parquet (user_id, item_id, rank from 1, score).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, UsageError
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.evaluation.executors import Metrics
from avrec_spark.evaluation.files import read_features, read_interactions, same_id_types
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender

_BOOTSTRAP = 1000


def run_yardstick(
    name: str,
    model: str,
    data: Path | None,
    out: Path,
    executor: str = "numpy",
    parameters: Mapping[str, Any] | None = None,
) -> Metrics:
    """Run a published protocol; `parameters` go over those that the protocol has for the model.

    `data` is the folder with the protocol's files; None: where `make data` puts them.
    """
    protocol = yardsticks.find(name)
    values = {**protocol.tuned(model).parameters, **(parameters or {})}
    recommender = registry.create(model, **values)
    train, test = protocol.parts(data, model)
    about = {"yardstick": name, "ratings_as_weights": protocol.tuned(model).ratings_as_weights}
    return _measure(recommender, TrainingSet.from_frames(train), test, (protocol.k,), executor, out, about)


def run_evaluate(
    train: Path,
    test: Path,
    validation: Path | None,
    item_features: Mapping[str, Path],
    model: str,
    parameters: Mapping[str, Any] | None,
    ks: tuple[int, ...],
    out: Path,
    executor: str = "numpy",
) -> Metrics:
    """Fit a model on one file of interactions and measure it on another.

    All items of train and of the feature files are ranked for every user in test, the user's train items removed; users
    that train does not know get the popular list. `validation` only serves models that choose their best epoch by it.
    """
    if not ks or min(ks) < 1:
        raise UsageError(
            f"The list lengths are {', '.join(map(str, ks)) or 'none'}.", "Give -k 10, or any whole number."
        )
    recommender = registry.create(model, **(parameters or {}))
    names = list(item_features)
    known, held_out, *rest = same_id_types(
        read_interactions(train),
        read_interactions(test),
        *([] if validation is None else [read_interactions(validation)]),
        *(read_features(item_features[name]) for name in names),
    )
    chosen_by = rest.pop(0) if validation is not None else None
    training_set = TrainingSet.from_frames(known, dict(zip(names, rest, strict=True)), validation=chosen_by)
    about = {"train": train, "test": test, "validation": validation, "item_features": item_features}
    return _measure(recommender, training_set, held_out, ks, executor, out, about)


def _measure(
    recommender: Recommender,
    training_set: TrainingSet,
    test: pd.DataFrame,
    ks: tuple[int, ...],
    executor: str,
    out: Path,
    about: Mapping[str, Any],
) -> Metrics:
    evaluate = executors.create(executor)
    if len(test) == 0:
        raise DataError("There is no held-out interaction to evaluate on.", "Give a test file with rows.")
    if recommender.needs_spark or executor == "spark":
        from avrec_spark import config, session

        spark = session.get(config.load().spark)
    started = time.perf_counter()
    recommender.fit_training_set(training_set)
    fitted = time.perf_counter()
    lists = recommender.recommend(test[c.USER_ID].drop_duplicates().sort_values().to_numpy(), max(ks))
    ranked = time.perf_counter()
    pairs = test[[c.USER_ID, c.ITEM_ID]]
    frames = (lists, pairs) if executor == "numpy" else (spark.createDataFrame(lists), spark.createDataFrame(pairs))
    metrics = evaluate(*frames, ks, n_items=len(recommender.items), bootstrap=_BOOTSTRAP)
    seconds = {"fit": fitted - started, "recommend": ranked - fitted, "evaluate": time.perf_counter() - ranked}
    settings = {
        **about,
        "model": recommender.name,
        "parameters": recommender.parameters,
        "ks": ks,
        "executor": executor,
    }
    _write(out, lists, {**metrics, "settings": settings, "seconds": seconds})
    return metrics


def _write(out: Path, lists: pd.DataFrame, document: Mapping[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lists.to_parquet(out / "recommendations.parquet", index=False)
        text = json.dumps(document, indent=2, default=_plain, ensure_ascii=False)
        (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"Nothing can be written to {out}: {error}.", "Give --out a folder that can be written."
        ) from None


def _plain(value: Any) -> Any:
    """What JSON has no form for: mappings and paths."""
    return dict(value) if isinstance(value, Mapping) else str(value)
