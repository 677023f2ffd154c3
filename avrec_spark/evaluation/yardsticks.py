"""Published protocols as named configurations: data, split, what is ranked, and the settings of each model.

A protocol is exact, so that its figures can be laid beside published ones. Settings were chosen on a validation part
carved out of train; test is read once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.dataset.splits import stratified_split
from avrec_spark.errors import DataError, MissingColumnsError, UsageError, closest

_DEFAULT_DATA = Path(__file__).resolve().parents[2] / ".cache" / "data"


@dataclass(frozen=True)
class Tuned:
    """Settings of one model: parameters over its defaults, and whether ratings are weights (else all weigh 1)."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    ratings_as_weights: bool = False


@dataclass(frozen=True)
class Protocol:
    """`split` gives (train, test) from a data folder; `fingerprint` is that of test; `k` the length of the lists.

    For every user in test all train items are ranked, the user's own train items removed.
    """

    name: str
    split: Callable[[Path], tuple[pd.DataFrame, pd.DataFrame]]
    fingerprint: str
    k: int
    models: Mapping[str, Tuned]

    def parts(self, data: Path | None, model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(train, test) as the model gets them. Raises `DataError` where test is not that of the protocol."""
        train, test = self.split(data or default_data())
        found = fingerprint(test)
        if found != self.fingerprint:
            raise DataError(
                f"The test rows of {self.name} have the fingerprint {found[:12]}…, not {self.fingerprint[:12]}….",
                "The data files differ from the published ones: fetch them again with make data.",
            )
        return (train if self.tuned(model).ratings_as_weights else train.assign(**{c.WEIGHT: 1.0})), test

    def tuned(self, model: str) -> Tuned:
        """The model's settings; its defaults where the protocol says nothing."""
        return self.models.get(model, Tuned())


def find(name: str) -> Protocol:
    """The protocol of that name. Raises `UsageError` where there is none."""
    if name not in PROTOCOLS:
        raise UsageError(
            f"There is no yardstick {name}.{closest(name, PROTOCOLS)}", f"Choose of {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]


def default_data() -> Path:
    """Where `make data` puts public data: the environment's AVREC_DATA, else .cache/data of the repository."""
    return Path(os.environ.get("AVREC_DATA", _DEFAULT_DATA))


def fingerprint(pairs: pd.DataFrame) -> str:
    """SHA-256 of lines `user_id<TAB>item_id<LF>`, sorted as integers by user, then item.

    >>> fingerprint(pd.DataFrame({"user_id": [2, 1], "item_id": [3, 4]}))[:8]
    'aae66197'
    """
    ordered = pairs[[c.USER_ID, c.ITEM_ID]].astype(np.int64).sort_values([c.USER_ID, c.ITEM_ID])
    return hashlib.sha256(ordered.to_csv(sep="\t", header=False, index=False, lineterminator="\n").encode()).hexdigest()


def read_movielens(folder: Path) -> pd.DataFrame:
    """ML-100K as user_id, item_id, weight (the rating), timestamp (epoch seconds) and row (position in the file).

    Reads `ml-100k.inter` as RecBole ships it (tab-separated, headers `name:type`), in `folder` or `folder`/ml-100k.
    """
    places = [folder / "ml-100k.inter", folder / "ml-100k" / "ml-100k.inter"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UsageError(
            f"There is no ml-100k.inter in {folder} or {folder}/ml-100k.", "Run make data, or give --data."
        )
    rows = pd.read_csv(file, sep="\t").rename(columns=lambda name: name.partition(":")[0])
    missing = {c.USER_ID, c.ITEM_ID, c.RATING, c.TIMESTAMP} - set(rows.columns)
    if missing:
        raise MissingColumnsError(str(file), missing, rows.columns)
    rows = rows.rename(columns={c.RATING: c.WEIGHT})[[c.USER_ID, c.ITEM_ID, c.WEIGHT, c.TIMESTAMP]]
    return rows.assign(**{c.ROW: np.arange(len(rows))})


def _lf_100k(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return stratified_split(read_movielens(folder), ratio=0.75, by=c.ITEM_ID, seed=42)


LF_100K = Protocol(
    name="lf-100k",
    split=_lf_100k,
    fingerprint="107620cfe645be935fd0d6fba8fa701bfff14f326e1a1a315ba967f6009dee25",
    k=10,
    models={
        "sar": Tuned({"half_life_days": 30.0}, ratings_as_weights=True),
        "als": Tuned({"rank": 32, "alpha": 5.0, "regularisation": 0.3, "iterations": 15}),
        "ease": Tuned({"regularisation": 300.0}),
        "mf": Tuned({"dimension": 64, "dropout": 0.6, "weight_decay": 0.5, "epochs": 24}),
    },
)

PROTOCOLS = {protocol.name: protocol for protocol in (LF_100K,)}
