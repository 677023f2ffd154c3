"""Recommenders that are trained: a torch module, a launcher, and the factors that come out."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender
from avrec_spark.recommend.topk import ScoreSource
from avrec_spark.training.launchers import InProcessLauncher, Launcher
from avrec_spark.training.loop import ModuleFactory, TrainingConfig, TrainingResult, factors, train

_ROW_GROUPS = 8


class TorchRecommender(Recommender):
    """Trains a module on a snapshot by the `launcher` with `workers` ranks; in this process unless told otherwise.

    A training set that lies in no snapshot yet is written to a temporary one first, because ranks read for themselves.
    """

    factory: ClassVar[ModuleFactory]
    # Constructor parameters that the module takes; the rest are the loop's.
    module_parameters: ClassVar[tuple[str, ...]]
    launcher: Launcher = InProcessLauncher()
    workers: int = 1

    @abstractmethod
    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        """Take from the trained module what is wanted later beside the factors."""

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        if training_set.path is None:
            with tempfile.TemporaryDirectory(prefix="avrec-snapshot-") as folder:
                return self._train(training_set.write(folder, max(_ROW_GROUPS, self.workers)))
        return self._train(training_set)

    def _train(self, training_set: TrainingSet) -> list[ScoreSource]:
        assert training_set.path is not None
        values = dict(self.parameters)
        inner = {name: values.pop(name) for name in self.module_parameters}
        config = TrainingConfig(path=training_set.path, factory=type(self).factory, parameters=inner, **values)
        result: TrainingResult = self.launcher.launch(train, config, self.workers)
        self.history = result.history
        module = type(self).factory(training_set, **inner)
        module.load_state_dict({name: torch.from_numpy(value) for name, value in result.state.items()})
        module.eval()
        self._keep(module, training_set)
        return [factors(module, len(training_set.users), len(training_set.items))]


def embedding(rows: int, dimension: int, scale: float = 0.1) -> nn.Embedding:
    """An embedding table that starts small, so that the first epochs are not spent on forgetting noise."""
    table = nn.Embedding(max(rows, 1), dimension)
    nn.init.normal_(table.weight, std=scale)
    return table
