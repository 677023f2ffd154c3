"""The life of the fusion model on ML-100K: updates next to full retraining, starts from elsewhere, newcomers.

Settings are the model's defaults, with larger batches and fewer epochs where all of ML-100K is read, those of an update
the defaults of `train.start`, and of newcomers those of `recommend.newcomers`; nothing is chosen by these figures.
NDCG@10 over all items, what a user has in train left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.dataset.splits import TEST, TRAIN, VALIDATION, split_groups
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.evaluation import executors, yardsticks
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.update import quality, takes, update
from avrec_spark.recommend.newcomers import histories_of_tags, similar_users
from benchmarks.table import table

SEEDS = (42, 142, 242)
LARGE: dict[str, Any] = {"epochs": 10, "batch_size": 4096, "learning_rate": 0.03}
COMMAND = "python -m benchmarks lifecycle"
K = 10
# Of all events by time, those of the first period.
FIRST = 0.7
# A newcomer's events that may be known, and users held back.
KNOWN, NEWCOMERS = (0, 1, 3, 10), 0.1
# Events of a user that the second catalogue has.
FEW = 5


def run() -> str:
    return "\n".join([_updates(), _starts(), _newcomers()])


@cache
def _rows() -> pd.DataFrame:
    rows = yardsticks.read_movielens(yardsticks.default_data())
    return rows.assign(**{c.WEIGHT: 1.0}).sort_values([c.TIMESTAMP, c.ROW], ignore_index=True).drop(columns=c.ROW)


@cache
def _films() -> pd.DataFrame:
    return yardsticks.read_films(yardsticks.default_data())


@cache
def _features() -> dict[str, pd.DataFrame]:
    return yardsticks.film_features(_films())


# -- updates -----------------------------------------------------------------------------------------------------------


def _updates() -> str:
    """Two periods, each with parts of its own; test parts of both are measured after every way to go on."""
    rows = _rows()
    cut = int(FIRST * len(rows))
    first, second = (split_groups(part.reset_index(drop=True), 0.1, 0.2) for part in (rows[:cut], rows[cut:]))
    both = pd.concat([first, second], ignore_index=True)
    measured: dict[str, list[tuple[float, float, float]]] = {}
    for seed in SEEDS:
        for name, figures in _ways(first, second, both, seed).items():
            measured.setdefault(name, []).append(figures)
    lines = [
        [name, *(_spread([one[n] for one in each]) for n in (0, 1)), f"{statistics.mean(one[2] for one in each):.1f}"]
        for name, each in measured.items()
    ]
    users = [set(part[c.USER_ID]) for part in (first, second)]
    title = (
        f"Fusion: an update next to full retraining, ML-100K, {len(first):,} and then {len(second):,} events "
        f"({len(users[1] - users[0])} of {len(users[1])} users of the second period are new)"
    )
    header = ["model", "NDCG@10 on the first period", "NDCG@10 on the second", "seconds"]
    return table(title, COMMAND, header, lines)


def _ways(
    first: pd.DataFrame, second: pd.DataFrame, both: pd.DataFrame, seed: int
) -> dict[str, tuple[float, float, float]]:
    def given(rows: pd.DataFrame) -> TrainingSet:
        train, validation = (rows[rows[c.SPLIT] == part] for part in (TRAIN, VALIDATION))
        return TrainingSet.from_frames(train, _features(), validation=validation)

    tests = [part[part[c.SPLIT] == TEST] for part in (first, second)]
    found = {}

    def measure(name: str, make: Callable[[], Fusion]) -> Fusion:
        started = time.perf_counter()
        model = make()
        seconds = time.perf_counter() - started
        found[name] = (quality(model, tests[0]), quality(model, tests[1]), seconds)
        return model

    everything = given(both)
    before = measure("first period alone", lambda: Fusion(seed=seed, **LARGE).fit_training_set(given(first)))
    new = second[second[c.SPLIT] == TRAIN]
    measure("… with the second folded in", lambda: before.fold_in(new))
    for name, rehearsal in (("updated", 1.0), ("updated, new events only", 0.0)):
        measure(
            name, lambda share=rehearsal: update(Fusion(seed=seed, **LARGE), before, everything, rehearsal=share).model
        )
    assert takes(before, everything).any()
    measure("trained anew on both", lambda: Fusion(seed=seed, **LARGE).fit_training_set(everything))
    return found


# -- starts ------------------------------------------------------------------------------------------------------------


def _starts() -> str:
    """Half of the films and half of the users are another catalogue, of which the first one knows nothing."""
    rows, measured = _rows(), {}
    for seed in SEEDS:
        generator = np.random.default_rng(seed)
        theirs = {
            name: set(generator.permutation(rows[name].unique())[::2].tolist()) for name in (c.USER_ID, c.ITEM_ID)
        }
        inside = {name: rows[name].isin(kept) for name, kept in theirs.items()}
        here, there = inside[c.USER_ID] & inside[c.ITEM_ID], ~inside[c.USER_ID] & ~inside[c.ITEM_ID]
        features = [
            {name: frame[frame[c.ITEM_ID].isin(theirs[c.ITEM_ID]) == side] for name, frame in _features().items()}
            for side in (True, False)
        ]
        source = Fusion(seed=seed).fit(rows[here], features[0])
        known, test = _few(rows[there].reset_index(drop=True), features[1])
        pretrained = Fusion(seed=seed, align=1.0).pretrain(features[1])
        everywhere = Fusion(seed=seed, align=1.0).pretrain(_features())
        for name, start in (
            ("nothing", None),
            ("its own films, pre-trained", pretrained),
            ("all films, pre-trained", everywhere),
            ("the model of the other catalogue", source),
        ):
            model = Fusion(seed=seed)
            model = model if start is None else model.starting_from(start, ids=False)
            model.fit_training_set(known)
            warm = test[c.ITEM_ID].isin(known.items.ids[np.unique(known.item_index)])
            cold = model.items.ids[model.popularity(model.items.ids) == 0]
            measured.setdefault(name, []).append((quality(model, test[warm]), quality(model, test[~warm], cold)))
    lines = [[name, *(_spread(list(values)) for values in zip(*each, strict=True))] for name, each in measured.items()]
    title = f"Fusion: where a fit begins, half of ML-100K with {FEW} events a user"
    return (
        table(title, COMMAND, ["begins with", "NDCG@10, touched films", "NDCG@10 among untouched films"], lines)
        + "\nMovieLens has three small modalities, of which there is little to learn beforehand. Where content tells "
        "tastes, a start does make a difference (tests/models/test_lifecycle.py).\n"
    )


def _few(rows: pd.DataFrame, features: dict[str, pd.DataFrame]) -> tuple[TrainingSet, pd.DataFrame]:
    """A user's first events are trained on, the two after them are validation, and the rest is test."""
    place = rows.groupby(c.USER_ID).cumcount()
    train, validation = rows[place < FEW], rows[(place >= FEW) & (place < FEW + 2)]
    return TrainingSet.from_frames(train, features, validation=validation), rows[place >= FEW + 2]


