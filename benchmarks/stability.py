"""How far attacks on the events move recommendations, with and without the defences: `python -m benchmarks stability`.

ML-100K, the split of lf-100k. The attacker's events are added to the training part, all of it goes through the
cleaning kernel, and what is accepted trains the models; honest users are measured on their untouched test part.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings, EventSettings
from avrec_spark.dataset.splits import stratified_split
from avrec_spark.evaluation.executors import evaluate_numpy
from avrec_spark.evaluation.yardsticks import default_data, read_movielens
from avrec_spark.events.cleaning import clean
from avrec_spark.events.defences import defend
from avrec_spark.models import registry
from benchmarks.attacks import DAY, HONEST, Attack, Profiles, clocks, crawlers, none
from benchmarks.table import table

MODELS = {
    "popular": {},
    "item-knn": {},
    "user-knn": {},
    "ease": {"regularisation": 300.0},
    "sar": {"half_life_days": 30.0},
}
SEEDS = (1, 2, 3)
K = 10
# Some weeks after the last rating.
NOW = datetime(1998, 6, 1, tzinfo=UTC)
# No defences, and no check of clocks either.
OFF = EventSettings(defences=DefenceSettings(enabled=False), future_tolerance_seconds=1e9)
ON = EventSettings()
AT_ARRIVAL = EventSettings(future_times="arrival")
KEPT = "clocks years ahead, 1 % of rows, kept"
ATTACKS: dict[str, Attack] = {
    "none": none,
    "push, average, 5 %": Profiles("average", 47),
    "push, bandwagon, 5 %": Profiles("bandwagon", 47),
    "push, popular, 1 %": Profiles("popular", 9),
    "push, popular, 5 %": Profiles("popular", 47),
    "push, segment, 1 %": Profiles("segment", 9),
    "push, segment, 5 %": Profiles("segment", 47),
    "push, popular, 5 %, one address": Profiles("popular", 47, spread=600, address="one"),
    "push, popular, 5 %, three a day": Profiles("popular", 47, spread=16 * DAY),
    "push, popular, 5 %, one in four days": Profiles("popular", 47, spread=200 * DAY),
    "push, one profile copied, 5 %, one in four days": Profiles("ring", 47, spread=200 * DAY),
    "nuke, love/hate, 1 %": Profiles("love-hate", 9),
    "nuke, love/hate, 5 %": Profiles("love-hate", 47),
    "nuke, love/hate, 5 %, one in four days": Profiles("love-hate", 47, spread=200 * DAY),
    "crawlers, 10 accounts": crawlers,
    "clocks shuffled, 5 % of rows": clocks(0.05, ahead=False),
    "clocks years ahead, 1 % of rows": clocks(0.01, ahead=True),
    KEPT: clocks(0.01, ahead=True),
}
_NOTE = f"""Means over {len(SEEDS)} seeds. Attack models of Mobasher et al., ACM TOIT 2007, and O'Mahony et al., AAAI
2005: accounts rate the attacked film and others, all within half a day unless another time is named; 1 % are 9
accounts, 5 % are 47. Average: 40 others, drawn evenly and rated around their means. Popular: the 10 most rated films,
liked. Bandwagon: these and 30 drawn evenly. Segment: 10 films of one taste, liked. Push: a film of 10 to 30 ratings
is rated 5. Love/hate: one of the 50 most rated films is disliked, and the 40 most often seen with it are liked.
Copied: all accounts have one bandwagon profile. Clocks: the rows are those of honest users. Without: the defences and
the check of clocks are off. Shown: the share of users with the film in their top {K}; rank: its median over users.
The models learn who took what, not the stars. SAR is measured where clocks matter: its half-life counts from the
latest event. Kept: `events.future_times=arrival`, all events having arrived in one batch. The thresholds were set on
honest rows and on other attacks: 10 to 94 accounts, other films (5 to 60 ratings), spreads and seeds; that of two
crowds the likelier counts was added after a look at the first of these seeds.
"""


def run() -> str:
    train, test = stratified_split(read_movielens(default_data()), ratio=0.75, by=c.ITEM_ID, seed=42)
    honest = train.rename(columns={c.WEIGHT: c.RATING})[[c.USER_ID, c.ITEM_ID, c.RATING, c.TIMESTAMP]]
    honest = honest.assign(**{c.EVENT_TYPE: "rating", c.ADDRESS: "home" + honest[c.USER_ID].astype(str), HONEST: True})
    untouched, found = accepted(honest, OFF)[0], []
    before = {model: _ranked(model, untouched, test) for model in MODELS}
    for name, attack in ATTACKS.items():
        for seed in SEEDS:
            rows, item = attack(honest, np.random.default_rng(seed))
            found += _measured(name, rows, item, before, untouched, test)
    means = pd.DataFrame(found).groupby(["model", "attack"], sort=False).mean()
    header = [
        *("model", "attack", "attacker's rows refused", "honest rows refused"),
        *(f"NDCG@{K}: without", "with", f"same items in the top {K}: without", "with"),
        *("users shown the attacked item: before", "without", "with", "its median rank: before", "without", "with"),
    ]
    lines = [[*names, *_figures(means.loc[names])] for names in sorted(means.index, key=_place)]
    text = table("Stability under attack", "python -m benchmarks stability", header, lines)
    return f"{text}\n{_NOTE}"


def _place(names: tuple[str, str]) -> tuple[int, int]:
    return list(MODELS).index(names[0]), list(ATTACKS).index(names[1])


def _measured(
    name: str,
    rows: pd.DataFrame,
    item: int | None,
    before: dict[str, pd.DataFrame],
    untouched: pd.DataFrame,
    test: pd.DataFrame,
) -> list[dict[str, float | str]]:
    """One row a model."""
    settings = {"without": OFF, "with": AT_ARRIVAL if name == KEPT else ON}
    trained = {one: accepted(rows, what) for one, what in settings.items()}
    refused, is_honest = trained["with"][1], rows[HONEST].to_numpy(bool)
    found = []
    for model in MODELS:
        if (model == "sar" and "clocks" not in name and name != "none") or (model == "popular" and "clocks" in name):
            continue
        one = {"model": model, "attack": name, "honest": refused[is_honest].mean()}
        one["refused"] = refused[~is_honest].mean() if not is_honest.all() else np.nan
        lists = {"before": before[model]}
        for when, (interactions, _) in trained.items():
            same = interactions.equals(untouched)
            lists[when] = before[model] if same else _ranked(model, interactions, test)
        for when, ranked in lists.items():
            one |= {f"{figure} {when}": value for figure, value in _moved(ranked, before[model], item, test).items()}
        found.append(one)
    return found


def _moved(ranked: pd.DataFrame, before: pd.DataFrame, item: int | None, test: pd.DataFrame) -> dict[str, float]:
    top, was = (lists[lists[c.RANK] <= K] for lists in (ranked, before))
    of_item = ranked.loc[ranked[c.ITEM_ID] == item, c.RANK]
    return {
        "ndcg": evaluate_numpy(top, test, (K,), test[c.ITEM_ID].nunique(), 0)[f"ndcg@{K}"]["mean"],
        "same": len(top.merge(was, on=[c.USER_ID, c.ITEM_ID])) / len(was),
        "shown": np.nan if item is None else float((of_item <= K).sum() / top[c.USER_ID].nunique()),
        "rank": np.nan if item is None else float(of_item.median()),
    }


def accepted(rows: pd.DataFrame, settings: EventSettings) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """(interactions, which of the rows were refused)."""
    text = rows.astype({c.TIMESTAMP: str, c.RATING: object}).reset_index(drop=True)
    text[c.EVENT_ID] = text.index.astype(str)
    judged = clean(text.assign(**{c.WATCH_SECONDS: None}), settings, NOW)
    judged.loc[judged[c.REASON].isna(), c.REASON] = defend(judged[judged[c.REASON].isna()], settings.defences)
    kept = judged[judged[c.REASON].isna() & (judged[c.WEIGHT] > 0)]
    seconds = kept[c.TIMESTAMP].astype("datetime64[s, UTC]").astype("int64").astype(float)
    interactions = kept[[c.USER_ID, c.ITEM_ID, c.WEIGHT]].assign(**{c.TIMESTAMP: seconds})
    grouped = interactions.groupby([c.USER_ID, c.ITEM_ID], as_index=False)
    return grouped.agg({c.WEIGHT: "sum", c.TIMESTAMP: "max"}), judged[c.REASON].notna().to_numpy()


def _ranked(model: str, interactions: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """All items that a user has not had, in their order."""
    fitted = registry.create(model, **MODELS[model]).fit(interactions)
    return fitted.recommend(test[c.USER_ID].unique(), interactions[c.ITEM_ID].nunique())


def _figures(mean: pd.Series) -> list[str]:
    def text(name: str, form: str) -> str:
        return "–" if np.isnan(mean[name]) else f"{mean[name]:{form}}"

    figures = {"ndcg": ".4f", "same": ".1%", "shown": ".1%", "rank": ".0f"}
    ends = {"ndcg": ("without", "with"), "same": ("without", "with")}
    moved = [
        text(f"{figure} {when}", form)
        for figure, form in figures.items()
        for when in ends.get(figure, ("before", "without", "with"))
    ]
    return [text("refused", ".1%"), text("honest", ".2%"), *moved]
