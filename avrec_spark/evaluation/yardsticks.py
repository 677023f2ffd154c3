"""Published protocols as named configurations: data, split, and what is ranked.

A protocol is exact, so that its figures can be laid beside published ones. Settings are chosen on a validation part
carved out of train (`Protocol.validation_parts`) and lie in conf/yardsticks; test is read once.

| name | test | validation, for choosing settings |
|---|---|---|
| lf-100k | a quarter of each item's ratings, at random | the same of train |
| last-out-100k | each user's last rating | the last of train |
| cold-100k | five folds of items that nobody has touched | a fifth of train's items |
| tiktok | its own file | its own file |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark import config
from avrec_spark.dataset.splits import TEST, TRAIN, leave_last_out, stratified_split
from avrec_spark.encoders import text
from avrec_spark.errors import DataError, MissingColumnsError, UsageError, closest
from avrec_spark.evaluation.files import read_features, read_interactions
from avrec_spark.evaluation.part import Part

_DEFAULT_DATA = Path(__file__).resolve().parents[2] / ".cache" / "data"


ALIASES = ("best-cf", "best")


@dataclass(frozen=True)
class Tuned:
    """Settings of one model: parameters over its defaults, and whether ratings are weights (else all weigh 1)."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    ratings_as_weights: bool = False


@dataclass(frozen=True)
class Protocol:
    """`test` and `validation` read the parts of a data folder; the second never opens what only the first may know.

    `fingerprints` are those of the test pairs, one a fold; `k` is the length of the lists and `metric` what settings
    are chosen by. For every user in test all train items are ranked, or the fold's, without the user's own train items.
    `validation` is told how many parts are wanted, and gives as many as it has. For models in `rated` the ratings are
    weights, for the others all interactions weigh 1. `best` names the models that were best on validation, `best` of
    all and `best-cf` of those that use no content.
    """

    name: str
    test: Callable[[Path], list[Part]]
    validation: Callable[[Path, int], list[Part]]
    fingerprints: tuple[str, ...]
    k: int
    metric: str
    rated: frozenset[str] = frozenset()
    best: Mapping[str, str] = field(default_factory=dict)

    def model(self, name: str) -> str:
        """The model that the alias `best` or `best-cf` stands for; any other name as it is.

        Raises `UsageError` where the protocol has not named one.

        >>> find("lf-100k").model("ease"), find("lf-100k").model("best-cf")
        ('ease', 'blend')
        """
        if name in ALIASES and name not in self.best:
            raise UsageError(f"{self.name} names no model as {name}.", "Give --model a name of the registry.")
        return self.best.get(name, name)

    def folds(self, data: Path | None, model: str) -> list[Part]:
        """Train and test as the model gets them. Raises `DataError` where test is not that of the protocol."""
        parts = self.test(data or default_data())
        for part, expected in zip(parts, self.fingerprints, strict=True):
            found = fingerprint(part.held_out)
            if found != expected:
                raise DataError(
                    f"The test rows of {self.name} have the fingerprint {found[:12]}…, not {expected[:12]}….",
                    "The data files differ from the published ones: fetch them again with make data.",
                )
        return self._weighted(parts, model)

    def validation_parts(self, data: Path | None, model: str, parts: int = 1) -> list[Part]:
        """Train divided again, for choosing settings: whatever they are, test has not been looked at.

        More than one part averages the chance of a single division; tiktok has only one.
        """
        return self._weighted(self.validation(data or default_data(), parts), model)

    def tuned(self, model: str) -> Tuned:
        """The model's settings as `avrec tune` wrote them to conf/yardsticks; its defaults where it wrote none."""
        file = config.shipped("yardsticks", f"{self.name}.yaml")
        written = config.load(file, environment={}).train.parameters if file.is_file() else {}
        return Tuned(written.get(model, {}), model in self.rated)

    def _weighted(self, parts: list[Part], model: str) -> list[Part]:
        if self.tuned(model).ratings_as_weights:
            return parts
        return [replace(part, train=part.train.assign(**{c.WEIGHT: 1.0})) for part in parts]


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


# -- ML-100K -----------------------------------------------------------------------------------------------------------


