"""Impressions that were logged, and policies that were not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.errors import DataError, MissingColumnsError, UsageError
from avrec_spark.evaluation import logged

IMPRESSIONS = pd.DataFrame(
    {
        "user_id": ["ann", "ann", "bob", "cem"],
        "clicked": [True, True, False, False],
        "converted": [1, 0, 0, 0],
        "watch_seconds": [30.0, 5.0, 90.0, None],
        "duration": [60.0, 10.0, 60.0, 20.0],
        "satisfaction": [4.0, None, None, 2.0],
    }
)


def means(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: figure["mean"] for name, figure in figures.items()}


def test_impressions_are_summed_up_by_their_conventions() -> None:
    assert means(logged.impressions_numpy(IMPRESSIONS)) == pytest.approx(
        {
            "ctr": 2 / 4,
            "conversion": 1 / 2,
            "conversion-per-impression": 1 / 4,
            "watch-seconds": 125 / 4,
            # Nobody watches more than all of it.
            "watch-ratio": (1 / 2 + 1 / 2 + 1 + 0) / 4,
            "satisfaction": 3.0,
            "satisfaction-response": 1 / 2,
        }
    )


def test_without_a_click_there_is_no_conversion_of_clicks() -> None:
    figures = logged.impressions_numpy(IMPRESSIONS.assign(clicked=False))
    assert "conversion" not in figures
    assert figures["ctr"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def policies(n: int, seed: int, model_error: float = 0.0) -> tuple[pd.DataFrame, float]:
    """Logged rows of a policy that explores, and the true value of another: three items, rewards .1, .5 and .9."""
    random = np.random.default_rng(seed)
    value, logging, target = np.array([0.1, 0.5, 0.9]), np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.2, 0.7])
    shown = random.choice(3, n, p=logging)
    guess = value + model_error
    frame = pd.DataFrame(
        {
            "propensity": logging[shown],
            "target_propensity": target[shown],
            "reward": (random.random(n) < value[shown]).astype(float),
            "expected_reward": guess[shown],
            "expected_value": float(target @ guess),
        }
    )
    return frame, float(target @ value)


def test_estimates_find_the_value_of_a_policy_that_was_never_run() -> None:
    frame, true = policies(40_000, seed=0)
    figures = logged.off_policy_numpy(frame)
    assert figures["logged-value"]["mean"] == pytest.approx(0.6 * 0.1 + 0.3 * 0.5 + 0.1 * 0.9, abs=0.01)
    for name in ("ips", "snips", "doubly-robust"):
        assert figures[name]["mean"] == pytest.approx(true, abs=0.03), name
        assert figures[name]["low"] < true < figures[name]["high"], name
    width = {name: figures[name]["high"] - figures[name]["low"] for name in figures}
    assert width["doubly-robust"] < width["ips"]
    assert width["snips"] < width["ips"]


def test_the_doubly_robust_estimate_survives_a_wrong_model_or_wrong_propensities() -> None:
    frame, true = policies(40_000, seed=1, model_error=-0.2)
    assert logged.off_policy_numpy(frame)["doubly-robust"]["mean"] == pytest.approx(true, abs=0.03)
    frame, true = policies(40_000, seed=2)
    figures = logged.off_policy_numpy(frame.assign(propensity=np.minimum(frame["propensity"] * 1.5, 1.0)))
    assert figures["doubly-robust"]["mean"] == pytest.approx(true, abs=0.03)
    assert abs(figures["ips"]["mean"] - true) > 0.1


def test_the_same_policy_is_worth_what_was_logged() -> None:
    frame, _ = policies(500, seed=3)
    figures = means(logged.off_policy_numpy(frame.assign(target_propensity=frame["propensity"])))
    assert figures["ips"] == pytest.approx(figures["logged-value"])
    assert figures["snips"] == pytest.approx(figures["logged-value"])
    assert figures["effective-sample-size"] == pytest.approx(500)


def test_the_effective_sample_size_is_kishs_and_a_clip_raises_it() -> None:
    frame, _ = policies(500, seed=4)
    weight = frame["target_propensity"] / frame["propensity"]
    figures = means(logged.off_policy_numpy(frame))
    assert figures["effective-sample-size"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    clipped = means(logged.off_policy_numpy(frame, clip=2.0))
    assert clipped["ips"] == pytest.approx((weight.clip(upper=2.0) * frame["reward"]).mean())
    assert clipped["effective-sample-size"] > figures["effective-sample-size"]


def test_few_rows_that_carry_all_weight_are_warned_of() -> None:
    frame, _ = policies(2000, seed=5)
    assert logged.warning(logged.off_policy_numpy(frame), 2000) == ""
    far = frame.assign(target_propensity=np.where(np.arange(2000) < 3, 1.0, 0.0))
    assert logged.warning(logged.off_policy_numpy(far), 2000).startswith(
        "The target policy is not what was logged: 2,000"
    )
    never = logged.off_policy_numpy(frame.assign(target_propensity=0.0))
    assert never["ips"]["mean"] == 0.0
    assert "snips" not in never
    assert "weigh as much as 0" in logged.warning(never, 2000)


def test_spark_gives_the_same_figures(spark: Any) -> None:
    frame, _ = policies(300, seed=6)
    frame["user_id"] = np.arange(300) % 40
    pairs = [
        (logged.impressions_numpy(IMPRESSIONS, 20), logged.impressions_spark(spark.createDataFrame(IMPRESSIONS), 20)),
        (
            logged.off_policy_numpy(frame, 3.0, 20),
            logged.off_policy_spark(spark.createDataFrame(frame).repartition(3), 3.0, 20),
        ),
    ]
    for here, there in pairs:
        assert there.keys() == here.keys()
        for name, figure in here.items():
            assert there[name] == pytest.approx(figure, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"propensity": 0.0}, "column propensity has values that cannot be"),
        ({"propensity": 1.5}, "column propensity has values that cannot be"),
        ({"propensity": float("nan")}, "column propensity has values that cannot be, the first is nan"),
        ({"target_propensity": -0.1}, "column target_propensity"),
        ({"reward": None}, "column reward"),
    ],
)
def test_impossible_propensities_and_rewards_stop_with_a_named_error(change: dict[str, Any], sentence: str) -> None:
    frame, _ = policies(5, seed=7)
    with pytest.raises(DataError, match=sentence):
        logged.off_policy_numpy(frame.assign(**change))


def test_what_makes_no_sense_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="say nothing of what people did"):
        logged.impressions_numpy(pd.DataFrame({"user_id": [1]}))
    with pytest.raises(MissingColumnsError, match="no column propensity"):
        logged.off_policy_numpy(pd.DataFrame({"target_propensity": [1.0], "reward": [1.0]}))
    with pytest.raises(UsageError, match="clipped at 0"):
        logged.off_policy_numpy(policies(5, 0)[0], clip=0)
    with pytest.raises(DataError, match="column watch_seconds .* 0 or more"):
        logged.impressions_numpy(IMPRESSIONS.assign(watch_seconds=-1.0))
