"""Every model by name; a new one is one file and one line here."""

from __future__ import annotations

import inspect
from importlib import import_module
from numbers import Integral, Real
from typing import Any

from avrec_spark.errors import SettingsError, closest
from avrec_spark.models.base import Recommender

# name: (module, class). Imported when asked for: torch and Spark load only with the models that need them.
_MODELS = {
    "random": ("random_order", "RandomOrder"),
    "popular": ("popular", "Popular"),
    "sar": ("sar", "SAR"),
    "item-knn": ("knn", "ItemKNN"),
    "user-knn": ("knn", "UserKNN"),
    "content-cosine": ("content", "ContentCosine"),
    "ridge": ("content", "Ridge"),
    "kernel-ridge": ("kernel_ridge", "KernelRidge"),
    "markov": ("markov", "Markov"),
    "walk": ("walk", "Walk"),
    "ease": ("ease", "EASE"),
    "als": ("als", "ALS"),
    "mf": ("mf", "MatrixFactorisation"),
    "lightgcn": ("lightgcn", "LightGCN"),
    "two-tower": ("two_tower", "TwoTower"),
    "transformer": ("transformer", "Transformer"),
    "fusion": ("fusion", "Fusion"),
    "blend": ("blend", "Blend"),
}
NAMES = tuple(_MODELS)


def create(name: str, **parameters: Any) -> Recommender:
    """A model with its default parameters and those given.

    Raises `SettingsError` for an unknown model or parameter, and for a value of another type than the default's.

    >>> create("sar", half_life_days=7.0).parameters
    {'half_life_days': 7.0}
    """
    if name not in _MODELS:
        raise SettingsError(f"There is no model {name}.{closest(name, NAMES)}", f"Choose of {', '.join(NAMES)}.")
    module, class_name = _MODELS[name]
    model: type[Recommender] = getattr(import_module(f"avrec_spark.models.{module}"), class_name)
    known = inspect.signature(model).parameters
    for parameter, value in parameters.items():
        if parameter not in known:
            raise SettingsError(
                f"The model {name} has no parameter {parameter}.{closest(parameter, known)}",
                f"It takes {', '.join(known) or 'none'}.",
            )
        default = known[parameter].default
        if not _fits(value, type(default)):
            raise SettingsError(
                f"The parameter {parameter} of the model {name} cannot be {value!r}.",
                f"It is a {type(default).__name__}; the default is {default!r}.",
            )
    return model(**parameters)


def _fits(value: Any, kind: type) -> bool:
    """Whether a value can stand for a default of that type; an integer can stand for a float."""
    numbers = {float: Real, int: Integral}
    if kind in numbers:
        return isinstance(value, numbers[kind]) and not isinstance(value, bool)
    return isinstance(value, kind)