def read_movielens(folder: Path) -> pd.DataFrame:
    """ML-100K as user_id, item_id, weight (the rating), timestamp (epoch seconds) and row (position in the file).

    Reads `ml-100k.inter` as RecBole ships it (tab-separated, headers `name:type`), in `folder` or `folder`/ml-100k.
    """
    rows = _read_movielens(folder, "ml-100k.inter", {c.USER_ID, c.ITEM_ID, c.RATING, c.TIMESTAMP})
    rows = rows.rename(columns={c.RATING: c.WEIGHT})[[c.USER_ID, c.ITEM_ID, c.WEIGHT, c.TIMESTAMP]]
    return rows.assign(**{c.ROW: np.arange(len(rows))})


def read_films(folder: Path) -> pd.DataFrame:
    """All that ML-100K says of its films: item_id, title, year (NaN where unknown) and categories (lists of genres).

    Reads `ml-100k.item`, which lies beside the ratings.
    """
    names = {"movie_title": c.TITLE, "release_year": "year", "class": c.CATEGORIES}
    films = _read_movielens(folder, "ml-100k.item", {c.ITEM_ID, *names}).rename(columns=names)
    films["year"] = pd.to_numeric(films["year"], errors="coerce")
    films[c.CATEGORIES] = films[c.CATEGORIES].str.split()
    return films[[c.ITEM_ID, c.TITLE, "year", c.CATEGORIES]]


