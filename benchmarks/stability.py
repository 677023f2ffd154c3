"""How far attacks on the events move recommendations, with and without the defences: `python -m benchmarks stability`.

ML-100K, the split of lf-100k. The attacker's events are added to the training part, all of it goes through the
cleaning kernel, and what is accepted trains the models; honest users are measured on their untouched test part.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.config import DefenceSettings, EventSettings
from avrec_spark.dataset.splits import stratified_split
from avrec_spark.evaluation.executors import evaluate_numpy
from avrec_spark.evaluation.yardsticks import default_data, read_movielens
from avrec_spark.events.cleaning import clean
from avrec_spark.events.defences import defend
from avrec_spark.models import registry
from benchmarks.table import table

MODELS = {"ease": {"regularisation": 300.0}, "item-knn": {}, "sar": {"half_life_days": 30.0}}
SEEDS = (1, 2, 3)
K, FILLERS, DAY = 10, 40, 86_400
# Some weeks after the last rating.
NOW = datetime(1998, 6, 1, tzinfo=UTC)
# No defences, and no check of clocks either.
OFF = EventSettings(defences=DefenceSettings(enabled=False), future_tolerance_seconds=1e9)
ON = EventSettings()
_NOTE = f"""Means over {len(SEEDS)} seeds. A profile is an account with {FILLERS} films, drawn by their popularity,
beside the attacked one; 1 % are 9 accounts, 5 % are 47. Push: a film of 10 to 30 ratings is rated 5. Nuke: one of the
50 most rated films is disliked, and those most often seen with it are liked in its place. Without: the defences and the
check of clocks are off. What comes slowly, a few accounts a day, looks like honest newcomers and is not refused; nor is
what the accounts of a flood did elsewhere. SAR is measured where clocks matter: its half-life counts from the latest
event.
"""
# (rows of the training part, generator) → (rows after the attack, the attacked item or None)
Attack = Callable[[pd.DataFrame, np.random.Generator], tuple[pd.DataFrame, int | None]]


def run() -> str:
    train, test = stratified_split(read_movielens(default_data()), ratio=0.75, by=c.ITEM_ID, seed=42)
    honest = train.rename(columns={c.WEIGHT: c.RATING})[[c.USER_ID, c.ITEM_ID, c.RATING, c.TIMESTAMP]]
    honest = honest.assign(**{c.EVENT_TYPE: "rating", c.ADDRESS: "home" + honest[c.USER_ID].astype(str)})
    users = test[c.USER_ID].unique()
    lines = []
    for model in MODELS:
        untouched = _recommend(model, _accepted(honest, OFF)[0], users)
        for name, attack in ATTACKS.items():
            if model == "sar" and "clock" not in name and name != "none":
                continue
            lines.append([model, name, *_measured(model, attack, honest, untouched, test)])
    header = [
        *("model", "attack", "attacker's rows refused", "honest rows refused"),
        *(f"NDCG@{K}: without", "with", f"same items in the top {K}: without", "with"),
        *("users shown the attacked item: before", "without", "with"),
    ]
    text = table("Stability under attack", "python -m benchmarks stability", header, lines)
    return f"{text}\n{_NOTE}"


def _measured(
    model: str, attack: Attack, honest: pd.DataFrame, untouched: pd.DataFrame, test: pd.DataFrame
) -> list[str]:
    found = []
    for seed in SEEDS:
        rows, item = attack(honest.assign(honest=True), np.random.default_rng(seed))
        one = {"before": _shown(untouched, item)}
        for name, settings in {"without": OFF, "with": ON}.items():
            accepted, refused = _accepted(rows, settings)
            lists = _recommend(model, accepted, test[c.USER_ID].unique())
            figures = evaluate_numpy(lists, test, (K,), test[c.ITEM_ID].nunique(), 0)
            one |= {f"ndcg {name}": figures[f"ndcg@{K}"]["mean"], f"shown {name}": _shown(lists, item)}
            one[f"same {name}"] = len(lists.merge(untouched, on=[c.USER_ID, c.ITEM_ID])) / len(untouched)
        is_honest = rows["honest"].to_numpy(bool)
        one["attack"] = refused[~is_honest].mean() if not is_honest.all() else np.nan
        found.append(one | {"honest": refused[is_honest].sum()})
    mean = pd.DataFrame(found).mean()

    def percent(name: str) -> str:
        return "–" if np.isnan(mean[name]) else f"{mean[name]:.1%}"

    return [
        *(percent("attack"), f"{mean['honest']:.0f}", f"{mean['ndcg without']:.4f}", f"{mean['ndcg with']:.4f}"),
        *(percent(name) for name in ("same without", "same with", "before", "shown without", "shown with")),
    ]


def _accepted(rows: pd.DataFrame, settings: EventSettings) -> tuple[pd.DataFrame, np.ndarray]:
    """(interactions, which of the rows were refused)."""
    text = rows.astype({c.TIMESTAMP: str, c.RATING: object}).reset_index(drop=True)
    text[c.EVENT_ID] = text.index.astype(str)
    judged = clean(text.assign(**{c.WATCH_SECONDS: None}), settings, NOW)
    judged.loc[judged[c.REASON].isna(), c.REASON] = defend(judged[judged[c.REASON].isna()], settings.defences)
    accepted = judged[judged[c.REASON].isna() & (judged[c.WEIGHT] > 0)]
    seconds = accepted[c.TIMESTAMP].astype("datetime64[s, UTC]").astype("int64").astype(float)
    interactions = accepted[[c.USER_ID, c.ITEM_ID, c.WEIGHT]].assign(**{c.TIMESTAMP: seconds})
    grouped = interactions.groupby([c.USER_ID, c.ITEM_ID], as_index=False)
    return grouped.agg({c.WEIGHT: "sum", c.TIMESTAMP: "max"}), judged[c.REASON].notna().to_numpy()


def _recommend(model: str, interactions: pd.DataFrame, users: np.ndarray) -> pd.DataFrame:
    return registry.create(model, **MODELS[model]).fit(interactions).recommend(users, K)


def _shown(lists: pd.DataFrame, item: int | None) -> float:
    return np.nan if item is None else float((lists[c.ITEM_ID] == item).sum() / lists[c.USER_ID].nunique())


# -- attacks ---------------------------------------------------------------------------------------------------------


def _none(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
    return rows, None


def _profiles(
    rows: pd.DataFrame, random: np.random.Generator, accounts: int, spread: float, address: str | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """(events of new accounts on films drawn by popularity, when each begins), all within `spread` seconds."""
    start = rows[c.TIMESTAMP].quantile(0.5) // DAY * DAY + 3600 if spread < 10 * DAY else rows[c.TIMESTAMP].min()
    begin = start + np.sort(random.uniform(0, spread, accounts))
    share = rows[c.ITEM_ID].value_counts(normalize=True).sort_index()
    parts = []
    for number, moment in enumerate(begin):
        after = np.cumsum(random.exponential(20.0, FILLERS))
        parts.append(
            _events(
                10_000 + number,
                random.choice(share.index, FILLERS, replace=False, p=share),
                moment + after,
                "rating",
                random,
                address,
            )
        )
    return pd.concat(parts), begin


def _events(
    user: int, films: np.ndarray, times: np.ndarray, kind: str, random: np.random.Generator, address: str | None
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            c.USER_ID: user,
            c.ITEM_ID: films,
            c.RATING: random.integers(3, 6, len(films)),
            c.TIMESTAMP: np.asarray(times).astype(np.int64),
            c.EVENT_TYPE: kind,
            c.ADDRESS: address or f"hotel{user}",
            "honest": False,
        }
    )


def _push(accounts: int, spread: float = DAY / 2, address: str | None = None) -> Attack:
    def attack(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
        count = rows[c.ITEM_ID].value_counts().sort_index()
        item = int(random.choice(count.index[(count >= 10) & (count <= 30)]))
        fillers, begin = _profiles(rows, random, accounts, spread, address)
        fillers = fillers[fillers[c.ITEM_ID] != item]
        pushed = [
            _events(10_000 + n, np.array([item]), [moment + 5], "rating", random, address).assign(**{c.RATING: 5})
            for n, moment in enumerate(begin)
        ]
        return pd.concat([rows, fillers, *pushed]), item

    return attack


def _nuke(accounts: int) -> Attack:
    def attack(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
        item = int(random.choice(rows[c.ITEM_ID].value_counts().index[:50]))
        fans = rows.loc[rows[c.ITEM_ID] == item, c.USER_ID]
        rivals = rows.loc[rows[c.USER_ID].isin(fans) & (rows[c.ITEM_ID] != item), c.ITEM_ID]
        rivals = rivals.value_counts().index[:FILLERS].to_numpy()
        _, begin = _profiles(rows, random, accounts, DAY / 2)
        parts = []
        for n, moment in enumerate(begin):
            times = moment + np.cumsum(random.exponential(20.0, len(rivals)))
            parts.append(_events(10_000 + n, random.permutation(rivals), times, "like", random, None))
            parts.append(_events(10_000 + n, np.array([item]), [moment], "dislike", random, None))
        return pd.concat([rows, *parts]), item

    return attack


def _crawler(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
    """Ten accounts that open every film, one a second or one each half minute."""
    films, start = rows[c.ITEM_ID].unique(), rows[c.TIMESTAMP].quantile(0.5)
    parts = [
        _events(
            10_000 + n,
            random.permutation(films),
            start + np.arange(len(films)) * (0.5 if n < 5 else 30),
            "rating",
            random,
            None,
        )
        for n in range(10)
    ]
    return pd.concat([rows, *parts]), None


def _clocks(share: float, ahead: bool) -> Attack:
    """The time of some rows becomes that of other rows, or lies years ahead; these rows are the attacker's."""

    def attack(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
        chosen = random.random(len(rows)) < share
        times = rows[c.TIMESTAMP].to_numpy().copy()
        years = random.integers(5, 30, chosen.sum()) * 365 * DAY
        times[chosen] = times[chosen] + years if ahead else random.permutation(times)[: chosen.sum()]
        return rows.assign(**{c.TIMESTAMP: times, "honest": ~chosen}), None

    return attack


ATTACKS: dict[str, Attack] = {
    "none": _none,
    "push, 1 %": _push(9),
    "push, 5 %": _push(47),
    "push, 5 %, slowly": _push(47, spread=200 * DAY),
    "burst of 47 accounts from one address": _push(47, spread=600, address="one"),
    "nuke, 1 %": _nuke(9),
    "nuke, 5 %": _nuke(47),
    "crawlers, 10 accounts": _crawler,
    "clocks shuffled, 5 % of rows": _clocks(0.05, ahead=False),
    "clocks years ahead, 1 % of rows": _clocks(0.01, ahead=True),
}
