"""Recommenders that are trained: a torch module, a launcher, and the factors that come out."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avrec_spark.dataset.loader import Reader
from avrec_spark.dataset.training_set import FeatureMatrix, TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.topk import ScoreSource
from avrec_spark.training.launchers import InProcessLauncher, Launcher
from avrec_spark.training.loop import ModuleFactory, TrainingConfig, TrainingResult, score_sources, train, untrained
from avrec_spark.training.warm_start import WarmStart

# The bias of an item of which nothing is known, where scores are cosines.
BELOW_EVERY_COSINE = -2.0

_ROW_GROUPS = 8
_LOOP_PARAMETERS = frozenset(field.name for field in fields(TrainingConfig))


class TorchRecommender(Recommender):
    """Trains a module on a snapshot by the `launcher` with `workers` ranks; in this process unless told otherwise.

    A training set that lies in no snapshot yet is written to a temporary one first, because ranks read for themselves.
    """

    factory: ClassVar[ModuleFactory]
    # Constructor parameters that the module takes; the loop takes those that TrainingConfig has.
    module_parameters: ClassVar[tuple[str, ...]]
    # What a batch of its training is.
    reader: ClassVar[Reader] = "interactions"
    launcher: Launcher = InProcessLauncher()
    workers: int = 1
    # How training is run, over the loop's own defaults (checkpoints, precision, …): fields of TrainingConfig.
    options: Mapping[str, Any] = MappingProxyType({})
    # Where training begins; None: at random. For modules that can (`Startable`).
    warm_start: WarmStart | None = None

    @abstractmethod
    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        """Take from the trained module what is wanted later beside the factors."""

    def _module_parameters(self, training_set: TrainingSet) -> dict[str, Any]:
        """What the module is made with on every rank, beside the training set."""
        return {name: self.parameters[name] for name in self.module_parameters}

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        module = self._trained(type(self).factory, training_set)
        self._keep(module, training_set)
        return score_sources(module, training_set)

    def _trained(self, factory: ModuleFactory, training_set: TrainingSet) -> nn.Module:
        """A module of the factory after its best epoch, ready for use; its curves are in `history`."""
        if training_set.path is None:
            with tempfile.TemporaryDirectory(prefix="avrec-snapshot-") as folder:
                return self._trained(factory, training_set.write(folder, max(_ROW_GROUPS, self.workers)))
        outer = {name: value for name, value in self.parameters.items() if name in _LOOP_PARAMETERS}
        start = None if self.warm_start is None else self.warm_start.save(training_set.path)
        config = TrainingConfig(
            path=training_set.path,
            factory=factory,
            parameters=self._module_parameters(training_set),
            warm_start=None if start is None else start.name,
            **{"reader": self.reader, **outer, **self.options},
        )
        if config.reader == "sequences":
            training_set.write_sequences(max(_ROW_GROUPS, self.workers))
        try:
            result: TrainingResult = self.launcher.launch(train, config, self.workers)
            module = untrained(config, training_set)
        finally:
            if start is not None:
                start.unlink(missing_ok=True)
        self.history = result.history
        module.load_state_dict({name: torch.from_numpy(value) for name, value in result.state.items()})
        return module.eval()


def embedding(rows: int, dimension: int, scale: float = 0.1) -> nn.Embedding:
    """An embedding table that starts small, so that the first epochs are not spent on forgetting noise."""
    table = nn.Embedding(max(rows, 1), dimension)
    nn.init.normal_(table.weight, std=scale)
    return table


def touched(training_set: TrainingSet) -> torch.Tensor:
    """bool[n_items]: the items with an interaction."""
    return torch.from_numpy(np.bincount(training_set.item_index, minlength=len(training_set.items)) > 0)


def standardised(matrix: FeatureMatrix) -> NDArray[np.float32]:
    """float32[n_items, d]: each dimension with mean 0 and variance 1 / d over the items that have the modality.

    Absent rows stay zero. Encoders differ in scale and most of their energy is the same for all items; a linear
    projection learns faster from what differs.

    >>> values = np.array([[1, 5], [3, 5], [0, 0]], np.float32)
    >>> standardised(FeatureMatrix(values, np.array([True, True, False]))).round(3)[:, 0]
    array([-0.707,  0.707,  0.   ], dtype=float32)
    """
    present = matrix.values[matrix.present]
    scale = np.maximum(present.std(axis=0), 1e-6) * np.sqrt(matrix.values.shape[1])
    scaled = (matrix.values - present.mean(axis=0)) / scale
    return np.where(matrix.present[:, None], scaled, 0).astype(np.float32)
