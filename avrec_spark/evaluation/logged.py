"""What logged impressions say: of the policy that showed them, and of one that did not.

One row an impression. The policy that logged it:

| metric | column | formula | convention |
|---|---|---|---|
| ctr | clicked | Σ clicked / impressions | 0 or 1 a row |
| conversion | clicked, converted | Σ converted / Σ clicked | of clicks |
| conversion-per-impression | converted | Σ converted / impressions | |
| watch-seconds | watch_seconds | Σ seconds / impressions | what was not watched counts 0 |
| watch-ratio | watch_seconds, duration | Σ min(seconds / duration, 1) / impressions | |
| satisfaction | satisfaction | mean over the rows that have one | explicit feedback on its own scale, NaN: none |
| satisfaction-response | satisfaction | share of the rows that have one | |

Another policy π, from what the logging policy μ did (reward r, w = π / μ, at most `clip`):

| estimate | columns | formula | convention |
|---|---|---|---|
| logged-value | reward | Σ r / n | of μ itself, to compare with |
| ips | propensity (μ), target_propensity (π), reward | Σ w r / n | unbiased without a clip; large variance |
| snips | the same | Σ w r / Σ w | small bias, much less variance; within the range of r |
| doubly-robust | and expected_reward, expected_value | Σ (v + w (r − q)) / n | right where either μ or q is |
| effective-sample-size | propensity, target_propensity | (Σ w)² / Σ w² | rows; few mean that π is not what was logged |

q is a model's expected reward of the item that was shown, v that of π's own choice, Σ π(a) q(a).

Sources: Horvitz and Thompson 1952 (IPS), Swaminathan and Joachims 2015 (SNIPS), Dudík, Langford and Li 2011 (doubly
robust), Kish 1965 (effective sample size).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from avrec_spark import columns as c
from avrec_spark.errors import UsageError
from avrec_spark.evaluation.bootstrap import Metrics
from avrec_spark.evaluation.rows import Columns, RowKernel, measure_numpy, measure_spark, numbers

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ENGAGEMENT = (c.CLICKED, c.CONVERTED, c.WATCH_SECONDS, c.DURATION, c.SATISFACTION)
_MODEL = (c.EXPECTED_REWARD, c.EXPECTED_VALUE)
# Below this share of the rows, or this number of them, an estimate rests on few.
_SHARE, _ROWS = 0.01, 100


def impressions_numpy(rows: pd.DataFrame, samples: int = 200) -> Metrics:
    """What people did with what they were shown, from the columns that are there.

    Raises `DataError` for values that cannot be (a click of 2, negative seconds), `UsageError` without any column.

    >>> rows = pd.DataFrame({"clicked": [1, 0, 1, 0], "converted": [1, 0, 0, 0], "satisfaction": [5, None, 3, None]})
    >>> {name: figure["mean"] for name, figure in impressions_numpy(rows).items()}
    {'ctr': 0.5, 'conversion': 0.5, 'conversion-per-impression': 0.25, 'satisfaction': 4.0,
     'satisfaction-response': 0.5}
    """
    _any(rows.columns)
    return measure_numpy(_IMPRESSIONS, rows, samples)


def impressions_spark(rows: DataFrame, samples: int = 200) -> Metrics:
    """The same from a Spark frame."""
    _any(rows.columns)
    return measure_spark(_IMPRESSIONS, rows, samples)


def off_policy_numpy(rows: pd.DataFrame, clip: float = np.inf, samples: int = 200) -> Metrics:
    """Estimates of what a target policy would have earned.

    `rows` has propensity, target_propensity, reward and, for the doubly robust one, expected_reward and expected_value;
    `clip` bounds the weights. Raises `DataError` for propensities outside 0 to 1, or 0 for what was shown.

    The target policy shows the first item always, the logging policy each half of the time:

    >>> rows = pd.DataFrame({"propensity": 0.5, "target_propensity": [1.0, 1, 0, 0], "reward": [1.0, 0, 0, 1]})
    >>> {name: figure["mean"] for name, figure in off_policy_numpy(rows).items()}
    {'logged-value': 0.5, 'ips': 0.5, 'snips': 0.5, 'effective-sample-size': 2.0}
    """
    return measure_numpy(_off_policy(clip), rows, samples)


def off_policy_spark(rows: DataFrame, clip: float = np.inf, samples: int = 200) -> Metrics:
    """The same from a Spark frame."""
    return measure_spark(_off_policy(clip), rows, samples)


def warning(estimates: Metrics, n: int) -> str:
    """What to say of estimates from n rows; empty where enough of them carry weight.

    >>> point = {"mean": 12.0, "low": 12.0, "high": 12.0}
    >>> warning({"effective-sample-size": point}, 5000)
    'The target policy is not what was logged: 5,000 impressions weigh as much as 12. Do not decide by these estimates;
    log with more exploration, or choose a policy nearer to the logged one.'
    """
    size = estimates["effective-sample-size"]["mean"] if "effective-sample-size" in estimates else 0.0
    if size >= max(_SHARE * n, _ROWS):
        return ""
    return (
        f"The target policy is not what was logged: {n:,} impressions weigh as much as {size:,.0f}. Do not decide by "
        "these estimates; log with more exploration, or choose a policy nearer to the logged one."
    )


def _any(present: object) -> None:
    if not set(_ENGAGEMENT) & set(present):  # type: ignore[call-overload]
        raise UsageError(
            "The impressions say nothing of what people did with them.", f"Give one of {', '.join(_ENGAGEMENT)}."
        )


def _impression_rows(rows: pd.DataFrame) -> Columns:
    sums = {"n": np.ones(len(rows))}
    for name in (c.CLICKED, c.CONVERTED):
        if name in rows:
            sums[name] = numbers(rows.assign(**{name: rows[name].astype(float)}), name, 0, 1)
    if c.WATCH_SECONDS in rows:
        sums[c.WATCH_SECONDS] = numbers(
            rows.assign(**{c.WATCH_SECONDS: rows[c.WATCH_SECONDS].fillna(0.0)}), c.WATCH_SECONDS, 0
        )
        if c.DURATION in rows:
            duration = numbers(rows, c.DURATION, np.nextafter(0, 1))
            sums["ratio"] = np.minimum(sums[c.WATCH_SECONDS] / duration, 1.0)
    if c.SATISFACTION in rows:
        answered = rows[c.SATISFACTION].notna().to_numpy()
        sums["answered"] = answered.astype(np.float64)
        sums[c.SATISFACTION] = np.zeros(len(rows))
        sums[c.SATISFACTION][answered] = numbers(rows[answered], c.SATISFACTION)
    return sums


def _impression_figures(sums: Columns) -> Columns:
    n, found = sums["n"], {}
    if c.CLICKED in sums:
        found["ctr"] = sums[c.CLICKED] / n
    if c.CLICKED in sums and c.CONVERTED in sums:
        found["conversion"] = sums[c.CONVERTED] / sums[c.CLICKED]
    if c.CONVERTED in sums:
        found["conversion-per-impression"] = sums[c.CONVERTED] / n
    if c.WATCH_SECONDS in sums:
        found["watch-seconds"] = sums[c.WATCH_SECONDS] / n
    if "ratio" in sums:
        found["watch-ratio"] = sums["ratio"] / n
    if c.SATISFACTION in sums:
        found["satisfaction"] = sums[c.SATISFACTION] / sums["answered"]
        found["satisfaction-response"] = sums["answered"] / n
    return found


def _off_policy(clip: float) -> RowKernel:
    if not clip > 0:
        raise UsageError(f"The weights are clipped at {clip}.", "Give a bound above 0, or none.")
    needs = (c.PROPENSITY, c.TARGET_PROPENSITY, c.REWARD)
    return RowKernel(partial(_off_policy_rows, clip=clip), _off_policy_figures, needs, _MODEL)


def _off_policy_rows(rows: pd.DataFrame, clip: float) -> Columns:
    # What was shown can be shown: its propensity is above 0.
    logged = numbers(rows, c.PROPENSITY, np.nextafter(0, 1), 1)
    weight = np.minimum(numbers(rows, c.TARGET_PROPENSITY, 0, 1) / logged, clip)
    reward = numbers(rows, c.REWARD)
    sums = {"n": np.ones(len(rows)), "r": reward, "w": weight, "ww": weight**2, "wr": weight * reward}
    if set(_MODEL) <= set(rows.columns):
        expected = numbers(rows, c.EXPECTED_REWARD)
        sums["robust"] = numbers(rows, c.EXPECTED_VALUE) + weight * (reward - expected)
    return sums


def _off_policy_figures(sums: Columns) -> Columns:
    n = sums["n"]
    found = {"logged-value": sums["r"] / n, "ips": sums["wr"] / n, "snips": sums["wr"] / sums["w"]}
    if "robust" in sums:
        found["doubly-robust"] = sums["robust"] / n
    return {**found, "effective-sample-size": sums["w"] ** 2 / sums["ww"]}


_IMPRESSIONS = RowKernel(_impression_rows, _impression_figures, (), _ENGAGEMENT)
