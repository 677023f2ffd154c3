"""The fusion network: behaviour and content in one space, and content alone where nobody has behaved yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avrec_spark.dataset.loader import Batch
from avrec_spark.dataset.training_set import FeatureMatrix, TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.models.fusion import objectives
from avrec_spark.models.fusion.content import ContentEncoder
from avrec_spark.models.fusion.graph import content_neighbours
from avrec_spark.models.kernels import ContentRegression
from avrec_spark.models.lightgcn import Graph
from avrec_spark.models.torch_model import embedding, touched
from avrec_spark.recommend.topk import ScoreSource
from avrec_spark.training.losses import Candidates, softmax_loss
from avrec_spark.training.warm_start import WarmStart

# Of the untrained id vectors: smaller than what the projections make of content, so that content speaks first.
_ID_SCALE = 0.03


@dataclass(frozen=True)
class Space:
    """All users and items at once: float32[users, d], float32[items, d], and what the items' vectors come from.

    Items are of length 1, and users not yet: a batch wants few of them. `projected` float32[items, modalities, d],
    `gates` float32[items, modalities] and `content` float32[items, d] as in ContentEncoder; `layers` are E^(0) …
    E^(layers), float32[users + items, d], and `bias` is float32[items].
    """

    users: Tensor
    items: Tensor
    projected: Tensor
    gates: Tensor
    content: Tensor
    layers: list[Tensor]
    bias: Tensor

    def user_vectors(self, users: Tensor) -> Tensor:
        return functional.normalize(self.users[users], dim=1)

    def item_vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.items[items], self.bias[items]


class FusionModule(nn.Module):
    """Scores z_u · z_i / temperature of unit vectors z, for cold items z_u · E[z_i | content].

    E^(0) holds the id vectors e_u of users and x_i = c_i + e_i of items, their content and id vectors;
    E^(k+1) = Â E^(k) over the graph of who took what and, with `neighbours`, of which items are near by content
    (`Graph`), and z is the mean of all layers, of length 1. So a user is e_u and the sum of the history, and does
    without e_u: ids are dropped at random in training (`id_dropout`).

    Where nobody has an item, a `ContentRegression` of the other items' z on their content stands for its z: it is
    solved, not descended to, whenever the items are ranked. As an expectation it is the shorter the less content says.

    `item_bias` adds b_i / temperature to the score, for popularity that cosines cannot tell; a cold item's is the mean.

    Losses: `softmax` × softmax over the items + `align` × InfoNCE between modalities + `classify` × cross-entropy of
    the tags in the feature called `labels`, which is then no input. `modalities` names those that are read; none: all.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        *,
        dimension: int,
        content_rank: int,
        layers: int,
        neighbours: int,
        temperature: float,
        user_exponent: float,
        spared: float,
        content_dropout: float,
        id_dropout: float,
        modality_dropout: float,
        softmax: float,
        align: float,
        classify: float,
        labels: str,
        kernel_width: float,
        regularisation: float,
        item_bias: bool,
        modalities: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.n_users, self.n_items = len(training_set.users), len(training_set.items)
        self.layers, self.temperature, self.id_dropout = layers, temperature, id_dropout
        self.softmax, self.align, self.classify = softmax, align, classify
        self.spared = spared
        self.kernel_width, self.regularisation = kernel_width, regularisation
        self.features = features = inputs(training_set, labels, modalities)
        self.encoder = ContentEncoder(
            {name: matrix.values.shape[1] for name, matrix in features.items()},
            dimension=dimension,
            rank=content_rank,
            dropout=content_dropout,
            modality_dropout=modality_dropout,
        )
        self.encoder.fit_scale(features)
        self._keep_features(features)
        self.users, self.items = (embedding(n, dimension, _ID_SCALE) for n in (self.n_users, self.n_items))
        self.bias = nn.Parameter(torch.zeros(self.n_items)) if item_bias else None
        self.tags = Tags(training_set.features[labels], labels, dimension) if labels else None
        self.register_buffer("warm", touched(training_set)[:, None], persistent=False)
        near = content_neighbours(features, neighbours) if neighbours else None
        self.graph = Graph(training_set.matrix(), near)
        importance = np.maximum(self.graph.degree[: self.n_users], 1.0) ** -user_exponent
        self.importance = (importance / importance[training_set.user_index].mean()).astype(np.float32)
        self.rows = {
            "users.weight": training_set.users.ids,
            "items.weight": training_set.items.ids,
            "encoder.open": np.array(list(features)),
            **({"bias": training_set.items.ids} if item_bias else {}),
            **({} if self.tags is None else dict.fromkeys(("tags.read.weight", "tags.read.bias"), self.tags.learnt)),
        }

    def start_from(self, start: WarmStart) -> None:
        """Take over the vectors of known users and items, and all that reads known modalities, with its scale.

        Raises `DataError` where no modality is known, or one of them has another width, and as
        `WarmStart.carry_over` does.
        """
        known = {name: start.parameters.get(f"encoder.mean_{name}") for name in self.encoder.widths}
        for name, mean in known.items():
            if mean is not None and len(mean) != self.encoder.widths[name]:
                raise DataError(
                    f"The {name} vectors have {self.encoder.widths[name]} values each, and those that the warm start "
                    f"was fitted on {len(mean)}.",
                    "Use the vectors of the same encoder, or leave the modality out.",
                )
        if all(mean is None for mean in known.values()):
            theirs = ", ".join(start.rows.get("encoder.open", ())) or "none"
            raise DataError(
                f"The warm start knows the modalities {theirs}, and the items have {', '.join(known)}.",
                "Start from a model that was fitted on vectors of the same encoders.",
            )
        start.carry_over(self, self.rows)
        self._keep_features(self.features)

    def _keep_features(self, features: dict[str, FeatureMatrix]) -> None:
        """Not parameters, and large: every rank has them from the snapshot."""
        present = torch.from_numpy(np.stack([matrix.present for matrix in features.values()], axis=1))
        self.register_buffer("present", present, persistent=False)
        for m, (name, matrix) in enumerate(features.items()):
            vectors = self.encoder.standardised(name, torch.from_numpy(matrix.values), present[:, m])
            self.register_buffer(f"x_{name}", vectors, persistent=False)

    def space(self) -> Space:
        """Everything, propagated once."""
        projected = self.encoder.projected({name: self.get_buffer(f"x_{name}") for name in self.encoder.widths})
        content, gates = self.encoder.fused(projected, self.get_buffer("present"))
        warm = self.get_buffer("warm")
        with_id = content + self.items.weight * (warm & self._kept(self.n_items))
        layers = [torch.cat([self.users.weight * self._kept(self.n_users), with_id])]
        for _ in range(self.layers):
            layers.append(self.graph.smooth(layers[-1]))
        users, items = sum(layers[1:], start=layers[0]).split([self.n_users, self.n_items])
        items = functional.normalize(items, dim=1)
        bias = items.new_zeros(self.n_items) if self.bias is None else self.bias
        return Space(users, items, projected, gates, content, layers, bias)

    def placed(self, space: Space, newcomers: bool = False) -> tuple[NDArray[np.float32], ContentRegression]:
        """The items' vectors float32[n_items, d], those of cold ones by content, and the regression that says so; with
        `newcomers` also of items to come that lack a modality."""
        vectors = space.items.cpu().numpy().copy()
        warm = self.get_buffer("warm")[:, 0].cpu().numpy()
        items = np.flatnonzero(warm)
        regression = ContentRegression.fit(
            self.features, items, vectors[items], self.kernel_width, self.regularisation, newcomers
        )
        vectors[~warm] = regression(self.features)[~warm]
        return vectors, regression

    def _kept(self, n: int) -> Tensor:
        """bool[n, 1]: whose behaviour is not dropped."""
        device = self.users.weight.device
        if not self.training:
            return torch.ones(n, 1, dtype=torch.bool, device=device)
        return torch.rand(n, 1, device=device) >= self.id_dropout

    def batch_loss(self, batch: Batch, candidates: Candidates) -> Tensor:
        """The sum over the batch of weight × the losses by their weights."""
        space = self.space()
        weight = batch.weight * self.importance[batch.user_index]
        loss = space.items.new_zeros(())
        if self.softmax:
            weighed = batch._replace(weight=weight)
            ranked = softmax_loss(space, weighed, candidates, self.temperature, once=True, spared=self.spared)
            loss = loss + self.softmax * ranked
        if self.align:
            contrast = objectives.alignment(space.projected, self.get_buffer("present"))
            loss = loss + self.align * float(weight.sum()) * contrast
        if self.classify and self.tags is not None:
            loss = loss + self.classify * float(weight.sum()) * self.tags.loss(space.content)
        return loss

    def score_sources(self, training_set: TrainingSet) -> list[ScoreSource]:
        space = self.space()
        users = functional.normalize(space.users, dim=1)
        cosines = ScoreSource(users.cpu().numpy(), np.ascontiguousarray(self.placed(space)[0].T))
        if self.bias is None:
            return [cosines]
        warm = self.get_buffer("warm")[:, 0]
        bias = torch.where(warm, space.bias, space.bias[warm].mean())[None].cpu().numpy()
        return [cosines, ScoreSource(np.ones((self.n_users, 1), np.float32), bias)]


