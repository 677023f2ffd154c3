"""The fusion model as a recommender: its parameters, its sources of scores, and what it says of items."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from avrec_spark import columns as c
from avrec_spark.dataset.index import IdIndex
from avrec_spark.dataset.training_set import FeatureMatrix, TrainingSet
from avrec_spark.errors import DataError, SettingsError
from avrec_spark.models.base import plain, with_prefix
from avrec_spark.models.fusion import pretraining
from avrec_spark.models.fusion.module import FusionModule, inputs
from avrec_spark.models.fusion.selection import telling
from avrec_spark.models.fusion.strangers import log_popularity, worth_of_popularity
from avrec_spark.models.histories import Histories
from avrec_spark.models.kernels import ContentRegression
from avrec_spark.models.lightgcn import own_and_reach, smoothed_users
from avrec_spark.models.torch_model import TorchRecommender
from avrec_spark.recommend.topk import Matrix, ScoreSource, unit
from avrec_spark.training.warm_start import WarmStart


class Fusion(TorchRecommender):
    """Recommends by what items are made of and by who liked them, also items that nobody has touched.

    `FusionModule` has the mathematics; docs/fusion.md says what each parameter is for. Needs item features. Users
    without history get the popular list; a new user is served from the history alone (`fold_in`), the more so the more
    there is of it, and from what is popular: worth `prior_events`, which the fit estimates. Costs a pass over
    all items and edges a step, and interactions × items × dimension an epoch for the softmax, which beyond
    `full_softmax_items` items is sampled.

    Sources: LightGCN, He et al. 2020; DropoutNet, Volkovs, Yu and Poutanen 2017 (ids that are dropped); Gantner et al.
    2010 (attributes mapped to factors, for cold items).
    """

    name = "fusion"
    factory = FusionModule
    module_parameters = (
        "dimension",
        "content_rank",
        "layers",
        "neighbours",
        "temperature",
        "user_exponent",
        "spared",
        "content_dropout",
        "id_dropout",
        "modality_dropout",
        "softmax",
        "align",
        "classify",
        "labels",
        "kernel_width",
        "regularisation",
        "item_bias",
    )

    def __init__(
        self,
        *,
        dimension: int = 64,
        content_rank: int = 32,
        layers: int = 2,
        neighbours: int = 0,
        temperature: float = 0.4,
        user_exponent: float = 0.0,
        spared: float = 0.0,
        content_dropout: float = 0.3,
        id_dropout: float = 0.2,
        modality_dropout: float = 0.2,
        softmax: float = 1.0,
        align: float = 0.0,
        classify: float = 0.0,
        labels: str = "",
        kernel_width: float = 2.0,
        regularisation: float = 3.0,
        item_bias: bool = False,
        select_modalities: bool = False,
        epochs: int = 40,
        batch_size: int = 1024,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        full_softmax_items: int = 4096,
        patience: int = 5,
        seed: int = 42,
    ) -> None:
        self.dimension = dimension
        self.content_rank = content_rank
        self.layers = layers
        self.neighbours = neighbours
        self.temperature = temperature
        self.user_exponent = user_exponent
        self.spared = spared
        self.content_dropout = content_dropout
        self.id_dropout = id_dropout
        self.modality_dropout = modality_dropout
        self.softmax = softmax
        self.align = align
        self.classify = classify
        self.labels = labels
        self.kernel_width = kernel_width
        self.regularisation = regularisation
        self.item_bias = item_bias
        self.select_modalities = select_modalities
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.full_softmax_items = full_softmax_items
        self.patience = patience
        self.seed = seed
        if layers < 1:
            raise SettingsError(f"The parameter layers of the model fusion is {layers}.", "A user's history is one.")

    def _module_parameters(self, training_set: TrainingSet) -> dict[str, Any]:
        """Told once, for all ranks."""
        features = inputs(training_set, self.labels)
        heard = tuple(features)
        if self.select_modalities:
            heard = telling(training_set.matrix(), features, self.kernel_width, self.regularisation)
        return {**super()._module_parameters(training_set), "modalities": heard}

    @torch.inference_mode()
    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        assert isinstance(module, FusionModule)
        space = module.space()
        self._learnt = WarmStart.of(module, module.rows, self.align > 0)
        _, self._reach = own_and_reach(space.layers, module.graph, module.n_users)
        self._vectors, self._regression = module.placed(space, newcomers=True)
        self._gates = space.gates.numpy()
        self._tags = None if module.tags is None else module.tags.probabilities(space.content).numpy()
        self._widths = module.encoder.widths
        self._unheard = [name for name in inputs(training_set, self.labels) if name not in self._widths]
        self._held_out = training_set.held_out()

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        sources = super()._fit(training_set)
        # In units of cosines, and no part of the scores of known users.
        popular = (self.temperature * log_popularity(self._popularity))[None].astype(np.float32)
        sources.append(ScoreSource(np.zeros((len(training_set.users), 1), np.float32), popular))

        def of_strangers(told: Histories, worth: float) -> list[ScoreSource]:
            self.prior_events = worth
            return [replace(source, left=left) for source, left in zip(sources, self._left(told), strict=True)]

        self.prior_events = worth_of_popularity(self._histories, of_strangers)
        return sources

    def _left(self, histories: Histories) -> list[Matrix]:
        """A stranger with n items: n / prior_events × cosine / temperature + log popularity, brought to a sum of 1.

        A softmax of it is popularity, tilted towards the history by as many log-odds as the fit would give it, times
        n / prior_events: with few items popularity says more, with many the cosines are left, as for known users.
        """
        unit = smoothed_users(histories, self._own, self._reach)
        n = np.diff(histories.taken().indptr)
        prior = np.where(histories.known < 0, self.prior_events / np.maximum(n + self.prior_events, 1e-12), 0)[:, None]
        own = [(1 - prior) * unit, *([1 - prior] if self.item_bias else [])]
        return [left.astype(np.float32) for left in (*own, prior)]

    @property
    def _own(self) -> NDArray[np.float32]:
        """The users' id vectors, float32[users, d]."""
        return self._learnt.parameters["users.weight"]

    # -- beginnings --------------------------------------------------------------------------------------------------

    def starting_from(self, earlier: Fusion | WarmStart, ids: bool = True) -> Self:
        """Let every later fit of this model begin with what an earlier one has learnt.

        Users, items and modalities are known again by id and name; those that are new begin at random. With `ids=False`
        only what is learnt of content is taken: for another catalogue, whose ids mean other things. The optimizer
        begins afresh.
        """
        start = earlier.learnt() if isinstance(earlier, Fusion) else earlier
        self.warm_start = start if ids else start.only(*pretraining.LEARNT)
        return self

    def learnt(self) -> WarmStart:
        """What a later fit can begin with (`starting_from`)."""
        return self._learnt

    def pretrain(self, item_features: Mapping[str, pd.DataFrame] | TrainingSet) -> WarmStart:
        """Learn from content alone: `align` and `classify` over every item with features, each once an epoch.

        Frames as in `fit`; a training set where they lie in a snapshot (`pretraining.every_item_once`). Runs for
        `epochs` with this model's launcher, and leaves the model as it was. Raises `DataError` where neither loss has
        anything to learn from, and what `fit` raises of features.
        """
        known = item_features
        known = known if isinstance(known, TrainingSet) else pretraining.every_item_once(known)
        pretraining.require_something_to_learn(known, self.align, self.classify, self.labels)
        module = copy.copy(self)._trained(pretraining.PretrainingModule, known)
        assert isinstance(module, pretraining.PretrainingModule)
        return module.learnt()

    def held_out(self) -> pd.DataFrame:
        """The pairs user_id, item_id that the fit was validated on; none where it had no validation."""
        return self._held_out

    # -- items -------------------------------------------------------------------------------------------------------

    def item_vectors(self) -> NDArray[np.float32]:
        """float32[n_items, dimension], rows as in `items`."""
        return self._vectors

    def gates(self) -> pd.DataFrame:
        """How much of each modality is heard: one row an item as in `items`, 0 where the item lacks the modality or
        the model has left it out.

        A row sums to at most 1, what is left being what no modality was listened to.
        """
        return pd.DataFrame(self._gates, columns=list(self._widths)).assign(**dict.fromkeys(self._unheard, 0.0))

    def tags(self) -> NDArray[np.float32]:
        """float32[n_items, tags]: the probability of each tag given content. Raises `DataError` without `labels`."""
        if self._tags is None:
            raise DataError("The model fusion was fitted without labels.", "Name the feature that holds them: labels.")
        return self._tags

    @torch.inference_mode()
    def embed(self, item_features: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """item_id and vector[dimension] of items by their content alone, in the space of `item_vectors`.

        Frames have item_id, vector, one a modality, as in `fit`; an item may lack some. Nothing is learnt, and the
        items need not be known. Modalities that the model has left out say nothing. Raises `DataError` for vectors of
        another width than fitted on, with NaN, of a modality that was not there, or where none is heard.
        """
        heard = {name: frame for name, frame in item_features.items() if name not in self._unheard}
        unknown = sorted(set(heard) - set(self._widths))
        if unknown or not heard:
            raise DataError(
                f"The model fusion knows no modality {', '.join(unknown) or 'among none'}.",
                f"Give vectors of {', '.join(self._widths)}.",
            )
        ids = np.concatenate([frame[c.ITEM_ID].to_numpy() for frame in item_features.values()])
        items = IdIndex(pd.unique(ids))
        features = {
            name: FeatureMatrix.of(name, items.encode(frame[c.ITEM_ID]), frame[c.VECTOR], len(items))
            for name, frame in heard.items()
        }
        for name, matrix in features.items():
            if matrix.values.shape[1] != self._widths[name]:
                raise DataError(
                    f"The {name} vectors have {matrix.values.shape[1]} values each, not {self._widths[name]}.",
                    "Use the vectors of the encoder that the model was fitted with.",
                )
        return pd.DataFrame({c.ITEM_ID: items.ids, c.VECTOR: list(self._regression(features))})

    def recommend_for_content(self, item_features: Mapping[str, pd.DataFrame], k: int, **options: Any) -> pd.DataFrame:
        """Lists for newcomers who have declared what they like as vectors, as if of an item that they want more of.

        Frames as in `embed`, whose item_id is the newcomer: a user_id of the result. `options` are `candidates` and
        `exclude` of `recommend`; raises what `embed` raises.
        """
        wanted = self.embed(item_features)
        vectors = unit(np.stack(wanted[c.VECTOR].tolist()))
        lefts = [vectors, *(np.zeros((len(wanted), 1), np.float32) for _ in self._sources[1:])]
        lists = self._newcomers(lefts, np.ones(len(wanted), np.bool_), k, **options)
        return lists.assign(**{c.USER_ID: wanted[c.ITEM_ID].to_numpy()[lists[c.USER_ID]]})

    def user_vectors(self, histories: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """float32[n, dimension] of newcomers with these item ids, in the space of `item_vectors`; unknown ids say
        nothing, and a history of none has a zero vector."""
        lengths = [len(part) for part in histories]
        items = self.items.encode(
            np.concatenate([np.asarray(part) for part in histories if len(part)] or [self.items.ids[:0]])
        )
        user, known = np.repeat(np.arange(len(histories)), lengths), items >= 0
        pairs = user[known], items[known]
        nobody, ones = np.full(len(histories), -1), np.ones(known.sum(), np.float32)
        told = Histories(*pairs, ones, np.zeros(len(ones)), nobody, len(self.items))
        return np.asarray(smoothed_users(told, self._own, self._reach), np.float32)

    # -- save and load -----------------------------------------------------------------------------------------------

    def _extra(self) -> dict[str, NDArray[Any]]:
        kept = {"reach": self._reach, "vectors": self._vectors, "gates": self._gates}
        kept |= {"prior_events": np.array(self.prior_events), "unheard": np.array(self._unheard, dtype=np.str_)}
        tags = {} if self._tags is None else {"tags": self._tags}
        regression = {f"regression.{name}": value for name, value in self._regression.arrays().items()}
        widths = {"modalities": np.array(list(self._widths)), "widths": np.array(list(self._widths.values()))}
        learnt = {f"learnt.{name}": value for name, value in self._learnt.arrays().items()}
        held_out = {f"held_out.{name}": plain(self._held_out[name].to_numpy()) for name in (c.USER_ID, c.ITEM_ID)}
        return kept | tags | regression | widths | learnt | held_out

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._reach, self._vectors, self._gates = extra["reach"], extra["vectors"], extra["gates"]
        self._tags, self.prior_events = extra.get("tags"), float(extra["prior_events"])
        self._unheard = extra["unheard"].tolist() if "unheard" in extra else []
        self._widths = dict(zip(extra["modalities"].tolist(), extra["widths"].tolist(), strict=True))
        self._regression = ContentRegression.restored(with_prefix("regression.", extra))
        self._learnt = WarmStart.restored(with_prefix("learnt.", extra))
        self._held_out = pd.DataFrame(with_prefix("held_out.", extra))
        if self._vectors.shape[1] != self.dimension:
            raise DataError(
                f"The stored fusion model has {self._vectors.shape[1]} dimensions, and its parameters say "
                f"{self.dimension}: it is of another configuration.",
                "Load it with the parameters that it was fitted with, or fit it again.",
            )
