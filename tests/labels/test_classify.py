from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn

from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.errors import DataError
from avrec_spark.labels import classify
from avrec_spark.labels.learning import learn
from avrec_spark.labels.truth import CALIBRATION, TEST, TRAIN, VALIDATION

PARTS = (TRAIN, CALIBRATION, VALIDATION, TEST)


@pytest.fixture
def blobs():
    """400 items with two labels, each told by one of two modalities; a quarter of the items lacks the second."""
    generator = np.random.default_rng(3)
    known = (generator.random((400, 2)) < 0.4).astype(np.float32)
    look, sound = (generator.normal(0, 1, (400, width)).astype(np.float32) for width in (6, 4))
    look[:, 0] += 3 * known[:, 0]
    sound[:, 0] += 3 * known[:, 1]
    heard = np.arange(400) % 4 > 0
    sound[~heard] = 0
    features = {"look": FeatureMatrix(look, np.ones(400, np.bool_)), "sound": FeatureMatrix(sound, heard)}
    return known, generator.choice(PARTS, 400), features


@pytest.mark.parametrize("name", ["logistic", "linear-svm"])
def test_linear_models_end_where_those_of_scikit_learn_do(name):
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1, (120, 3)).astype(np.float32)
    known = np.stack([x[:, 0] + generator.normal(0, 1, 120) > 0, x[:, 1] > 0.5], axis=1).astype(np.float32)
    # Of the second label only half the items are known.
    known[60:, 1] = np.nan
    layer, penalty = nn.Linear(3, 2), 0.05
    classify.minimise(layer, classify.CANDIDATES[name].loss, torch.from_numpy(x), torch.from_numpy(known), penalty)
    for label, rows in enumerate((slice(None), slice(60))):
        c = 1 / (penalty * len(x[rows]))
        # A large constant instead of 1 for the intercept, which liblinear penalises, nearly frees it from the penalty.
        theirs = (
            LogisticRegression(C=c, tol=1e-8, max_iter=1000)
            if name == "logistic"
            else LinearSVC(C=c, dual=False, tol=1e-8, intercept_scaling=1000.0)
        ).fit(x[rows], known[rows, label])
        np.testing.assert_allclose(layer.weight[label].detach(), theirs.coef_[0], atol=2e-3)
        assert layer.bias[label].item() == pytest.approx(float(theirs.intercept_[0]), abs=2e-3)


def test_every_classifier_learns_labels_that_different_modalities_tell(blobs):
    known, part, features = blobs
    learnt = learn(["seen", "heard"], known, part, features)
    figures = learnt.quality.pivot_table(index=["split", "model"], columns="metric", values="mean")
    assert set(figures.loc["test"].index) == {"logistic", "linear-svm", "mlp"}
    # By chance 0.4; the items without sound can only be guessed for the second label.
    assert (figures.loc["test", "map"] > 0.85).all()
    assert learnt.chosen == figures.loc["validation", "map"].idxmax()
    assert learnt.left_out == {}


def test_an_item_without_any_modality_teaches_nothing_and_is_predicted_nothing(blobs):
    known, part, features = blobs
    present = features["look"].present.copy()
    present[:8] = False  # every fourth of them has no sound either
    features["look"] = FeatureMatrix(np.where(present[:, None], features["look"].values, 0), present)
    bare = np.flatnonzero(~present & ~features["sound"].present)
    assert bare.tolist() == [0, 4]
    learnt = learn(["seen", "heard"], known, part, features)
    assert np.isnan(learnt.confidence[bare]).all()
    assert not np.isnan(np.delete(learnt.confidence, bare, axis=0)).any()
    known[bare] = 1 - known[bare]
    again = learn(["seen", "heard"], known, part, features)
    np.testing.assert_array_equal(again.confidence, learnt.confidence)


def test_a_modality_that_the_whole_catalogue_lacks_is_no_part_of_the_inputs_and_none_at_all_is_an_error(blobs):
    _, _, features = blobs
    x, has_any = classify.inputs({"look": features["look"]})
    assert x.shape == (400, 6)
    assert has_any.all()
    with pytest.raises(DataError, match="No item has a vector of any modality"):
        classify.inputs({})


def test_vectors_with_nan_or_of_unequal_width_are_named_by_their_modality():
    positions = np.array([0, 1])
    with pytest.raises(DataError, match="The audio vectors hold NaN"):
        FeatureMatrix.of("audio", positions, pd.Series([[1.0, np.nan], [1.0, 2.0]]), 2)
    with pytest.raises(DataError, match=r"The audio vectors have different widths \(1, 2\)"):
        FeatureMatrix.of("audio", positions, pd.Series([[1.0], [1.0, 2.0]]), 2)


def test_a_fitted_classifier_refuses_other_widths_and_nan(blobs):
    known, _, features = blobs
    x, _ = classify.inputs(features)
    fitted = classify.fit("logistic", (x, known), (x, known))
    with pytest.raises(DataError, match="The vectors have 9 dimensions, and the classifier reads 10"):
        fitted.scores(x[:, :9])
    x[3, 3] = np.nan
    with pytest.raises(DataError, match="hold NaN"):
        fitted.scores(x)


@pytest.mark.parametrize("name", classify.CANDIDATES)
def test_a_label_of_one_class_cannot_be_fitted(name, blobs):
    known, _, features = blobs
    x, _ = classify.inputs(features)
    known[:, 1] = np.where(known[:, 1] == 1, 1, np.nan)
    with pytest.raises(DataError, match="Label number 1 has items of one class only"):
        classify.fit(name, (x, known), (x, known))


def test_without_a_learnable_label_nothing_is_fitted_and_all_reasons_are_told(blobs):
    known, part, features = blobs
    learnt = learn(["seen", "heard"], known, part, features, at_least=1000)
    assert learnt.confidence.shape == (400, 0)
    assert learnt.quality.empty
    assert set(learnt.left_out) == {"seen", "heard"}


def test_the_same_items_teach_the_same(blobs):
    known, part, features = blobs
    state = torch.random.get_rng_state()
    first, second = (learn(["seen", "heard"], known, part, features, method="isotonic") for _ in range(2))
    np.testing.assert_array_equal(first.confidence, second.confidence)
    assert torch.equal(torch.random.get_rng_state(), state)