# -- newcomers ---------------------------------------------------------------------------------------------------------


def _newcomers() -> str:
    """Users that the model has not seen; what they do after their first events is what lists are measured on."""
    measured: dict[str, list[float]] = {}
    for seed in SEEDS:
        for name, value in _of_newcomers(seed).items():
            measured.setdefault(name, []).append(value)
    title = f"Fusion: newcomers of ML-100K, measured on what follows their {max(KNOWN)} first events"
    return (
        table(title, COMMAND, ["known of a newcomer", "NDCG@10"], [[n, _spread(v)] for n, v in measured.items()])
        + "\nOne to ten events say little beside popularity here, so `prior_events`, which the fit chooses, lets them "
        "count little. Another way to choose it was read on these users first.\n"
    )


def _of_newcomers(seed: int) -> dict[str, float]:
    rows = _rows()
    everybody = np.random.default_rng(seed).permutation(rows[c.USER_ID].unique())
    new = np.sort(everybody[: int(NEWCOMERS * len(everybody))])
    ours = split_groups(rows[~rows[c.USER_ID].isin(new)].reset_index(drop=True), 0.1, 0.1)
    train = ours[ours[c.SPLIT] != VALIDATION]
    training_set = TrainingSet.from_frames(train, _features(), validation=ours[ours[c.SPLIT] == VALIDATION])
    model = Fusion(seed=seed, **LARGE).fit_training_set(training_set)
    theirs = rows[rows[c.USER_ID].isin(new)]
    place = theirs.groupby(c.USER_ID).cumcount()
    test = theirs[place >= max(KNOWN)]

    def first(n: int) -> list[list[Any]]:
        grouped = theirs[place < n].groupby(c.USER_ID)[c.ITEM_ID].agg(list)
        return [grouped.get(user, []) for user in new]

    # What they do at first is no answer to what they do later, whatever a list knows of it.
    started = first(max(KNOWN))

    def figure(lists: pd.DataFrame) -> float:
        named = lists.assign(**{c.USER_ID: new[lists[c.USER_ID]]})
        return float(executors.evaluate_numpy(named, test, (K,), len(model.items), bootstrap=0)["ndcg@10"]["mean"])

    found = {f"{n} events": figure(model.recommend_for_history(first(n), K, exclude=started)) for n in KNOWN}
    near = {n: similar_users(model.score_sources()[0].left, model.user_vectors(first(n))) for n in KNOWN if n}
    found |= {
        f"{n} events, by similar users": figure(model.recommend_as(one, K, exclude=started)) for n, one in near.items()
    }
    attributes = _attributes()
    alike = similar_users(attributes.loc[model.users.ids].to_numpy(), attributes.loc[new].to_numpy())
    found["age, sex and occupation, by similar users"] = figure(model.recommend_as(alike, K, exclude=started))
    tags = _films().rename(columns={c.CATEGORIES: c.TAGS})
    tags = tags.sort_values(c.ITEM_ID, key=model.popularity, ascending=False)
    histories = histories_of_tags(tags, _genres(started))
    lists = model.recommend_for_history(histories, K, filter_seen=False, exclude=started)
    found["the two genres of most of those events, declared"] = figure(lists)
    return found


def _genres(histories: list[list[Any]]) -> list[list[str]]:
    of_film = _films().set_index(c.ITEM_ID)[c.CATEGORIES]
    counts = [pd.Series([genre for film in films for genre in of_film[film]]).value_counts() for films in histories]
    return [count.index[:2].tolist() for count in counts]


def _attributes() -> pd.DataFrame:
    """Age in tens of years, sex and occupation as 0 or 1, all about their means; by user."""
    file = yardsticks.default_data() / "ml-100k" / "ml-100k.user"
    users = pd.read_csv(file, sep="\t").rename(columns=lambda name: name.partition(":")[0]).set_index(c.USER_ID)
    numbers = pd.concat([users["age"] / 10, pd.get_dummies(users[["gender", "occupation"]])], axis=1).astype(float)
    return numbers - numbers.mean()


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} – {max(values):.4f})"
