"""From the vectors of an item's modalities to one content vector, by attention over those that are present."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avrec_spark.dataset.training_set import FeatureMatrix

# A gate starts open, σ(2) = .88, and closes where its modality does not help.
_OPEN = 2.0


class ContentEncoder(nn.Module):
    """c_i = n_i Σ_m a_im σ(o_m) P_m(x_im) over the n_i modalities m that item i has.

    x_im is standardised over the catalogue, dimension by dimension. P_m is linear, and goes through few dimensions
    (`rank`) where that is above 0: tastes agree on few properties of content. Dropping values of x_im in training
    (`dropout`) is what keeps P_m from learning items by heart. The attention a_i is a softmax, over what is present, of
    a learned score of each projection, so that it sums to 1; with n_i, one modality more does not thin the others. The
    gate σ(o_m), one number a modality, closes to leave a modality out altogether. In training modalities are dropped
    at random (`modality_dropout`), never an item's last one. An item without any has a zero vector.
    """

    def __init__(
        self, widths: Mapping[str, int], *, dimension: int, rank: int, dropout: float, modality_dropout: float
    ) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.modality_dropout = modality_dropout
        self.project, self.score = nn.ModuleDict(), nn.ModuleDict()
        for name, width in widths.items():
            narrow = nn.Linear(width, rank or dimension, bias=False)
            wide = [nn.Linear(rank, dimension)] if rank else []
            self.project[name] = nn.Sequential(nn.Dropout(dropout), narrow, *wide)
            self.score[name] = nn.Linear(dimension, 1)
            self.register_buffer(f"mean_{name}", torch.zeros(width))
            self.register_buffer(f"scale_{name}", torch.ones(width))
        self.open = nn.Parameter(torch.full((len(widths),), _OPEN))

    @classmethod
    def restored(cls, parameters: Mapping[str, NDArray[Any]]) -> Self:
        """For use, from the arrays of a module that has it as `encoder`; modalities are in the module's order."""
        prefix = "encoder."
        state = {name.removeprefix(prefix): torch.from_numpy(value) for name, value in parameters.items()}
        widths = {name.removeprefix("mean_"): len(value) for name, value in state.items() if name.startswith("mean_")}
        project = f"project.{next(iter(widths))}"
        rank = len(state[f"{project}.1.weight"]) if f"{project}.2.weight" in state else 0
        dimension = len(state[f"{project}.{2 if rank else 1}.weight"])
        encoder = cls(widths, dimension=dimension, rank=rank, dropout=0.0, modality_dropout=0.0)
        encoder.load_state_dict(state)
        return encoder.eval()

    def fit_scale(self, features: Mapping[str, FeatureMatrix]) -> None:
        """Take the mean and deviation of each dimension over the items that have the modality."""
        for name, width in self.widths.items():
            values = features[name].values[features[name].present]
            deviation = np.maximum(values.std(axis=0), 1e-6) * np.sqrt(width)
            self.get_buffer(f"mean_{name}").copy_(torch.from_numpy(values.mean(axis=0)))
            self.get_buffer(f"scale_{name}").copy_(torch.from_numpy(deviation))

    def standardised(self, name: str, vectors: Tensor, present: Tensor) -> Tensor:
        """Vectors float32[n, width] of mean 0 and variance 1 / width a dimension; zero where bool[n] says absent."""
        scaled = (vectors - self.get_buffer(f"mean_{name}")) / self.get_buffer(f"scale_{name}")
        return torch.where(present[:, None], scaled, 0)

    def projected(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """P_m(x_im), float32[n, modalities, d], of standardised vectors float32[n, width] a modality."""
        return torch.stack([self.project[name](vectors[name]) for name in self.widths], dim=1)

    def fused(self, projected: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """(c float32[n, d], a_im σ(o_m) float32[n, modalities]) given projections and bool `present`[n, modalities]."""
        if self.training:
            kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
            present = torch.where(kept.any(dim=1, keepdim=True), kept, present)
        scores = torch.cat([self.score[name](projected[:, m]) for m, name in enumerate(self.widths)], dim=1)
        # A row of -inf, of an item without any modality, has a softmax of NaN.
        shares = torch.nan_to_num(torch.softmax(scores.masked_fill(~present, -torch.inf), dim=1))
        gates = shares * torch.sigmoid(self.open)
        return present.sum(dim=1, keepdim=True) * (gates[:, :, None] * projected).sum(dim=1), gates
