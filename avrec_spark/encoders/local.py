"""Encoders of one's own: a folder of weights in the layout of the library transformers, named by a setting.

| reads | models | the vector is |
|---|---|---|
| frames | ViT, DINOv2, ResNet, CLIP, SigLIP, … | the image features or the pooled output, averaged over the frames |
| text | BERT, XLM-R, CLIP, … | the text features, or the mean over the tokens |
| sound | wav2vec 2.0, HuBERT, Whisper's encoder, CLAP, … | the mean over time, weighted by the seconds of a window |

Nothing is fetched and no code that lies in the folder is run: files are local only, remote code is refused, and
pickled weights are read as plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from functools import lru_cache
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from avrec_spark.config import LocalModel
from avrec_spark.encoders.port import Encoder, Summary, is_audible, require, unit
from avrec_spark.encoders.text import clean
from avrec_spark.encoders.weights import fingerprint, weights_folder
from avrec_spark.errors import SettingsError
from avrec_spark.media.records import Frames, Sound

Input = TypeVar("Input", bound=Sized)

_WEIGHTS = ("*.safetensors", "*.bin")
_NEEDED = (("config.json",), _WEIGHTS)
_BATCH = 32
_WINDOWS_A_BATCH = 8
_MOST_TOKENS = 512
_WINDOW, _WHISPER_WINDOW = 10, 30  # seconds; Whisper pads whatever it hears to 30
# What a checkpoint of another task may lack; `_pooled` does without it.
_DISPENSABLE = ("pooler", "masked_spec_embed")


class LocalEncoder(Encoder[Input]):
    """What the three kinds share. `name` is the key of the setting and also the modality.

    The version follows the bytes of the folder's files; a folder that moves keeps it. `device` stays out of the hash.
    """

    def __init__(self, name: str, model: LocalModel, sample_rate: int, device: str = "cpu") -> None:
        self.name = self.modality = name
        for library in ("torch", "transformers"):
            require(f"The encoder {name}", library, "transformers")
        self.setting = f"features.local_models.{name}.path"
        self.folder = str(weights_folder(self.setting, model.path, _NEEDED))
        self.version = fingerprint(weights_folder(self.setting, model.path, _NEEDED), ("*.json", "*.txt", *_WEIGHTS))
        self.dimension = _dimension(_config(self.folder, self.setting), self.reads)
        self.device = device
        super().__init__({"reads": self.reads, **({"sample_rate": sample_rate} if self.reads == "sound" else {})})

    def _model(self) -> Any:
        return _model(self.folder, self.setting, self.device, self.version)

    def _prepare(self) -> Any:
        return _preparation(self.folder, self.setting, self.reads)

    def _run(self, inputs: dict[str, Any]) -> Any:
        """The model's output on tensors, without gradients; in half precision on CUDA."""
        import torch

        model = self._model()
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        on_cuda = self.device.startswith("cuda")
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=on_cuda):
            features = {"frames": "get_image_features", "text": "get_text_features", "sound": "get_audio_features"}
            if hasattr(model, features[self.reads]):
                found = getattr(model, features[self.reads])(**inputs)
                return found if torch.is_tensor(found) else found.pooler_output
            if self.reads == "sound" and model.config.is_encoder_decoder:
                model = model.get_encoder()
            return model(**inputs)


