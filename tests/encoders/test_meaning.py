"""Whether the vectors mean what they say: near things near, far things far, planted quantities readable."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.encoders.audio import LAYOUT, LibrosaEncoder, describe
from avrec_spark.encoders.text import E5Encoder
from avrec_spark.encoders.visual import EfficientNetEncoder, _features, _model
from avrec_spark.media.records import Frames, Sound

RATE = 22_050
TIME = np.arange(4 * RATE) / RATE


def _tone(pitch: float, loudness: float = 0.3) -> NDArray[np.float32]:
    return (loudness * np.sin(2 * np.pi * pitch * TIME)).astype(np.float32)


def _pulse(pitch: float, tempo: float) -> NDArray[np.float32]:
    """A tone with four harmonics that is struck anew on every beat."""
    wave = sum(np.sin(2 * np.pi * pitch * k * TIME) / k for k in range(1, 5))
    return (0.2 * wave * np.exp(-6.0 * ((TIME * tempo / 60) % 1))).astype(np.float32)


def _noise(seed: int, loudness: float = 0.3) -> NDArray[np.float32]:
    return (loudness * np.random.default_rng(seed).normal(size=len(TIME))).astype(np.float32)


def _encode(*tracks: NDArray[np.float32]) -> NDArray[np.float32]:
    return LibrosaEncoder(RATE).encode([Sound(track, RATE) for track in tracks])


def test_the_audio_layout_covers_the_vector_without_gaps():
    stops = [0]
    for block in LAYOUT.values():
        assert block.start == stops[-1]
        stops.append(block.stop)
    assert stops[-1] == LibrosaEncoder.dimension == 222


@pytest.mark.parametrize("pitch", [110.0, 220.0, 440.0, 880.0])
@pytest.mark.parametrize("tempo", [75.0, 100.0, 150.0])
def test_pitch_and_tempo_of_a_pulse_are_measured(pitch, tempo):
    features = describe(_pulse(pitch, tempo), RATE)

    assert features["pitch"][0] == pytest.approx(np.log2(pitch / 220), abs=0.05)
    assert features["tempo"][0] == pytest.approx(np.log2(tempo / 120), abs=0.1)


def test_the_loudness_of_a_sine_is_its_power():
    assert describe(_tone(440, 0.5), RATE)["loudness"][0] == pytest.approx(-9.03, abs=0.05)  # amplitude .5: power .125


def test_chroma_names_the_note():
    assert np.argmax(describe(_tone(440), RATE)["harmony"]) == 9  # C is 0, A is 9


def test_a_near_pitch_is_nearer_than_an_octave_and_that_nearer_than_noise():
    a4, sharp, a5, noise = _encode(_tone(440), _tone(445), _tone(880), _noise(0))

    assert a4 @ sharp > a4 @ a5 > a4 @ noise


def test_no_block_drowns_the_others():
    random = np.random.default_rng(0)
    tracks = [_pulse(110 * 2 ** random.uniform(0, 3), random.uniform(60, 180)) for _ in range(12)]
    tracks += [_noise(seed, 10 ** random.uniform(-2, -0.5)) for seed in range(4)]

    vectors = _encode(*tracks)

    shares = {name: float(np.square(vectors[:, block]).sum(axis=1).mean()) for name, block in LAYOUT.items()}
    assert max(shares.values()) < 0.35 and min(shares.values()) > 0.005, shares


def test_pitch_and_tempo_can_be_read_by_a_linear_probe():
    random = np.random.default_rng(5)
    pitch, tempo = 110 * 2 ** random.uniform(0, 3, 120), random.uniform(60, 180, 120)
    vectors = _encode(*(_pulse(*pair) for pair in zip(pitch, tempo, strict=True)))

    for target in (np.log2(pitch), np.log2(tempo)):
        train, test = slice(0, 80), slice(80, None)
        centred = vectors - vectors[train].mean(axis=0)
        gram = centred[train].T @ centred[train] + 0.01 * np.eye(vectors.shape[1])
        weights = np.linalg.solve(gram, centred[train].T @ (target[train] - target[train].mean()))
        error = target[test] - target[train].mean() - centred[test] @ weights
        assert 1 - np.var(error) / np.var(target[test]) > 0.8


@pytest.mark.parametrize("samples", [np.full(RATE, 0.3), np.r_[np.ones(1), np.zeros(RATE)], 0.3 * np.ones(2300)])
def test_odd_signals_give_finite_vectors(samples):
    vector = _encode(samples.astype(np.float32))[0]

    assert np.isfinite(vector).all() and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_two_red_pictures_are_nearer_than_red_and_noise():
    random = np.random.default_rng(0)
    red = np.zeros((1, 224, 224, 3), np.uint8)
    red[..., 0] = 200
    redder = red + random.integers(0, 12, red.shape).astype(np.uint8)
    noise = random.integers(0, 256, red.shape).astype(np.uint8)

    first, second, other = EfficientNetEncoder(8).encode(
        [Frames(pictures, np.zeros(1)) for pictures in (red, redder, noise)]
    )

    assert first @ second > first @ other + 0.2


@pytest.mark.parametrize(("name", "label"), [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_the_weights_and_the_scaling_of_pixels_are_those_of_the_classifier(name, label):
    """With its last layer put back, the network names what is on scikit-learn's two sample photographs."""
    import torch
    from sklearn.datasets import load_sample_image

    picture = load_sample_image(name)[:, 106:533]
    frame = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
    features = torch.from_numpy(_features(frame[None], "cpu"))
    with torch.inference_mode():
        assert int(_model("cpu")._fc(features).argmax()) == label


def test_a_long_text_is_read_from_its_beginning():
    beginning = "How to cook noodles at home. " * 60
    first, second = E5Encoder().encode([beginning + "Noodles. " * 50, beginning + "Football. " * 50])

    assert first @ second > 0.999


def test_texts_of_one_topic_are_nearer_than_others_across_languages():
    texts = [
        "How to cook noodles at home: a simple recipe for beginners",
        "在家做面条的简单食谱",
        "Goals of the football final, highlights of the match",
        "足球决赛精彩进球集锦",
    ]
    noodles, noodles_zh, football, football_zh = E5Encoder().encode(texts)

    assert noodles @ noodles_zh > max(noodles @ football_zh, noodles_zh @ football)
    assert football @ football_zh > max(noodles @ football_zh, noodles_zh @ football)
