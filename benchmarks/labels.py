"""Predicted labels: the genres of ML-100K's films from their titles, by every classifier and by fusion's own head.

A title says little of a genre, so that all figures are low: what is to be seen is how the classifiers compare, and
whether their confidence means what it says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import FeatureMatrix, TrainingSet
from avrec_spark.evaluation import yardsticks
from avrec_spark.labels import calibration, classify
from avrec_spark.labels.learning import figures, learn
from avrec_spark.labels.metrics import METRICS, mean_average_precision
from avrec_spark.labels.truth import CALIBRATION, TEST, TRAIN, VALIDATION, known_labels, learnable, parts
from avrec_spark.labels.words import word_vectors
from avrec_spark.models import registry
from benchmarks.table import table

COMMAND = "python -m benchmarks labels"
# Each deals the films to the parts anew.
SEEDS = (1, 2, 3)
AT_LEAST = 20
GENRES = "genres"
# Of fusion's head: with content alone, and with behaviour beside it. The number of epochs is chosen on validation.
HEADS = {"fusion, classify": 0.0, "fusion, classify and softmax": 1.0}
EPOCHS = (2, 5, 10)
FIXED = {"labels": GENRES, "classify": 1.0, "batch_size": 2048}

Floats = NDArray[np.float32]


def run() -> str:
    data = yardsticks.default_data()
    films, ratings = yardsticks.read_films(data), yardsticks.read_movielens(data)
    vectors = yardsticks.title_vectors(tuple(films[c.TITLE]))
    features = {"title": FeatureMatrix(vectors, np.ones(len(films), np.bool_))}
    words = word_vectors(films[c.TITLE].tolist())
    assert words is not None
    features["words"] = words
    names, known = known_labels(films[c.CATEGORIES])
    found = pd.concat([_measured(films, ratings, features, names, known, seed) for seed in SEEDS])
    return _told(found, len(films), int(((known == 1).sum(axis=0) >= AT_LEAST).sum()))


def _measured(
    films: pd.DataFrame,
    ratings: pd.DataFrame,
    features: dict[str, FeatureMatrix],
    names: list[str],
    known: Floats,
    seed: int,
) -> pd.DataFrame:
    """model, metric, mean on test: of the classifiers of the labels job, and of fusion's head."""
    part = parts(films[c.ITEM_ID], seed)
    learnt = learn(names, known, part, features, at_least=AT_LEAST, seed=seed)
    quality = learnt.quality[learnt.quality[c.SPLIT] == TEST]
    rows = list(quality[[c.MODEL, c.METRIC, c.MEAN]].itertuples(index=False, name=None))
    kept = known[:, learnable(names, known, part, AT_LEAST)[0]]
    for head, softmax in HEADS.items():
        scores = _head(films, ratings, features, kept, part, seed, softmax)
        at = {name: part == name for name in (CALIBRATION, TEST)}
        calibrate = calibration.fit("temperature", scores[at[CALIBRATION]], kept[at[CALIBRATION]])
        measured = figures(scores[at[TEST]], kept[at[TEST]], calibrate)
        rows += [(head, metric, mean) for metric, mean in measured.items()]
    return pd.DataFrame(rows, columns=[c.MODEL, c.METRIC, c.MEAN])


def _head(
    films: pd.DataFrame,
    ratings: pd.DataFrame,
    features: dict[str, FeatureMatrix],
    known: Floats,
    part: NDArray[np.str_],
    seed: int,
    softmax: float,
) -> Floats:
    """float32[films, labels]: the logits of fusion's head, which has learnt the genres of train, best on validation."""
    ids = films[c.ITEM_ID]
    frames = {
        name: pd.DataFrame({c.ITEM_ID: ids[matrix.present], c.VECTOR: list(matrix.values[matrix.present])})
        for name, matrix in features.items()
    }
    learns = part == TRAIN
    frames[GENRES] = pd.DataFrame({c.ITEM_ID: ids[learns], c.VECTOR: list(known[learns])})
    training_set = TrainingSet.from_frames(ratings.assign(**{c.WEIGHT: 1.0}), frames)
    rows = training_set.items.encode(ids)
    found, best = np.empty(0, np.float32), -np.inf
    for epochs in EPOCHS:
        parameters: dict[str, Any] = {**FIXED, "softmax": softmax, "epochs": epochs, "seed": seed}
        model: Any = registry.create("fusion", **parameters).fit_training_set(training_set)
        scores = logit(model.tags()[rows].astype(np.float64).clip(1e-7, 1 - 1e-7)).astype(np.float32)
        precision = mean_average_precision(known[part == VALIDATION], scores[part == VALIDATION])
        if precision > best:
            found, best = scores, precision
    return found


def _told(found: pd.DataFrame, films: int, labels: int) -> str:
    rows = []
    for model in (*classify.CANDIDATES, *HEADS):
        values = [found.loc[(found[c.MODEL] == model) & (found[c.METRIC] == one), c.MEAN] for one in METRICS]
        rows.append([model, *(f"{one.mean():.3f} ({one.min():.3f} – {one.max():.3f})" for one in values)])
    header = ["classifier", "mAP", "macro F1", "micro F1", "ECE as scored", "ECE calibrated"]
    return (
        table(f"Labels: genres of {films:,} films by their titles", COMMAND, header, rows)
        + f"\n{labels} genres that at least {AT_LEAST} films have, from the vectors of e5-text and from character "
        f"n-grams of the titles. Mean over {len(SEEDS)} divisions of the films, and between which values they lay; on "
        "test, of which nothing is chosen; temperature scaling. The fusion network's head reads the same vectors, "
        "without behaviour and with the ratings as a second task; its number of epochs "
        f"({', '.join(map(str, EPOCHS))}) is chosen on validation.\n"
    )