class LocalFrames(LocalEncoder[Frames]):
    """One vector a key frame; a file is the mean of its frames."""

    reads = "frames"
    segmented = True

    def _summarise(self, batch: list[Frames]) -> list[Summary]:
        pictures = np.concatenate([frames.pictures for frames in batch])
        rows = unit(np.concatenate([self._rows(pictures[at : at + _BATCH]) for at in range(0, len(pictures), _BATCH)]))
        segments = np.split(rows, np.cumsum([len(frames) for frames in batch])[:-1])
        return [
            Summary(own.sum(axis=0, dtype=np.float64), own, frames.times)
            for own, frames in zip(segments, batch, strict=True)
        ]

    def _rows(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        inputs = self._prepare()(images=list(pictures), return_tensors="pt")
        return _pooled(self._run({"pixel_values": inputs["pixel_values"]}), self._model())


class LocalText(LocalEncoder[str]):
    """One vector a text, of its first 512 tokens."""

    reads = "text"

    def is_empty(self, value: str) -> bool:
        return not clean(value)

    def _summarise(self, batch: list[str]) -> list[Summary]:
        rows = unit(np.concatenate([self._rows(batch[at : at + _BATCH]) for at in range(0, len(batch), _BATCH)]))
        return [Summary(row.astype(np.float64)) for row in rows]

    def _rows(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        prepare = self._prepare()
        longest = min(_MOST_TOKENS, prepare.model_max_length, _positions(self._model().config))
        texts = [clean(said) for said in texts]
        inputs = prepare(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        output = self._run(dict(inputs))
        if torch.is_tensor(output):
            return _numpy(output)
        mask = inputs["attention_mask"].to(self.device)[..., None].float()
        return _numpy((output.last_hidden_state.float() * mask).sum(dim=1) / mask.sum(dim=1))


class LocalSound(LocalEncoder[Sound]):
    """One vector a window of 10 s, of Whisper 30 s; a file is their mean, weighted by seconds. Silence counts not."""

    reads = "sound"
    segmented = True

    def is_empty(self, value: Sound) -> bool:
        return not is_audible(value.own, value.rate)

    def _summarise(self, batch: list[Sound]) -> list[Summary]:
        return [self._summary(sound) for sound in batch]

    def _summary(self, sound: Sound) -> Summary:
        rate = self._prepare().sampling_rate
        windows = list(self._windows(sound, rate))
        rows = []
        for _, alike in groupby(windows, key=lambda window: len(window[1])):
            group = [samples for _, samples in alike]
            rows += [
                self._rows(group[at : at + _WINDOWS_A_BATCH], rate) for at in range(0, len(group), _WINDOWS_A_BATCH)
            ]
        segments = unit(np.concatenate(rows))
        seconds = np.array([len(samples) / rate for _, samples in windows])
        starts = np.array([start for start, _ in windows])
        return Summary(np.asarray(seconds @ segments, np.float64), segments, starts)

    def _windows(self, sound: Sound, rate: int) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """Start in seconds and samples at the model's rate of each window that is neither silent nor too short."""
        import soxr

        samples = np.asarray(soxr.resample(sound.own, sound.rate, rate), np.float32)
        length = rate * (_WHISPER_WINDOW if _is_whisper(self._model().config) else _WINDOW)
        for at in range(0, len(samples), length):
            window = samples[at : at + length]
            if at == 0 or is_audible(window, rate):
                yield sound.start + at / rate, window

    def _rows(self, windows: list[NDArray[np.float32]], rate: int) -> NDArray[np.float32]:
        import torch

        inputs = self._prepare()(windows, sampling_rate=rate, return_tensors="pt")
        output = self._run({name: inputs[name] for name in ("input_values", "input_features") if name in inputs})
        if torch.is_tensor(output):
            return _numpy(output)
        states = output.last_hidden_state.float()
        if _is_whisper(self._model().config):
            # The rest is what the window was padded with.
            heard = len(windows[0]) / rate / _WHISPER_WINDOW
            states = states[:, : max(1, round(heard * states.shape[1]))]
        return _numpy(states.mean(dim=1))


_KINDS: dict[str, type[LocalEncoder[Any]]] = {"frames": LocalFrames, "text": LocalText, "sound": LocalSound}


def create(name: str, model: LocalModel, sample_rate: int, device: str = "cpu") -> LocalEncoder[Any]:
    """The encoder of the folder that `model` names.

    Raises `SettingsError` where there is no folder or it holds no model, `MissingExtraError` without transformers.
    """
    return _KINDS[model.reads](name, model, sample_rate, device)


def _pooled(output: Any, model: Any) -> NDArray[np.float32]:
    """One row a picture: image features, a trained or fixed pooling, else the mean over places or tokens."""
    import torch

    if torch.is_tensor(output):
        return _numpy(output)
    pooler = getattr(output, "pooler_output", None)
    if pooler is not None and not model.avrec_untrained_pooler:
        return _numpy(pooler.flatten(1))
    states = output.last_hidden_state.float()
    return _numpy(states.mean(dim=(2, 3)) if states.ndim == 4 else states.mean(dim=1))


def _numpy(tensor: Any) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)


def _is_whisper(config: Any) -> bool:
    return bool(config.model_type == "whisper")


def _dimension(config: Any, reads: str) -> int:
    """Width of the vectors, from the configuration alone."""
    inner = getattr(config, {"frames": "vision_config", "text": "text_config", "sound": "audio_config"}[reads], None)
    for owner in (config, inner):
        for name in ("projection_dim", "hidden_size", "d_model"):
            if owner is not None and isinstance(width := getattr(owner, name, None), int):
                return width
    return int(config.hidden_sizes[-1])


def _positions(config: Any) -> int:
    """Tokens that the model has places for; two of RoBERTa's are not for tokens."""
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", _MOST_TOKENS)
    return int(positions) - (2 if "roberta" in config.model_type else 0)


@lru_cache(maxsize=8)
def _config(folder: str, setting: str) -> Any:
    return _from_folder("AutoConfig", folder, setting)


@lru_cache(maxsize=8)
def _preparation(folder: str, setting: str, reads: str) -> Any:
    makers = {"frames": "AutoImageProcessor", "text": "AutoTokenizer", "sound": "AutoFeatureExtractor"}
    return _from_folder(makers[reads], folder, setting)


@lru_cache(maxsize=4)
def _model(folder: str, setting: str, device: str, version: str) -> Any:
    """The network on its device, once a process; `version` makes changed weights load anew."""
    model, report = _from_folder("AutoModel", folder, setting, output_loading_info=True)
    missing = [name for name in report["missing_keys"] if not any(part in name for part in _DISPENSABLE)]
    if missing:
        raise SettingsError(
            f"{setting} names the folder {folder}, whose weights lack {len(missing)} tensors of the model that its "
            f"config.json describes, such as {sorted(missing)[0]}.",
            "Save the model anew with save_pretrained, or correct config.json.",
        )
    model.avrec_untrained_pooler = any("pooler" in name for name in report["missing_keys"])
    return model.eval().to(device)


def _from_folder(maker: str, folder: str, setting: str, **options: Any) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return getattr(transformers, maker).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # transformers raises errors of many kinds; all mean that the folder does not fit
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise SettingsError(
            f"{setting} names the folder {folder}, from which transformers cannot make an {maker}: {why}",
            "Save the model, and what prepares its input, with save_pretrained into one folder.",
        ) from error
