"""Folders of one's own weights: what is read from them, what is refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from avrec_spark.config import LocalModel
from avrec_spark.encoders import local
from avrec_spark.errors import SettingsError
from avrec_spark.media.records import Frames, Sound

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RATE = 22_050


def _create(model: LocalModel, reads: str | None = None) -> local.LocalEncoder:
    return local.create("mine", model.model_copy(update={"reads": reads or model.reads}), RATE)


@pytest.fixture
def vit(local_models, tmp_path) -> LocalModel:
    """A copy that may be spoilt."""
    path = tmp_path / "vit"
    shutil.copytree(local_models["tiny-vit-frames"].path, path)
    return LocalModel(path=str(path))


def _pictures(count: int = 2) -> Frames:
    pictures = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3)).astype(np.uint8)
    return Frames(pictures, np.arange(count, dtype=float))


@pytest.mark.parametrize(
    ("model", "dimension"),
    [
        ("vit-frames", 16),
        ("resnet-frames", 16),
        ("clip-frames", 12),
        ("bert-text", 16),
        ("clip-text", 12),
        ("wav2vec2-sound", 16),
        ("whisper-sound", 16),
    ],
)
def test_the_dimension_is_known_before_weights_are_loaded(local_models, monkeypatch, model, dimension):
    monkeypatch.setattr(local, "_model", lambda *arguments: pytest.fail("the weights were loaded"))

    encoder = _create(local_models[f"tiny-{model}"])

    assert encoder.dimension == dimension
    assert encoder.name == encoder.modality == "mine"


def test_the_version_follows_the_bytes_of_the_weights_and_not_the_place(vit, local_models):
    assert _create(vit).version == _create(local_models["tiny-vit-frames"]).version
    assert len(_create(vit).version) == 12

    transformers.ViTModel(transformers.ViTConfig.from_pretrained(vit.path)).save_pretrained(vit.path)

    assert _create(vit).version != _create(local_models["tiny-vit-frames"]).version


def test_the_image_features_of_clip_are_those_of_the_library(local_models):
    model = local_models["tiny-clip-frames"]
    frames = _pictures(1)
    clip = transformers.CLIPModel.from_pretrained(model.path).eval()
    inputs = transformers.AutoImageProcessor.from_pretrained(model.path)(
        images=[frames.pictures[0]], return_tensors="pt"
    )
    with torch.inference_mode():
        expected = clip(**inputs, input_ids=torch.tensor([[2, 5, 3]])).image_embeds[0].numpy()

    np.testing.assert_allclose(_create(model).encode([frames])[0], expected, atol=1e-5)


def test_a_text_is_the_mean_over_its_tokens_without_the_padding(local_models):
    model = local_models["tiny-bert-text"]
    tokens = transformers.AutoTokenizer.from_pretrained(model.path)("a b", return_tensors="pt")
    with torch.inference_mode():
        states = transformers.BertModel.from_pretrained(model.path).eval()(**tokens).last_hidden_state[0]
    expected = states.mean(dim=0)

    short, _ = _create(model).encode(["a b", "a b c d e f g h i j k l m n o p"])

    np.testing.assert_allclose(short, expected / expected.norm(), atol=1e-5)


def test_a_text_longer_than_the_model_has_places_for_is_cut(local_models):
    encoder = _create(local_models["tiny-bert-text"])

    once, twice = encoder.encode(["a " * 100 + "b " * 100, "a " * 100 + "z " * 100])

    np.testing.assert_allclose(once, twice, atol=1e-6)


def test_sound_is_heard_in_windows_of_ten_seconds_at_the_rate_of_the_model(local_models):
    sound = Sound((0.1 * np.random.default_rng(0).normal(size=25 * RATE)).astype(np.float32), RATE, start=600.0)

    summary = _create(local_models["tiny-wav2vec2-sound"]).summarise([sound])[0]

    assert summary.starts.tolist() == [600.0, 610.0, 620.0]
    np.testing.assert_allclose(summary.total, [10, 10, 5] @ summary.segments.astype(float), atol=1e-4)


def test_the_ranges_of_a_long_sound_add_up_to_the_whole(local_models):
    encoder = _create(local_models["tiny-wav2vec2-sound"])
    samples = (0.1 * np.random.default_rng(0).normal(size=20 * RATE)).astype(np.float32)
    whole = Sound(samples, RATE)
    # The second range brings half a second of its neighbour along, which it must not count.
    first, second = Sound(samples[: 10 * RATE], RATE), Sound(samples[19 * RATE // 2 :], RATE, 10.0, before=RATE // 2)

    one, other, together = encoder.summarise([first, second, whole])

    np.testing.assert_allclose(one.total + other.total, together.total, atol=0.02)


def test_silent_windows_do_not_count(local_models):
    encoder = _create(local_models["tiny-wav2vec2-sound"])
    loud = (0.1 * np.random.default_rng(0).normal(size=10 * RATE)).astype(np.float32)
    loud[-RATE // 10 :] = 0  # or the resampler lets it ring on

    alone, padded = encoder.summarise([Sound(loud, RATE), Sound(np.r_[loud, np.zeros(15 * RATE, np.float32)], RATE)])

    np.testing.assert_allclose(alone.total, padded.total, atol=0.02)


def test_what_whisper_pads_a_window_with_does_not_count(local_models):
    model = local_models["tiny-whisper-sound"]
    samples = (0.1 * np.random.default_rng(0).normal(size=3 * 16_000)).astype(np.float32)
    inputs = transformers.WhisperFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        encoder = transformers.WhisperModel.from_pretrained(model.path).eval().get_encoder()
        # 1500 states are 30 s.
        expected = encoder(inputs["input_features"]).last_hidden_state[0, :150].mean(dim=0)

    np.testing.assert_allclose(
        _create(model).encode([Sound(samples, 16_000)])[0], expected / expected.norm(), atol=1e-5
    )


def test_a_pooling_that_was_never_trained_is_not_used(vit):
    """A checkpoint of a classifier has no pooler: it would be made at random, anew in each process."""
    config = transformers.ViTConfig.from_pretrained(vit.path, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(vit.path)
    expected = _create(vit).encode([_pictures()])

    local._model.cache_clear()

    np.testing.assert_array_equal(_create(vit).encode([_pictures()]), expected)


def test_weights_in_torch_format_are_read_as_plain_tensors(vit, local_models):
    folder = Path(vit.path)
    torch.save(transformers.ViTModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    np.testing.assert_allclose(
        _create(vit).encode([_pictures()]),
        _create(local_models["tiny-vit-frames"]).encode([_pictures()]),
        atol=1e-6,
    )


class _Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_weights_that_are_a_programme_are_refused_and_not_run(vit, tmp_path, save):
    folder = Path(vit.path)
    (folder / "model.safetensors").unlink()
    save({"weights": _Attack(tmp_path / "run")}, folder / "pytorch_model.bin")

    with pytest.raises(SettingsError, match="features.local_models.mine.path"):
        _create(vit).encode([_pictures()])
    assert not (tmp_path / "run").exists()


def test_code_in_the_folder_is_refused_and_not_run(vit, tmp_path):
    folder = Path(vit.path)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    (folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}')

    with pytest.raises(SettingsError, match="features.local_models.mine.path"):
        _create(vit)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_does_not_exist_is_named_with_its_setting(tmp_path):
    with pytest.raises(SettingsError, match="local_models.mine.path names the folder .*nowhere, which does not exist"):
        _create(LocalModel(path=str(tmp_path / "nowhere")))


def test_a_folder_without_a_model_is_answered_with_what_was_looked_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(SettingsError, match=r"looked for \*\.safetensors or \*\.bin, found config\.json"):
        _create(LocalModel(path=str(tmp_path)))


def test_weights_that_do_not_fit_the_configuration_are_refused(vit):
    transformers.ViTConfig.from_pretrained(vit.path, num_hidden_layers=2).save_pretrained(vit.path)

    with pytest.raises(SettingsError, match="weights lack 1[0-9] tensors"):
        _create(vit).encode([_pictures()])


def test_a_model_of_pictures_cannot_read_sound(local_models):
    encoder = _create(local_models["tiny-vit-frames"], "sound")

    with pytest.raises(SettingsError, match="AutoFeatureExtractor"):
        encoder.encode([Sound(np.full(RATE, 0.1, np.float32), RATE)])
