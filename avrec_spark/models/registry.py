"""Every model by name; a new one is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from avrec_spark.errors import SettingsError, closest
from avrec_spark.models.base import Recommender

# name: (module, class). Imported when asked for: torch and Spark load only with the models that need them.
_MODELS = {
    "popular": ("popular", "Popular"),
    "sar": ("sar", "SAR"),
    "ease": ("ease", "EASE"),
    "als": ("als", "ALS"),
    "mf": ("mf", "MatrixFactorisation"),
    "fusion": ("fusion", "Fusion"),
}
NAMES = tuple(_MODELS)


def create(name: str, **parameters: Any) -> Recommender:
    """A model with its default parameters and those given.

    Raises `SettingsError` for an unknown model or parameter.

    >>> create("ease", regularisation=300.0).parameters
    {'regularisation': 300.0}
    """
    if name not in _MODELS:
        raise SettingsError(f"There is no model {name}.{closest(name, NAMES)}", f"Choose of {', '.join(NAMES)}.")
    module, class_name = _MODELS[name]
    model: type[Recommender] = getattr(import_module(f"avrec_spark.models.{module}"), class_name)
    try:
        return model(**parameters)
    except TypeError:
        known = model().parameters
        wrong = ", ".join(sorted(set(parameters) - set(known)))
        raise SettingsError(
            f"The model {name} has no parameter {wrong}.", f"It takes {', '.join(known) or 'none'}."
        ) from None