class Tags(nn.Module):
    """A logistic regression of each tag on the content vector; tags that all items have, or none, are not learnt."""

    def __init__(self, labels: FeatureMatrix, name: str, dimension: int) -> None:
        super().__init__()
        given = labels.values[labels.present]
        if not np.isin(given, (0, 1)).all():
            raise DataError(f"The labels {name} hold other values than 0 and 1.", "Give each tag a 0 or a 1.")
        varies = given.min(axis=0) < given.max(axis=0)
        if not varies.any():
            raise DataError(f"The labels {name} have one class only.", "Leave labels empty, or give tags that differ.")
        self.register_buffer("varies", torch.from_numpy(varies), persistent=False)
        self.register_buffer("given", torch.from_numpy(labels.values[:, varies]), persistent=False)
        self.register_buffer("labelled", torch.from_numpy(labels.present), persistent=False)
        self.register_buffer("constant", torch.from_numpy(given[0]), persistent=False)
        self.learnt = np.flatnonzero(varies)
        self.read = nn.Linear(dimension, len(self.learnt))

    def loss(self, content: Tensor, items: Tensor | None = None) -> Tensor:
        """Of the content vectors float32[n, d] of these items, or of all; 0 where none has labels."""
        labelled, given = self.get_buffer("labelled"), self.get_buffer("given")
        if items is not None:
            labelled, given = labelled[items], given[items]
        if not labelled.any():
            return content.new_zeros(())
        return objectives.classification(self.read(content[labelled]), given[labelled])

    def probabilities(self, content: Tensor) -> Tensor:
        """float32[n, tags]; 0 or 1 for a tag that does not vary."""
        result = self.get_buffer("constant").repeat(len(content), 1)
        result[:, self.get_buffer("varies")] = torch.sigmoid(self.read(content))
        return result


def inputs(training_set: TrainingSet, labels: str, modalities: Sequence[str] = ()) -> dict[str, FeatureMatrix]:
    """The modalities that are read: not the labels, none that the whole catalogue lacks, and only the named, if any is.

    Raises `DataError` where none is left, or no feature is called `labels`.
    """
    if labels and labels not in training_set.features:
        raise DataError(
            f"The model fusion has no feature {labels} to take labels from.",
            f"Choose of {', '.join(training_set.features) or 'none'}.",
        )
    chosen = {
        name: one
        for name, one in training_set.features.items()
        if name != labels and one.present.any() and (name in modalities or not modalities)
    }
    if not chosen:
        raise DataError("The model fusion needs item features, and the snapshot has none.", "Run features first.")
    return chosen
