"""Settings search: Optuna proposes parameters, a fit on train is measured on validation, bad trials are cut short.

All that `search` is given are parts of train and validation, so that it cannot look at test. Trials are kept in a
sqlite file: a search that was interrupted goes on where it stopped, and one that is asked for more trials adds them.
What a blend searches are its weights, and it does that itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import yaml

from avrec_spark import columns as c
from avrec_spark import config
from avrec_spark.errors import DataError, MissingExtraError, SettingsError, UsageError, closest
from avrec_spark.evaluation import executors
from avrec_spark.evaluation.part import Part
from avrec_spark.models import registry
from avrec_spark.models.blend import Blend

if TYPE_CHECKING:
    import optuna

State = Literal["complete", "pruned"]
BLEND = Blend.name
# A model that trains by epochs is first looked at after this part of them.
_EARLY = 1 / 3


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; whole numbers where both are. `log`: as likely in each decade.

    `given` names another parameter of the space and its value without which this one has no meaning.
    """

    low: float
    high: float
    log: bool = False
    given: tuple[str, Any] | None = None


# A tuple lists the values to choose from.
Space: TypeAlias = Mapping[str, Range | tuple[Any, ...]]

_TRAINED: Space = {
    "learning_rate": Range(1e-3, 3e-2, log=True),
    "weight_decay": Range(1e-3, 1.0, log=True),
    "epochs": Range(5, 60),
}
_KNN: Space = {
    "neighbours": Range(20, 1000, log=True),
    "shrinkage": Range(0.0, 100.0),
    "power": Range(0.0, 1.5),
}

SPACES: Mapping[str, Space] = {
    "sar": {"half_life_days": Range(1.0, 1000.0, log=True)},
    "item-knn": _KNN,
    "user-knn": _KNN,
    "content-cosine": {"centred": (True, False), "memory": Range(0.0, 100.0)},
    "ridge": {"regularisation": Range(0.01, 1000.0, log=True)},
    "kernel-ridge": {
        "width": Range(0.25, 8.0, log=True),
        "regularisation": Range(0.3, 30.0, log=True),
        "smoothing": Range(1.0, 3000.0, log=True),
        "power": Range(0.0, 1.0),
    },
    "markov": {
        "window": Range(1, 20),
        "decay": Range(0.3, 1.0),
        "memory": Range(0.5, 50.0, log=True),
        "shrinkage": Range(0.0, 50.0),
        "symmetric": (True, False),
    },
    "walk": {
        "start_power": Range(0.0, 1.0),
        "user_power": Range(0.0, 2.0),
        "target_power": Range(-0.5, 1.0),
        "neighbours": Range(20, 2000, log=True),
    },
    "ease": {
        "regularisation": Range(1.0, 3000.0, log=True),
        "side": ("item", "user"),
        "power": Range(0.0, 1.5),
        "window": Range(0, 100, given=("side", "item")),
        "memory": Range(0.0, 100.0, given=("side", "item")),
    },
    "als": {
        "rank": Range(8, 128, log=True),
        "alpha": Range(0.5, 50.0, log=True),
        "regularisation": Range(0.01, 10.0, log=True),
        "iterations": Range(5, 30),
    },
    "mf": {**_TRAINED, "dimension": Range(16, 128, log=True), "dropout": Range(0.0, 0.8)},
    "lightgcn": {
        **_TRAINED,
        "weight_decay": Range(0.0, 0.1),
        "dimension": Range(32, 128, log=True),
        "layers": Range(1, 4),
        "temperature": Range(0.05, 1.0, log=True),
        "user_exponent": Range(0.0, 1.0),
    },
    "two-tower": {
        **_TRAINED,
        "dimension": Range(32, 128, log=True),
        "sequence_length": Range(20, 400, log=True),
        "dropout": Range(0.0, 0.6),
        "id_dropout": Range(0.0, 0.6),
        "temperature": Range(0.03, 1.0, log=True),
    },
    "transformer": {
        **_TRAINED,
        "learning_rate": Range(3e-4, 5e-3, log=True),
        "dimension": (32, 64, 128),
        "sequence_length": Range(20, 200, log=True),
        "dropout": Range(0.1, 0.6),
        "label_smoothing": Range(0.0, 0.2),
    },
    "fusion": {
        **_TRAINED,
        "epochs": Range(2, 60),
        "weight_decay": Range(0.0, 0.5),
        "dimension": Range(16, 512, log=True),
        "content_rank": (0, 16, 32, 64),
        "layers": Range(1, 4),
        "neighbours": (0, 5, 10, 20),
        "temperature": Range(0.05, 1.0, log=True),
        "user_exponent": Range(0.0, 1.0),
        "content_dropout": Range(0.0, 0.8),
        "id_dropout": Range(0.0, 0.6),
        "modality_dropout": Range(0.0, 0.6),
        "kernel_width": Range(0.5, 16.0, log=True),
        "regularisation": Range(0.3, 30.0, log=True),
    },
}


