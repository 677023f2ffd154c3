"""The rendered world: what a linear probe reads from decoded features, and how near fusion comes to the oracle."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avrec_spark import columns as c
from avrec_spark.config import EventSettings, FeatureSettings, WorldSettings
from avrec_spark.dataset.splits import TEST, Split
from avrec_spark.describe import Describer, Task, one_thread
from avrec_spark.encoders import registry as encoders
from avrec_spark.evaluation import executors
from avrec_spark.evaluation.part import Part
from avrec_spark.events.types import IMPRESSION, VIEW
from avrec_spark.events.weighting import weigh
from avrec_spark.models import registry as models
from avrec_spark.world.factors import LEVELS, Clip, draw_clips
from avrec_spark.world.render import render
from avrec_spark.world.users import FIRST_DAY, Population, planted, populate, simulate
from benchmarks.table import table

# Without voices, so that the figures are the same with a synthesiser and without.
WORLD = WorldSettings(clips=300, users=600, events_per_user=200, spoken=False)
# Populations on the same clips; settings are chosen by what is held out of another one.
SEEDS, CHOOSING = (1, 2, 3), 0
K = 10
KINDS = ("warm", "cold")
ESTIMATED = "known factors, estimated tastes"
REFERENCES = ("chance", "popularity", "ids alone (ease)", ESTIMATED, "oracle of tastes", "oracle")
# How strongly tastes are held together where they are estimated; of 3, 6, 10 and 20 the best on warm items of the
# population CHOOSING (on cold ones 3 is better by .002 of the way).
STRENGTH = 6.0
# All but what is held out is train, so no validation part stops an epoch early: their number is a setting, too.
# Few dimensions, since the planted tastes have fifteen, small steps, and a bias, since popularity is planted beside.
# Spared are the best of what a user has not touched: with the clips that are held out warm all their views are gone.
GRID: Sequence[Mapping[str, Any]] = tuple(
    {
        **{"batch_size": 4096, "epochs": 40, "learning_rate": 0.003, "dimension": 16, "content_rank": 16},
        **{"item_bias": True, "regularisation": 0.1, "modality_dropout": 0.0},
        **{"id_dropout": 0.2, "temperature": temperature, "spared": spared},
    }
    for temperature, spared in ((0.25, 0.0), (0.15, 0.0), (0.2, 0.25), (0.15, 0.25))
)
NOISE, NOISE_WIDTH = "noise", 64

Clips = tuple[Clip, ...]
Features = dict[str, pd.DataFrame]


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        clips, features = described(Path(folder))
    return probes(clips, features) + "\n" + ablation(clips, features)


# -- features --------------------------------------------------------------------------------------------------------


def described(folder: Path) -> tuple[Clips, Features]:
    """Render the clips and decode them again: (clips, item_id and vector a modality)."""
    render(WORLD, folder)
    clips = tuple(draw_clips(WORLD.clips, WORLD.seed, WORLD.missing_share))
    settings = FeatureSettings()
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(partial(_decoded, folder, settings), [clips[n::workers] for n in range(workers)]))
    rows = [row for part in parts for row in part]
    for encoder in encoders.in_use(settings):
        if encoder.reads == "text":
            words = _words(folder).loc[[clip.item_id for clip in clips]]
            rows += [(encoder.modality, *pair) for pair in zip(words.index, encoder.encode(list(words)), strict=True)]
    frame = pd.DataFrame(rows, columns=[c.MODALITY, c.ITEM_ID, c.VECTOR])
    frame = frame[frame[c.VECTOR].map(np.any)]
    return clips, {str(name): part[[c.ITEM_ID, c.VECTOR]] for name, part in frame.groupby(c.MODALITY)}


def _decoded(folder: Path, settings: FeatureSettings, clips: Clips) -> list[tuple[str, str, NDArray[np.float32]]]:
    """(modality, item_id, vector) of what the files hold."""
    names = tuple(encoder.name for encoder in encoders.in_use(settings) if encoder.reads != "text")
    tasks = [Task(clip.item_id, str(folder / "media" / clip.file_name), names, full=False) for clip in clips]
    with Describer(settings, names) as describer:
        return [
            (encoder.modality, one.task.work, encoder.vectors(summary.total[None])[0])
            for one in describer.describe(tasks)
            for name, encoder in describer.encoders.items()
            if (summary := one.summaries[name]) is not None
        ]


def _words(folder: Path) -> pd.Series[str]:
    """Title, description and tags by item, as the features job joins them."""
    catalogue = pd.read_csv(folder / "catalog.csv", index_col=c.ITEM_ID, keep_default_na=False)
    tags = catalogue[c.TAGS].str.replace(";", ", ")
    return pd.Series(
        {
            item: ". ".join(filter(None, said))
            for item, *said in zip(catalogue.index, catalogue[c.TITLE], catalogue[c.DESCRIPTION], tags, strict=True)
        }
    )


# -- linear probes ---------------------------------------------------------------------------------------------------


def probes(clips: Clips, features: Features) -> str:
    rows = []
    for factor, levels in LEVELS.items():
        accuracy = [_probe(clips, features[modality], factor) for modality in features]
        best = int(np.argmax([mean for mean, _ in accuracy]))
        told = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in accuracy]
        told[best] = f"**{told[best]}**"
        rows.append([factor, f"{1 / len(levels):.2f}", *told])
    title = f"Rendered world: accuracy of a linear probe for each planted factor, {WORLD.clips} clips"
    return (
        table(title, "make bench-world", ["factor", "by chance", *features], rows)
        + "\nLogistic regression on standardised vectors, mean and deviation of 5-fold cross-validation, over the "
        "clips that have both the factor and the modality.\n"
    )


def _probe(clips: Clips, vectors: pd.DataFrame, factor: str) -> tuple[float, float]:
    level = {clip.item_id: clip.level(factor) for clip in clips if clip.has(factor)}
    vectors = vectors[vectors[c.ITEM_ID].isin(list(level))]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    scores = cross_val_score(probe, np.stack(list(vectors[c.VECTOR])), vectors[c.ITEM_ID].map(level).to_numpy(), cv=5)
    return float(scores.mean()), float(scores.std())


# -- fusion and the oracle -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lived:
    """A population on the clips, and the preferences that it left: user_id, item_id, weight, timestamp."""

    clips: Clips
    population: Population
    events: pd.DataFrame
    pairs: pd.DataFrame

    @classmethod
    @lru_cache(maxsize=2)
    def of(cls, clips: Clips, seed: int) -> Lived:
        settings = WORLD.model_copy(update={"seed": seed})
        population = populate(list(clips), settings)
        events = pd.DataFrame(simulate(list(clips), [FIRST_DAY] * len(clips), population, settings))
        events[c.TIMESTAMP] = pd.to_datetime(events[c.TIMESTAMP], format="ISO8601")
        none = pd.Series(np.nan, events.index)
        events[c.WEIGHT] = weigh(events[c.EVENT_TYPE], events[c.WATCH_SECONDS], none, EventSettings())
        liked = events[events[c.WEIGHT] > 0]
        pairs = liked.groupby([c.USER_ID, c.ITEM_ID], as_index=False).agg({c.WEIGHT: "sum", c.TIMESTAMP: "max"})
        return cls(clips, population, events, pairs)

    def part(self, kind: str, features: Features, seed: int) -> Part:
        """Warm: the latest of each user are held out. Cold: all of some items, and only those are ranked."""
        rows = Split("time" if kind == "warm" else "cold-item", seed=seed)(self.pairs)
        held = rows[c.SPLIT] == TEST
        cold = rows.loc[held, c.ITEM_ID].unique() if kind == "cold" else None
        return Part(rows[~held], rows[held], features, candidates=cold)

    def oracle(self, part: Part, scores: NDArray[np.float64]) -> pd.DataFrame:
        """The K best items of each user of a part by scores[users, clips], as a model would give them."""
        scores = pd.DataFrame(scores, self.population.user_ids, [clip.item_id for clip in self.clips])
        scores = scores.loc[part.held_out[c.USER_ID].unique()]
        if part.candidates is not None:
            scores = scores[part.candidates]
        long = scores.rename_axis(c.USER_ID).reset_index().melt(c.USER_ID, var_name=c.ITEM_ID, value_name=c.SCORE)
        seen = long.merge(part.train[[c.USER_ID, c.ITEM_ID]], "left", indicator=True)["_merge"] == "both"
        long = long[~seen.to_numpy()].sort_values(c.SCORE, ascending=False)
        long[c.RANK] = long.groupby(c.USER_ID).cumcount() + 1
        return long[long[c.RANK] <= K]


def ablation(clips: Clips, features: Features) -> str:
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), one_thread) as pool:
        chosen = {kind: _choose(pool, clips, features, kind) for kind in KINDS}
        fits = [Fit(kind, seed, name, chosen[kind]) for seed in SEEDS for kind in KINDS for name in _variants(features)]
        found = pool.map(partial(_fused, clips, features), fits)
        figures = {(fit.kind, fit.name, fit.seed): figure for fit, figure in zip(fits, found, strict=True)}
    for seed in SEEDS:
        lived = Lived.of(clips, seed)
        for kind in KINDS:
            references = _references(lived, lived.part(kind, features, seed))
            figures |= {(kind, name, seed): figure for name, figure in references.items()}
    rows = [
        [name, *(text for kind in KINDS for text in _told(figures, kind, name))]
        for name in (*REFERENCES, *_variants(features))
    ]
    title = f"Rendered world: fusion on decoded features, {WORLD.clips} clips, {WORLD.users:,} users"
    header = ["ranked by", *(f"{kind}: {figure}" for kind in KINDS for figure in (f"NDCG@{K}", "recovered"))]
    return table(title, "make bench-world", header, rows) + _notes(clips, chosen)


@dataclass(frozen=True)
class Fit:
    """One fusion network to train: on the population of `seed`, with the modalities of a variant."""

    kind: str
    seed: int
    name: str
    parameters: Mapping[str, Any]


def _variants(modalities: Iterable[str]) -> dict[str, list[str]]:
    """The modalities of each line of the ablation.

    >>> _variants(["audio", "text"])["fusion without audio"]
    ['text']
    """
    every = list(modalities)
    return {
        "fusion": every,
        "fusion and noise": [*every, NOISE],
        **{f"fusion without {one}": [other for other in every if other != one] for one in every},
        **{f"{one} alone": [one] for one in every},
        "noise alone": [NOISE],
    }


def _fused(clips: Clips, features: Features, fit: Fit) -> float:
    """NDCG of one network."""
    noise = np.random.default_rng([fit.seed, 64]).normal(size=(len(clips), NOISE_WIDTH)).astype(np.float32)
    known = features | {NOISE: pd.DataFrame({c.ITEM_ID: [clip.item_id for clip in clips], c.VECTOR: list(noise)})}
    chosen = {name: known[name] for name in _variants(features)[fit.name]}
    part = Lived.of(clips, fit.seed).part(fit.kind, chosen, fit.seed)
    return _ndcg(part, _lists(part, "fusion", {**fit.parameters, "seed": fit.seed}))


def _choose(pool: ProcessPoolExecutor, clips: Clips, features: Features, kind: str) -> dict[str, Any]:
    """The settings that are best for a population that is not measured."""
    fits = [Fit(kind, CHOOSING, "fusion", parameters) for parameters in GRID]
    return dict(GRID[int(np.argmax(list(pool.map(partial(_fused, clips, features), fits))))])


def _references(lived: Lived, part: Part) -> dict[str, float]:
    """By chance, by popularity (which for items that nobody has touched is chance), without content, by some or all of
    the truth."""
    cold = part.candidates is not None
    lists = {
        "chance": _lists(part, "random"),
        "popularity": _lists(part, "random" if cold else "popular"),
        "ids alone (ease)": _lists(part, "random" if cold else "ease"),
        ESTIMATED: lived.oracle(part, estimated(lived, part)),
        "oracle of tastes": lived.oracle(part, lived.population.affinity),
        "oracle": lived.oracle(part, lived.population.appeal()),
    }
    return {name: _ndcg(part, ranked) for name, ranked in lists.items()}


def estimated(lived: Lived, part: Part) -> NDArray[np.float64]:
    """float64[users, clips]: scores by whoever knows every clip's factors, and of users what is in the part's train.

    Maximises Σ w_ui log softmax_i(t_u · f_i + b_i) − STRENGTH / 2 Σ |t_u|² − ½ Σ b_i² over tastes t and popularity b,
    for f_i what is planted: what fusion without sparing could have of the same interactions if content were read
    without error.
    """
    items = pd.Index([clip.item_id for clip in lived.clips])
    weight = part.train.pivot_table(c.WEIGHT, c.USER_ID, c.ITEM_ID, "sum", 0.0)
    weight = weight.reindex(index=lived.population.user_ids, columns=items, fill_value=0.0)
    weights = torch.from_numpy(weight.to_numpy(np.float64))
    factors = torch.from_numpy(planted(lived.clips))
    touched = weights.sum(dim=0) > 0
    tastes = torch.zeros(len(weights), factors.shape[1], dtype=torch.float64, requires_grad=True)
    popularity = torch.zeros(len(items), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([tastes, popularity], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        scores = (tastes @ factors.T + popularity)[:, touched]
        surprise = -(weights[:, touched] * torch.log_softmax(scores, dim=1)).sum()
        total = surprise + STRENGTH / 2 * tastes.square().sum() + popularity.square().sum() / 2
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    return (tastes @ factors.T + popularity).detach().numpy()


def _lists(part: Part, name: str, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    model = models.create(name, **(parameters or {})).fit_training_set(part.training_set())
    return part.lists(model, K)


def _ndcg(part: Part, lists: pd.DataFrame) -> float:
    pairs = part.held_out[[c.USER_ID, c.ITEM_ID]]
    return executors.evaluate_numpy(lists, pairs, (K,), WORLD.clips, bootstrap=0)[f"ndcg@{K}"][c.MEAN]


def _told(figures: Mapping[tuple[str, str, int], float], kind: str, name: str) -> tuple[str, str]:
    """NDCG, and the share of the way from popularity to the oracle: mean over populations, and the deviation."""
    values, lowest, highest = (
        np.array([figures[kind, one, seed] for seed in SEEDS]) for one in (name, "popularity", "oracle")
    )
    share = 100 * (values - lowest) / (highest - lowest)
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}", f"{share.mean():.0f} % ± {share.std(ddof=1):.0f}"


def _notes(clips: Clips, chosen: Mapping[str, Mapping[str, Any]]) -> str:
    events = Lived.of(clips, SEEDS[0]).events
    places = events[events[c.EVENT_TYPE] == IMPRESSION][[c.LIST_ID, c.ITEM_ID, c.POSITION]]
    views = events[events[c.EVENT_TYPE] == VIEW][[c.LIST_ID, c.ITEM_ID]].assign(viewed=1)
    rates = places.merge(views, "left").fillna({"viewed": 0}).groupby(c.POSITION)["viewed"].mean()
    lacking = sum(clip.lacks is not None for clip in clips)
    return f"""
Mean and deviation over {len(SEEDS)} populations on the same clips, each with a split, a seed and noise of its own.
Warm: each user's latest fifth is held out. Cold: every preference for a fifth of the clips is, and only those are
ranked; nobody has touched them, so their order by popularity is chance. Recovered is the share of the way from
popularity to the oracle, which ranks by taste and popularity as they were planted. {lacking} clips lack video, audio or
text; what they lack moves nobody. Views of what was shown, by place: {", ".join(f"{rate:.2f}" for rate in rates)}.
Settings, chosen by what is held out of a fourth population: {"; ".join(f"{k}: {v}" for k, v in chosen.items())}.
"""
