"""Is one model better than another? Paired over users, who are the same for both.

Each user's difference a − b has mean d and standard deviation s over n users. The figures of a comparison:

| figure | convention |
|---|---|
| low, high | 95 % percentile interval of d by the bootstrap over users, the same samples as for the metrics |
| p_t | two-sided paired t-test of d = 0 |
| p_wilcoxon | two-sided Wilcoxon signed-rank test; zero differences are ranked and split between the signs |
| detectable | (z.975 + z.80) · s / √n: the smallest true difference found in 80 % of experiments |
| adjusted | p_t after Holm's correction for the comparisons made together |

Sources: Student 1908, Wilcoxon 1945, Cohen 1988 (power), Holm 1979; Smucker, Allan and Carterette 2007 on tests in
retrieval: the t-test and the bootstrap agree, so that p_t decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from avrec_spark import columns as c
from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.evaluation.bootstrap import Sums
from avrec_spark.evaluation.metrics import better

LEVEL = 0.05
POWER = 0.80
# Of the reference's mean: a difference that most people would call one.
RELEVANT_SHARE = 0.05


@dataclass(frozen=True)
class Comparison:
    """One model against another by one metric. `reference` is the mean of b, `relevant` a difference worth finding."""

    metric: str
    users: int
    reference: float
    difference: float
    low: float
    high: float
    p_t: float
    p_wilcoxon: float
    detectable: float
    relevant: float
    adjusted: float

    @property
    def significant(self) -> bool:
        return self.adjusted < LEVEL

    @property
    def warning(self) -> str:
        """What to say where the users are too few for the question; empty where they are enough or it is settled."""
        if self.significant or self.detectable <= self.relevant:
            return ""
        if self.users < 2 or self.detectable == np.inf:
            return f"{self.metric}: {self.users} users cannot be compared with a test; nothing follows from them."
        # The detectable difference shrinks with √n.
        needed = int(np.ceil(self.users * (self.detectable / self.relevant) ** 2)) if self.relevant > 0 else 0
        return (
            f"{self.metric}: no power. With {self.users} users only a difference of {self.detectable:.4f} or more is "
            f"found 4 times of 5; one of {self.relevant:.4f} ({RELEVANT_SHARE:.0%}) "
            + (f"needs about {needed:,} users." if needed else "is none.")
            + " That no difference was found does not show that there is none."
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "significant": self.significant, "warning": self.warning}


def compare(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    users: NDArray[Any] | None = None,
    metric: str = "",
    samples: int = 1000,
    relevant: float | None = None,
) -> Comparison:
    """a − b of the same users, both float64[n]; NaN on either side leaves a user out.

    `users` are ids float64[n], from which the bootstrap samples are drawn; `relevant` is the difference that one wants
    to be able to find, by default 5 % of b's mean. Raises `DataError` for different lengths, or no user.

    >>> one = compare(np.array([0.5, 0.7, 0.9, 0.6]), np.array([0.4, 0.5, 0.6, 0.6]), metric="ndcg@10")
    >>> round(one.difference, 3), round(one.p_t, 3), round(one.detectable, 3)
    (0.15, 0.103, 0.181)
    >>> one.warning
    'ndcg@10: no power. With 4 users only a difference of 0.1808 or more is found 4 times of 5; one of 0.0263 (5%)
    needs about 190 users. That no difference was found does not show that there is none.'
    """
    if len(a) != len(b):
        raise DataError(f"{len(a)} users are compared with {len(b)}.", "Compare the figures of the same users.")
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    ids = (np.arange(len(known)) if users is None else np.asarray(users))[known]
    n, d = len(a), a - b
    if n == 0:
        raise DataError(f"No user has a figure of {metric or 'the metric'} in both models.", "Compare another metric.")
    resampled = Sums.of_means(ids, d[:, None], samples).means()[1:, 0]
    resampled = resampled[~np.isnan(resampled)]
    low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (d.mean(), d.mean())
    error = d.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Comparison(
        metric=metric,
        users=n,
        reference=float(b.mean()),
        difference=float(d.mean()),
        low=float(low),
        high=float(high),
        p_t=(p := _t_test(d, error)),
        p_wilcoxon=_wilcoxon(d),
        detectable=float((stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)) * error),
        relevant=float(abs(b.mean()) * RELEVANT_SHARE if relevant is None else relevant),
        adjusted=p,
    )


def compare_frames(
    models: Mapping[str, pd.DataFrame], reference: str, metric: str, samples: int = 1000
) -> dict[str, Comparison]:
    """Every other model against `reference`, Holm-adjusted; frames as from `executors.per_user_numpy`.

    Raises `MissingColumnsError` where a frame lacks the metric, `DataError` where the users are not the same.
    """
    for name, frame in models.items():
        if metric not in frame:
            raise MissingColumnsError(f"The figures of {name}", {metric}, map(str, frame.columns))
    base = models[reference].set_index(c.USER_ID)[metric]
    found = {}
    for name, frame in models.items():
        if name != reference:
            other = frame.set_index(c.USER_ID)[metric]
            if len(other) != len(base) or not other.index.isin(base.index).all():
                raise DataError(f"{name} and {reference} have other users.", "Evaluate both on the same test pairs.")
            other = other.reindex(base.index)
            a, b = other.to_numpy(np.float64), base.to_numpy(np.float64)
            found[name] = compare(a, b, base.index.to_numpy(), metric, samples)
    adjusted = holm([one.p_t for one in found.values()])
    return {name: replace(one, adjusted=p) for (name, one), p in zip(found.items(), adjusted, strict=True)}


def against_best(
    models: Mapping[str, pd.DataFrame], samples: int = 1000
) -> dict[str, tuple[str, dict[str, Comparison]]]:
    """metric → the model with the best mean, and every other model against it; frames as for `compare_frames`.

    Metrics that say nothing of some model's users are left out.

    >>> frames = {"a": pd.DataFrame({"user_id": [1, 2], "ndcg@5": [0.5, 0.6]})}
    >>> frames["b"] = frames["a"].assign(**{"ndcg@5": [0.1, 0.3]})
    >>> best, others = against_best(frames)["ndcg@5"]
    >>> best, round(others["b"].difference, 2)
    ('a', -0.35)
    """
    found = {}
    for metric in (str(name) for name in next(iter(models.values())) if name != c.USER_ID):
        means = {name: frame[metric].mean() for name, frame in models.items()}
        if not pd.isna(list(means.values())).any():
            best = min(means, key=lambda name: (-better(metric) * means[name], name))
            found[metric] = best, compare_frames(models, best, metric, samples)
    return found


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for being tested together, so that one false finding in all has at most the level's chance.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values)))), 1.0)
    return [float(value) for value in adjusted]


def _t_test(d: NDArray[np.float64], error: float) -> float:
    if len(d) < 2:
        return 1.0
    if error == 0:
        return 1.0 if d[0] == 0 else 0.0
    return float(2 * stats.t.sf(abs(d.mean()) / error, len(d) - 1))


def _wilcoxon(d: NDArray[np.float64]) -> float:
    if len(d) < 2 or not d.any():
        return 1.0
    return float(stats.wilcoxon(d, zero_method="zsplit").pvalue)