@dataclass(frozen=True)
class Trial:
    """What was tried and what came out: `figures` are the running means of the metric, one a step."""

    number: int
    parameters: Mapping[str, Any]
    figures: tuple[float, ...]
    state: State
    seconds: float


@dataclass(frozen=True)
class Found:
    """The best trial that was not pruned, and how many there were."""

    model: str
    metric: str
    value: float
    parameters: Mapping[str, Any]
    trials: int
    pruned: int


def space_of(model: str, fixed: Mapping[str, Any] | None = None) -> Space:
    """What there is to search for a model, without what is fixed.

    Raises `SettingsError` for an unknown model, a fixed parameter or value that it does not have, and where nothing is
    left to search.

    >>> space_of("sar")
    {'half_life_days': Range(low=1.0, high=1000.0, log=True, given=None)}
    """
    fixed = fixed or {}
    registry.create(model, **fixed)
    if model not in SPACES:
        raise SettingsError(
            f"The model {model} has no search space.{closest(model, SPACES)}", f"Choose of {', '.join(SPACES)}."
        )
    space = {name: values for name, values in SPACES[model].items() if name not in fixed}
    if not space:
        raise SettingsError(f"All searched parameters of the model {model} are fixed.", "Fix fewer of them.")
    return space


def search(
    model: str,
    parts: Sequence[Part],
    trials: int,
    metric: str = "ndcg@10",
    fixed: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    storage: Path | None = None,
    seed: int = 42,
    on_trial: Callable[[Trial], None] | None = None,
) -> Found:
    """The parameters with the best metric on validation, averaged over the parts, of `trials` trials in all.

    `fixed` parameters are not searched; `start` (over the model's defaults) is the first trial, so that the result is
    at least as good. A trial is pruned where its figure after a step is below the median of earlier trials there; a
    step is a part, and for models that train by epochs a third of them on the first part. Trials in `storage` count
    where they were of the same search (data, model, space, metric); one process at a time. `on_trial` is told of each.
    A blend learns its weights in one trial, by NDCG as long as the metric's lists.

    Raises what the model raises, `SettingsError` where there is nothing to search, `MissingExtraError` without Optuna,
    `DataError` where every trial was pruned.
    """
    fixed = dict(fixed or {})
    if trials < 1:
        raise UsageError(f"The number of trials is {trials}.", "Ask for at least one.")
    if model == BLEND:
        return _learn_blend(parts, metric, {**(start or {}), **fixed}, on_trial)
    optuna = _optuna()
    space = space_of(model, fixed)
    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    study = optuna.create_study(
        study_name=f"{model}-{_digest(model, parts, metric, fixed, space)}",
        storage=f"sqlite:///{storage}" if storage else None,
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    _bury(study)
    first = _start(model, space, {**(start or {}), **fixed})
    if not any(first.items() <= trial.params.items() for trial in study.get_trials(deepcopy=False, states=done)):
        study.enqueue_trial(first)
    while (count := len(study.get_trials(deepcopy=False, states=done))) < trials:
        # Not the random numbers of the trials before an interruption once more.
        study.sampler = optuna.samplers.TPESampler(seed=seed + count)
        asked = study.ask()
        trial = _try(asked, model, parts, metric, fixed, space)
        state = optuna.trial.TrialState.PRUNED if trial.state == "pruned" else optuna.trial.TrialState.COMPLETE
        study.tell(asked, None if trial.state == "pruned" else trial.figures[-1], state)
        if on_trial is not None:
            on_trial(trial)
    pruned = len(study.get_trials(deepcopy=False, states=done[1:]))
    if pruned == count:
        raise DataError("Every trial was cut short.", "Ask for more trials, or start a new study.")
    best = study.best_trial
    return Found(model, metric, float(best.value or 0.0), {**best.params, **fixed}, count, pruned)


def write(found: Found, file: Path, settings: config.Settings | None = None) -> None:
    """Settings that `avrec run train --config FILE` takes: those given, with the model and its parameters.

    Where none are given, the models stay that an earlier search has written to the file.
    """
    before = file.read_text(encoding="utf-8") if file.is_file() and settings is None else ""
    values = yaml.safe_load(config.to_yaml(settings) if settings else before)
    values = values or {"train": {"models": [], "parameters": {}}}
    train = values["train"]
    train["models"] = list(dict.fromkeys([*train["models"], found.model]))
    train["parameters"][found.model] = dict(found.parameters)
    others = [line for line in before.splitlines() if line.startswith("#") and not line.startswith(f"# {found.model}:")]
    tried = "weights learnt" if found.model == BLEND else f"the best of {found.trials} trials"
    comment = "\n".join([*others, f"# {found.model}: {found.metric} {found.value:.4f} on validation, {tried}\n"])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error}.", "Give --out a file that can be written.") from None


