"""`avrec evaluate` and `avrec yardstick`: fit one model, rank, measure, and write what came out.

Both write to the folder `out`: metrics.json (`{"ndcg@10": {"mean": …, "low": …, "high": …}, …}` and beside the metrics
the keys `settings` and `seconds`) and recommendations.parquet (user_id, item_id, rank from 1, score). Where there are
folds, the figures are means over them, metrics.json has those of each under `folds`, and the lists have a column fold.
Where test has items that train does not know beside others, `ndcg@10/warm-items` and `ndcg@10/cold-items` tell them
apart.

Beyond accuracy, novelty, popularity and serendipity come from train, diversity from the item features; `knowledge` may
have further files: categories (item_id, categories), groups (item_id, group) and segments (user_id, segment), which
`run_evaluate` makes from the length of the history where there is no file. docs/evaluation.md has every metric.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.errors import DataError, UsageError
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.evaluation.catalogue import Catalogue, side_by_side
from avrec_spark.evaluation.executors import Metrics
from avrec_spark.evaluation.files import read_features, read_interactions, read_knowledge, same_id_types
from avrec_spark.evaluation.part import Part
from avrec_spark.evaluation.segments import by_history
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
    """Run a published protocol; `parameters` go over those that the protocol has for the model, or for the one that
    `best` or `best-cf` stands for there.

    `data` is the folder with the protocol's files; None: where `make data` puts them.
    """
    protocol = yardsticks.find(name)
    model = protocol.model(model)
    values = {**protocol.tuned(model).parameters, **(parameters or {})}
    recommender = registry.create(model, **values)
    about = {"yardstick": name, "ratings_as_weights": protocol.tuned(model).ratings_as_weights}
    return _measure(recommender, protocol.folds(data, model), (protocol.k,), executor, out, about)


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
    knowledge: Mapping[str, Path] | None = None,
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
    names, others = list(item_features), dict(knowledge or {})
    known, held_out, *rest = same_id_types(
        read_interactions(train),
        read_interactions(test),
        *([] if validation is None else [read_interactions(validation)]),
        *(read_features(item_features[name]) for name in names),
        *(read_knowledge(path, name) for name, path in others.items()),
    )
    chosen_by = rest.pop(0) if validation is not None else None
    lengths = known.drop_duplicates([c.USER_ID, c.ITEM_ID])[c.USER_ID].value_counts()
    facts = {"segments": by_history(held_out[c.USER_ID], lengths)}
    facts |= dict(zip(others, rest[len(names) :], strict=True))
    part = Part(known, held_out, dict(zip(names, rest[: len(names)], strict=True)), validation=chosen_by)
    about = {"train": train, "test": test, "validation": validation, "item_features": item_features, **others}
    return _measure(recommender, [part], ks, executor, out, about, facts)


def _measure(
    recommender: Recommender,
    parts: list[Part],
    ks: tuple[int, ...],
    executor: str,
    out: Path,
    about: Mapping[str, Any],
    facts: Mapping[str, pd.DataFrame] | None = None,
) -> Metrics:
    evaluate = _evaluator(recommender, executor)
    measured = [_measure_part(recommender, part, ks, evaluate, facts or {}) for part in parts]
    metrics = mean_of_folds([one.metrics for one in measured])
    details = {"folds": [one.metrics for one in measured]} if len(parts) > 1 else {}
    settings = {
        **about,
        "model": recommender.name,
        "parameters": recommender.parameters,
        "ks": ks,
        "executor": executor,
    }
    seconds = {name: sum(one.seconds[name] for one in measured) for name in measured[0].seconds}
    lists = pd.concat([one.lists for one in measured], ignore_index=True)
    _write(out, lists, {**metrics, **details, "settings": settings, "seconds": seconds})
    return metrics


def _evaluator(recommender: Recommender, executor: str) -> Callable[..., Metrics]:
    """The executor, given pandas frames; a session is started where it or the model needs one."""
    evaluate = executors.create(executor)
    if recommender.needs_spark or executor == "spark":
        from avrec_spark import config, session

        spark = session.get(config.load().spark)
    if executor == "numpy":
        return evaluate

    def there(value: Any) -> Any:
        return spark.createDataFrame(value) if isinstance(value, pd.DataFrame) else value

    return lambda *values, **options: evaluate(
        *map(there, values), **{name: there(value) for name, value in options.items()}
    )


@dataclass(frozen=True)
class _Measured:
    lists: pd.DataFrame
    metrics: Metrics
    seconds: dict[str, float]


def _measure_part(
    recommender: Recommender,
    part: Part,
    ks: tuple[int, ...],
    evaluate: Callable[..., Metrics],
    facts: Mapping[str, pd.DataFrame],
) -> _Measured:
    if len(part.held_out) == 0:
        raise DataError("There is no held-out interaction to evaluate on.", "Give a test file with rows.")
    started = time.perf_counter()
    recommender.fit_training_set(part.training_set())
    fitted = time.perf_counter()
    lists = part.lists(recommender, max(ks))
    ranked = time.perf_counter()

    metrics = evaluate(
        lists,
        part.held_out[[c.USER_ID, c.ITEM_ID]],
        ks,
        n_items=part.n_ranked(recommender),
        bootstrap=_BOOTSTRAP,
        **_beyond_accuracy(part, recommender, facts),
    )
    seconds = {"fit": fitted - started, "recommend": ranked - fitted, "evaluate": time.perf_counter() - ranked}
    lists = lists if part.fold is None else lists.assign(**{c.FOLD: part.fold})
    return _Measured(lists, metrics, seconds)


def _beyond_accuracy(part: Part, recommender: Recommender, facts: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What an executor needs beside lists and held-out pairs."""
    train = part.train[[c.USER_ID, c.ITEM_ID]]
    catalogue = Catalogue.from_frames(
        items=recommender.items.ids,
        train=train,
        vectors=side_by_side(part.features),
        categories=facts.get("categories"),
        groups=facts.get("groups"),
    )
    return {"catalogue": catalogue, "histories": train, "segments": facts.get("segments")}


def mean_of_folds(folds: list[Metrics]) -> Metrics:
    """The mean of each metric over folds. The intervals' halves are added in quadrature: folds share no test pair.

    >>> one, other = {"mean": 0.2, "low": 0.17, "high": 0.23}, {"mean": 0.4, "low": 0.36, "high": 0.44}
    >>> {name: round(value, 3) for name, value in mean_of_folds([{"m": one}, {"m": other}])["m"].items()}
    {'mean': 0.3, 'low': 0.275, 'high': 0.325}
    """
    if len(folds) == 1:
        return folds[0]
    result = {}
    # A figure that some fold could not have is none of the whole.
    for name in (name for name in folds[0] if all(name in fold for fold in folds)):
        mean, low, high = (np.array([fold[name][side] for fold in folds]) for side in (c.MEAN, c.LOW, c.HIGH))
        below, above = (float(np.linalg.norm(mean - side)) / len(folds) for side in (low, high))
        centre = float(mean.mean())
        result[name] = {c.MEAN: centre, c.LOW: centre - below, c.HIGH: centre + above}
    return result


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
