"""Pre-training of the content encoder: self-supervised, on every item with features, without any behaviour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avrec_spark import columns as c
from avrec_spark.dataset.loader import Batch
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.models.fusion import objectives
from avrec_spark.models.fusion.module import FusionModule
from avrec_spark.training.losses import Candidates
from avrec_spark.training.warm_start import WarmStart

# What is learnt here; vectors of ids are behaviour's.
LEARNT = ("encoder.", "tags.")


class PretrainingModule(FusionModule):
    """`align` × InfoNCE between the modalities of a batch's items + `classify` × cross-entropy of their tags."""

    def batch_loss(self, batch: Batch, candidates: Candidates) -> Tensor:
        items = torch.from_numpy(batch.item_index).to(candidates.device)
        present = self.get_buffer("present")[items]
        projected = self.encoder.projected({name: self.get_buffer(f"x_{name}")[items] for name in self.encoder.widths})
        loss = self.align * objectives.alignment(projected, present)
        if self.classify and self.tags is not None:
            loss = loss + self.classify * self.tags.loss(self.encoder.fused(projected, present)[0], items)
        return loss * len(items)

    def learnt(self) -> WarmStart:
        """The encoder, and the tags that it can tell."""
        return WarmStart.of(self, self.rows, self.align > 0).only(*LEARNT)


def every_item_once(item_features: Mapping[str, pd.DataFrame]) -> TrainingSet:
    """What the loop reads in place of behaviour: one user, who takes each item that has features.

    >>> frame = pd.DataFrame({"item_id": [3, 4], "vector": [[1.0], [2.0]]})
    >>> every_item_once({"visual": frame}).items.encode([3, 4, 5]) >= 0
    array([ True,  True, False])
    """
    if not item_features:
        raise DataError("There is nothing to pre-train on: no item has features.", "Run features first.")
    ids = pd.unique(np.concatenate([frame[c.ITEM_ID].to_numpy() for frame in item_features.values()]))
    return TrainingSet.from_frames(pd.DataFrame({c.USER_ID: 0, c.ITEM_ID: ids}), item_features)


def require_something_to_learn(training_set: TrainingSet, align: float, classify: float, labels: str) -> None:
    """Raises `DataError` where no loss that needs no behaviour has anything to say."""
    inputs = [one.present for name, one in training_set.features.items() if name != labels]
    pairs = np.sum(inputs, axis=0).max(initial=0) > 1 if inputs else False
    if not (align and pairs) and not (classify and labels):
        raise DataError(
            "Pre-training has nothing to learn from: "
            + ("no item has two modalities" if align and not pairs else "align and classify are 0")
            + ", and no labels are named.",
            "Give items of two modalities and align above 0, or name the feature labels and classify above 0.",
        )