def _learn_blend(
    parts: Sequence[Part], metric: str, parameters: Mapping[str, Any], on_trial: Callable[[Trial], None] | None
) -> Found:
    """The weights of the members, learnt on the held-out rows of all parts together."""
    started = time.perf_counter()
    _, k = _split(metric)
    blend = registry.create(BLEND, **{**parameters, "weights": [], "k": k})
    assert isinstance(blend, Blend)
    learnt = blend.learn_weights(replace(part, validation=part.held_out).training_set() for part in parts)
    chosen = {**parameters, "weights": [round(weight, 3) for weight in learnt]}
    metric = f"ndcg@{k}"
    figures = tuple(step[metric] for step in blend.history)
    if on_trial is not None:
        on_trial(Trial(0, chosen, figures, "complete", time.perf_counter() - started))
    return Found(BLEND, metric, figures[-1], chosen, 1, 0)


def _try(
    asked: optuna.Trial, model: str, parts: Sequence[Part], metric: str, fixed: Mapping[str, Any], space: Space
) -> Trial:
    started = time.perf_counter()
    chosen = dict(fixed)
    for name, values in space.items():
        if not isinstance(values, Range) or values.given is None or chosen[values.given[0]] == values.given[1]:
            chosen[name] = _suggest(asked, name, values)
    figures: list[float] = []
    for step, figure in enumerate(_figures(model, parts, metric, chosen)):
        figures.append(figure)
        asked.report(figure, step)
        if asked.should_prune():
            return Trial(asked.number, chosen, tuple(figures), "pruned", time.perf_counter() - started)
    return Trial(asked.number, chosen, tuple(figures), "complete", time.perf_counter() - started)


def _figures(model: str, parts: Sequence[Part], metric: str, parameters: Mapping[str, Any]) -> Iterator[float]:
    """After an early look the mean of the metric over the parts so far."""
    if "epochs" in parameters:
        early = max(1, round(parameters["epochs"] * _EARLY))
        yield _figure(model, parts[0], metric, {**parameters, "epochs": early})
    values: list[float] = []
    for part in parts:
        values.append(_figure(model, part, metric, parameters))
        yield float(np.mean(values))


def _figure(model: str, part: Part, metric: str, parameters: Mapping[str, Any]) -> float:
    name, k = _split(metric)
    fitted = registry.create(model, **parameters).fit_training_set(part.training_set())
    figures = executors.evaluate_numpy(part.lists(fitted, k), part.held_out, (k,), part.n_ranked(fitted), bootstrap=0)
    if metric not in figures:
        raise UsageError(f"There is no metric {name}.{closest(metric, figures)}", f"Choose of {', '.join(figures)}.")
    return figures[metric]["mean"]


def _split(metric: str) -> tuple[str, int]:
    """(name, k)"""
    name, at, k = metric.partition("@")
    if not (at and k.isdecimal() and int(k) > 0):
        raise UsageError(f"The metric {metric} has no list length.", "Write name@k, for example ndcg@10.")
    return name, int(k)


def _suggest(asked: optuna.Trial, name: str, values: Range | tuple[Any, ...]) -> Any:
    if not isinstance(values, Range):
        return asked.suggest_categorical(name, values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return asked.suggest_int(name, values.low, values.high, log=values.log)
    return asked.suggest_float(name, values.low, values.high, log=values.log)


def _start(model: str, space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with the model's defaults for the rest, without what the space does not have."""
    values = {**registry.create(model).parameters, **parameters}

    def within(name: str, searched: Range | tuple[Any, ...]) -> bool:
        if not isinstance(searched, Range):
            return values[name] in searched
        meant = searched.given is None or values[searched.given[0]] == searched.given[1]
        return meant and searched.low <= values[name] <= searched.high

    return {name: values[name] for name, searched in space.items() if within(name, searched)}


def _bury(study: optuna.Study) -> None:
    """Trials that a killed process left running will never end."""
    optuna = _optuna()
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _digest(model: str, parts: Sequence[Part], metric: str, fixed: Mapping[str, Any], space: Space) -> str:
    """Says that two searches are the same: their trials can be laid beside each other."""
    digest = hashlib.sha256(repr((model, metric, sorted(fixed.items()), sorted(space.items()))).encode())
    for part in parts:
        for frame in (part.train, part.held_out):
            keys = frame[[name for name in c.INTERACTIONS if name in frame]]
            digest.update(np.sort(pd.util.hash_pandas_object(keys, index=False).to_numpy()).tobytes())
    return digest.hexdigest()[:12]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("The settings search", "optuna", "training") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
