"""What tests of encoders share: tiny models in transformers' layout, and a voice that says a sentence."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.config import FeatureSettings, LocalModel

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "今", "天", "气", "真", "好"]


@pytest.fixture(scope="session")
def local_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalModel]:
    """By name: one folder of random weights for each kind of model."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")

    def vit(path: Path) -> None:
        transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(path)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)

    def resnet(path: Path) -> None:
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", downsample_in_first_stage=False
        )
        transformers.ResNetModel(config).save_pretrained(path)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)

    def clip(path: Path) -> None:
        config = transformers.CLIPConfig(
            vision_config={**TINY, "image_size": 32, "patch_size": 8},
            text_config={**TINY, "vocab_size": len(VOCABULARY), "max_position_embeddings": 16, "eos_token_id": 3},
            projection_dim=12,
        )
        transformers.CLIPModel(config).save_pretrained(path)
        transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ).save_pretrained(path)
        tokenizer(path)

    def bert(path: Path) -> None:
        config = transformers.BertConfig(**TINY, vocab_size=len(VOCABULARY), max_position_embeddings=64)
        transformers.BertModel(config).save_pretrained(path)
        tokenizer(path)

    def tokenizer(path: Path) -> None:
        letters = [f"##{word}" for word in VOCABULARY if len(word) == 1]
        (path / "vocab.txt").write_text("\n".join([*VOCABULARY, *letters][: len(VOCABULARY)]), encoding="utf-8")
        transformers.BertTokenizer(vocab=str(path / "vocab.txt")).save_pretrained(path)

    def wav2vec2(path: Path) -> None:
        config = transformers.Wav2Vec2Config(
            **TINY, conv_dim=(8, 8), conv_stride=(80, 4), conv_kernel=(160, 4), num_feat_extract_layers=2,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        transformers.Wav2Vec2Model(config).save_pretrained(path)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(path)

    def whisper(path: Path) -> None:
        config = transformers.WhisperConfig(
            vocab_size=16, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        transformers.WhisperModel(config).save_pretrained(path)
        transformers.WhisperFeatureExtractor().save_pretrained(path)

    models = {}
    for make, reads in (
        *((vit, "frames"), (resnet, "frames"), (clip, "frames")),
        *((bert, "text"), (clip, "text"), (wav2vec2, "sound"), (whisper, "sound")),
    ):
        path = folder / f"{make.__name__}-{reads}"
        path.mkdir()
        make(path)
        models[f"tiny-{path.name}"] = LocalModel(path=str(path), reads=reads)
    return models


@pytest.fixture(scope="session")
def settings(local_models: dict[str, LocalModel]) -> FeatureSettings:
    return FeatureSettings(local_models=local_models)


@pytest.fixture(scope="session")
def say() -> Callable[[str], tuple[NDArray[np.float32], int]]:
    """Speaks an English sentence; gives its samples and their rate."""
    espeakng_loader = pytest.importorskip("espeakng_loader", reason="needs the package espeakng-loader to speak")
    library = espeakng_loader.load_library()
    rate = library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0) if library else -1
    if rate <= 0:
        pytest.skip("espeak-ng cannot be loaded here")
    library.espeak_SetVoiceByName(b"en-us")
    library.espeak_SetParameter(1, 140, 0)  # words a minute

    def spoken(sentence: str) -> tuple[NDArray[np.float32], int]:
        parts: list[NDArray[np.int16]] = []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        def collect(samples, count, events):
            if samples and count > 0:
                parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        library.espeak_SetSynthCallback(collect)
        said = sentence.encode()
        library.espeak_Synth(said, len(said) + 1, 0, 1, 0, 1, None, None)
        library.espeak_Synchronize()
        return (np.concatenate(parts) / 32_768).astype(np.float32), rate

    return spoken