def film_features(films: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """genre: 0 or 1 a genre. year: 1 for each year up to that of the film, so that the squared distance of two films is
    the number of years between them.

    title: the vectors of the platform's own text encoder (extra `text`, about 15 seconds the first time in a process).
    """
    genres = sorted({genre for film in films[c.CATEGORIES] for genre in film})
    of_film = np.array([[genre in film for genre in genres] for film in films[c.CATEGORIES]], np.float32)
    dated = films[films["year"].notna()]
    reached = (dated["year"].to_numpy()[:, None] >= np.arange(1921, 2000)).astype(np.float32)
    return {
        "genre": pd.DataFrame({c.ITEM_ID: films[c.ITEM_ID], c.VECTOR: list(of_film)}),
        "year": pd.DataFrame({c.ITEM_ID: dated[c.ITEM_ID], c.VECTOR: list(reached)}),
        "title": pd.DataFrame({c.ITEM_ID: films[c.ITEM_ID], c.VECTOR: list(title_vectors(tuple(films[c.TITLE])))}),
    }


@lru_cache(maxsize=1)
def title_vectors(titles: tuple[str, ...]) -> NDArray[np.float32]:
    """float32[n, 384] of the encoder e5-text. Raises `MissingExtraError` without the extra `text`."""
    text.E5Encoder()
    return text.embedded(titles)


def _read_movielens(folder: Path, name: str, wanted: set[str]) -> pd.DataFrame:
    places = [folder / name, folder / "ml-100k" / name]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UsageError(f"There is no {name} in {folder} or {folder}/ml-100k.", "Run make data, or give --data.")
    rows = pd.read_csv(file, sep="\t").rename(columns=lambda column: column.partition(":")[0])
    missing = wanted - set(rows.columns)
    if missing:
        raise MissingColumnsError(str(file), missing, rows.columns)
    return rows


def _stratified(train: pd.DataFrame, seed: int) -> Part:
    return Part(*stratified_split(train, ratio=0.75, by=c.ITEM_ID, seed=seed))


def _lf_test(folder: Path) -> list[Part]:
    return [_stratified(read_movielens(folder), seed=42)]


def _lf_validation(folder: Path, parts: int) -> list[Part]:
    (part,) = _lf_test(folder)
    return [_stratified(part.train, seed=43 + n) for n in range(parts)]


LF_100K = Protocol(
    name="lf-100k",
    test=_lf_test,
    validation=_lf_validation,
    fingerprints=("107620cfe645be935fd0d6fba8fa701bfff14f326e1a1a315ba967f6009dee25",),
    k=10,
    metric="ndcg@10",
    rated=frozenset({"sar"}),
    best={"best-cf": "blend", "best": "blend"},
)


def _last_out(rows: pd.DataFrame) -> Part:
    split = leave_last_out(rows, test=1, validation=0, ties="row")
    train, test = (split[split[c.SPLIT] == part].drop(columns=c.SPLIT) for part in (TRAIN, TEST))
    return Part(train, test)


def _last_out_test(folder: Path) -> list[Part]:
    return [_last_out(read_movielens(folder))]


def _last_out_validation(folder: Path, parts: int) -> list[Part]:
    """The last but one, the last but two, …"""
    (part,) = _last_out_test(folder)
    found = []
    for _ in range(parts):
        part = _last_out(part.train)
        found.append(part)
    return found


LAST_OUT_100K = Protocol(
    name="last-out-100k",
    test=_last_out_test,
    validation=_last_out_validation,
    fingerprints=("d45c5d7f8e2a6d6eea803e9ec75d9e3813fffb04ffe2dc9295ee8b7d10af488a",),
    k=10,
    metric="hit-rate@10",
    rated=frozenset({"sar"}),
    best={"best-cf": "blend", "best": "blend"},
)

_COLD_FOLDS = 5
_POSITIVE_RATING = 4


def _cold(rows: pd.DataFrame, features: Mapping[str, pd.DataFrame], seed: int, fold: int) -> Part:
    """A fifth of the items leaves train; their ratings from 4 on are held out, and only these items are ranked."""
    permuted = np.random.default_rng(seed).permutation(np.sort(rows[c.ITEM_ID].unique()))
    items = np.array_split(permuted, _COLD_FOLDS)[fold]
    held = rows[c.ITEM_ID].isin(items)
    positive = rows[held & (rows[c.WEIGHT] >= _POSITIVE_RATING)]
    return Part(rows[~held], positive, features, items, fold)


def _cold_test(folder: Path) -> list[Part]:
    rows, features = read_movielens(folder), film_features(read_films(folder))
    return [_cold(rows, features, 42, fold) for fold in range(_COLD_FOLDS)]


def _cold_validation(folder: Path, parts: int) -> list[Part]:
    """Held-out items of the first fold's train: only the items of that fold have never been seen by the choice."""
    train = _cold_test(folder)[0]
    return [_cold(train.train, train.features, 43, fold) for fold in range(min(parts, _COLD_FOLDS))]


COLD_100K = Protocol(
    name="cold-100k",
    test=_cold_test,
    validation=_cold_validation,
    fingerprints=(
        "a154e84c4564b32067825fd506ffe6d884e5faf3943dd712185abdc78d7451a6",
        "87fac26c19f6fc6f50c4124a013fc8afbd443622c6d8de5e5c6828a8a642dc14",
        "c076e924f03c8bf3b2be8821627621c3f1c441cbc4a27b660207872842546d26",
        "14cc005ff4aa7a19180c89160e930863f850f1129d0ab4f62f237371de057dd2",
        "4714e37697157d013fc927799b83d9e2ae0e96419b6d74d54ff9502b929ac946",
    ),
    k=10,
    metric="ndcg@10",
    rated=frozenset({"kernel-ridge", "fusion", "blend"}),
    best={"best": "blend"},
)


# -- tiktok ------------------------------------------------------------------------------------------------------------

_TIKTOK_FEATURES = ("image", "audio")


def _tiktok(folder: Path, held_out: str) -> list[Part]:
    """Train and one of the two other files; all items that have vectors are ranked."""
    place = next((place for place in (folder, folder / "tiktok") if (place / "train.parquet").is_file()), None)
    if place is None:
        raise UsageError(
            f"There is no train.parquet in {folder} or {folder}/tiktok.",
            "Give --data a folder with train, validation, test, image_features and audio_features, each *.parquet.",
        )
    features = {name: read_features(place / f"{name}_features.parquet") for name in _TIKTOK_FEATURES}
    train, held = (read_interactions(place / f"{part}.parquet") for part in ("train", held_out))
    return [Part(train, held, features)]


TIKTOK = Protocol(
    name="tiktok",
    test=lambda folder: _tiktok(folder, "test"),
    validation=lambda folder, parts: _tiktok(folder, "validation"),
    fingerprints=("eed1ebd20b52d70ef708ae9a887c625c58df1727ff78be0b870fdb45993553f2",),
    k=20,
    metric="recall@20",
    best={"best-cf": "lightgcn", "best": "blend"},
)

PROTOCOLS = {protocol.name: protocol for protocol in (LF_100K, LAST_OUT_100K, COLD_100K, TIKTOK)}
