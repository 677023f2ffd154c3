"""Regression on content: the leave-one-out error, modalities that say nothing, items without content."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.errors import DataError
from avrec_spark.models import kernels, registry
from avrec_spark.models.kernels import ContentKernel, ContentRegression

N = 120


def drawn(seed: int, width: int = 6) -> FeatureMatrix:
    values = np.random.default_rng(seed).normal(size=(N, width)).astype(np.float32)
    return FeatureMatrix(values, np.ones(N, np.bool_))


def planted(visual: FeatureMatrix) -> NDArray[np.float64]:
    generator = np.random.default_rng(3)
    return visual.values @ generator.normal(size=(6, 4)) + 0.1 * generator.normal(size=(N, 4))


def test_the_left_out_error_is_that_of_fits_without_each_item() -> None:
    visual = drawn(0)
    targets = planted(visual)
    kernel = ContentKernel.of({"visual": visual}, np.arange(N), 2.0)({"visual": visual}).astype(np.float64)
    errors = []
    for item in range(N):
        others = np.delete(np.arange(N), item)
        system = kernel[np.ix_(others, others)] + 0.5 * np.eye(N - 1)
        errors.append(np.square(kernel[item, others] @ np.linalg.solve(system, targets[others]) - targets[item]).mean())
    assert kernels.left_out_error(kernel, targets, 0.5) == pytest.approx(np.mean(errors))


def test_a_modality_of_pure_noise_stays_out() -> None:
    features = {"noise": drawn(1), "visual": drawn(0)}
    fitted = ContentRegression.fit(features, np.arange(N), planted(features["visual"]), 2.0, 0.5)
    assert list(fitted.kernel.modalities) == ["visual"]


def test_items_are_predicted_by_what_they_have_and_others_get_the_mean() -> None:
    visual = drawn(0)
    targets = planted(visual)
    present = np.arange(N) != 7
    known = {"visual": FeatureMatrix(np.where(present[:, None], visual.values, 0), present)}
    train = np.arange(100)
    fitted = ContentRegression.fit(known, train, targets[train], 2.0, 0.1)
    predicted = fitted(known)
    np.testing.assert_allclose(predicted[7], targets[train].mean(axis=0), rtol=1e-4)
    rest = np.square(targets[100:] - targets[train].mean(axis=0)).mean()
    assert np.square(predicted[100:] - targets[100:]).mean() < 0.3 * rest


def test_an_item_is_as_near_to_itself_whatever_it_lacks() -> None:
    features = {"visual": drawn(0), "audio": drawn(1), "text": drawn(2)}
    lacks = {"visual": 0, "audio": 30, "text": 60}
    for name, matrix in features.items():
        matrix.present[: lacks[name]] = False
    kernel = ContentKernel.of(features, np.arange(N), 2.0)(features)
    np.testing.assert_allclose(kernel.diagonal(), 1, rtol=1e-5)
    assert np.linalg.eigvalsh(kernel.astype(np.float64)).min() > -1e-5
    # Of a modality that all items lack here nothing is known.
    alone = ContentKernel.of(features, np.arange(N), 2.0)({"text": features["text"]})
    assert (alone[:, :60] == 0).all() and alone.shape == (N, N)


def test_an_item_that_lacks_a_modality_is_placed_as_if_it_had_never_been() -> None:
    # Two noisy views of one truth: each is worth having, and can stand for the other.
    truth, train = drawn(0), np.arange(100)
    visual, motion = (FeatureMatrix(truth.values + 0.5 * drawn(seed).values, truth.present) for seed in (5, 6))
    targets = planted(truth)[train]
    both = ContentRegression.fit({"visual": visual, "motion": motion}, train, targets, 2.0, 0.1, newcomers=True)
    assert len(both.kernel.modalities) == 2
    alone = ContentRegression.fit({"visual": visual}, train, targets, 2.0, 0.1)
    np.testing.assert_allclose(both({"visual": visual}), alone({"visual": visual}), rtol=1e-4, atol=1e-5)
    absent = FeatureMatrix(np.zeros_like(motion.values), np.zeros(N, np.bool_))
    np.testing.assert_array_equal(both({"visual": visual, "motion": absent}), both({"visual": visual}))
    restored = ContentRegression.restored(both.arrays())
    for given in ({"visual": visual}, {"motion": motion}, {"visual": visual, "motion": motion}):
        np.testing.assert_array_equal(restored(given), both(given))


def test_landmarks_stand_for_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    visual = {"visual": drawn(0)}
    targets = planted(visual["visual"])
    whole = ContentRegression.fit(visual, np.arange(N), targets, 2.0, 0.1)(visual)
    monkeypatch.setattr(kernels, "LANDMARKS", 80)
    fitted = ContentRegression.fit(visual, np.arange(N), targets, 2.0, 0.1)
    assert len(fitted.coefficients[frozenset(["visual"])]) == 80
    assert np.square(fitted(visual) - whole).mean() < 0.1 * np.square(whole - whole.mean(axis=0)).mean()


def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    visual = {"visual": drawn(0), "audio": drawn(1)}
    fitted = ContentRegression.fit(visual, np.arange(N), planted(visual["visual"]), 2.0, 0.1)
    whole = fitted(visual)
    monkeypatch.setattr(kernels, "_BLOCK", 7)
    np.testing.assert_allclose(fitted(visual), whole, rtol=1e-4, atol=1e-5)


def test_kernel_ridge_ranks_untouched_items_by_taste_and_needs_features() -> None:
    user = np.repeat(np.arange(60), 6)
    item = (user % 2) * 10 + np.tile(np.arange(6), 60)
    rows = pd.DataFrame({"user_id": user, "item_id": item})
    kinds = np.eye(2, dtype=np.float32)[np.arange(20) // 10]
    features = {"visual": pd.DataFrame({"item_id": range(20), "vector": list(kinds)})}
    lists = registry.create("kernel-ridge").fit(rows, features).recommend(range(60), 1, candidates=[9, 19])
    assert (lists["item_id"] // 10 == lists["user_id"] % 2).all()
    with pytest.raises(DataError, match="kernel-ridge needs item features"):
        registry.create("kernel-ridge").fit(rows)
