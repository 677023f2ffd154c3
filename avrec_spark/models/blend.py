"""A blend of models, with weights that are learnt on held-out interactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import SettingsError
from avrec_spark.models import blend_weights, registry
from avrec_spark.models.base import Recommender, choice
from avrec_spark.models.blend_weights import Ballots
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.topk import Matrix, ScoreSource

HOLD_OUT = ("random", "latest")
_MEMBERS: list[dict[str, Any]] = [{"model": "ease"}, {"model": "ease", "side": "user"}, {"model": "item-knn"}]
_LEARN: list[float] = []


class Blend(Recommender):
    """Scores Σ_m w_m s_m(u, ·) / σ_m(u): σ is the deviation of a member's scores over all items, user by user.

    Where σ is 0 (a member says nothing of a user) the member counts 0. The means need not be taken off: they change no
    order of a user's items. The weights w ≥ 0 sum to 1 and maximise NDCG@k on held-out interactions, by coordinate
    ascent from equal weights; `weights` gives them instead. With a validation part the members are fitted on train and
    the weights learnt on that part. Without, the members are first fitted on train without a share of each user's
    items (`hold_out`: random ones, or the latest; at least one), on which the weights are learnt, then on all of train.
    `hold_outs` such divisions count together: other random items, or the latest, those before them, and so on.

    `members` are models with their parameters: [{"model": "ease", "regularisation": 300.0}, …]. A fit costs what the
    members' cost, once more for each division, and one pass over all scores. Folds in where all members do.
    Source: Jahrer, Töscher and Legenstein, Combining Predictions for Accurate Recommender Systems, KDD 2010.
    """

    name = "blend"

    def __init__(
        self,
        *,
        members: list[dict[str, Any]] = _MEMBERS,
        weights: list[float] = _LEARN,
        hold_out: str = "random",
        share: float = 0.2,
        hold_outs: int = 1,
        k: int = 10,
        seed: int = 42,
    ) -> None:
        self.members = [dict(member) for member in members]
        self.weights = list(weights)
        self.hold_out = choice("The parameter hold_out of the model blend", hold_out, HOLD_OUT)
        self.share = share
        self.hold_outs = hold_outs
        self.k = k
        self.seed = seed
        if not members or not all(isinstance(member.get("model"), str) for member in members):
            raise SettingsError(
                "The model blend has no members, or one that names no model.",
                'Write members as [{"model": "ease"}, …].',
            )
        if weights and (len(weights) != len(members) or min(weights) < 0 or sum(weights) <= 0):
            raise SettingsError(
                f"The model blend has {len(members)} members and the weights {', '.join(map(str, weights))}.",
                "Give one weight of 0 or more a member, or no weights to have them learnt.",
            )
        self._models = self._created()

    def _created(self) -> list[Recommender]:
        return [registry.create(member["model"], **_without_model(member)) for member in self.members]

    @property
    def needs_spark(self) -> bool:
        return any(model.needs_spark for model in self._models)

    def learnt_weights(self) -> list[float]:
        """The weight of each member, in units of its deviation; they sum to 1."""
        return [float(weight) for weight in self._learnt]

    # -- fit ---------------------------------------------------------------------------------------------------------

    def learn_weights(self, parts: Iterable[TrainingSet]) -> list[float]:
        """Fit the members on each training set, and learn the weights on the validation parts of all of them.

        `history` has NDCG@k on these after each step of the search.
        """
        self._models = self._created()
        # The members do not see what is held out, so that they train here as they do on all of train.
        self._search([self._ballots(part, replace(part, validation=None)) for part in parts])
        return self.learnt_weights()

    def _fit(self, training_set: TrainingSet) -> list[ScoreSource]:
        if self.weights:
            self._models = self._created()
            self._learnt = np.array(self.weights) / sum(self.weights)
            self._fit_members(training_set)
        elif training_set.validation is None:
            self.learn_weights(self._divisions(training_set))
            self._fit_members(training_set)
        else:
            self._models = self._created()
            self._search([self._ballots(training_set, training_set)])
        for model in self._models:
            # The same rows, once.
            model._histories, model._seen = self._histories, self._seen
        return self._blended()

    def _divisions(self, training_set: TrainingSet) -> Iterator[TrainingSet]:
        part = training_set
        for number in range(self.hold_outs):
            whole = part if self.hold_out == "latest" else training_set
            part = blend_weights.hold_out(whole, self.hold_out == "latest", self.share, self.seed + number)
            yield part

    def _fit_members(self, training_set: TrainingSet) -> None:
        for model in self._models:
            model.fit_training_set(training_set)

    def _ballots(self, part: TrainingSet, fitted_on: TrainingSet) -> Ballots:
        assert part.validation is not None
        self._fit_members(fitted_on)
        members = [model.score_sources() for model in self._models]
        return blend_weights.ballots(members, self._models[0]._seen, part.validation, self.seed)

    def _search(self, votes: list[Ballots]) -> None:
        self._learnt, path = blend_weights.search(votes, self.k)
        self.history = [{f"ndcg@{self.k}": figure} for figure in path]

    def _blended(self) -> list[ScoreSource]:
        lefts = [[source.left for source in model.score_sources()] for model in self._models]
        return self._with_lefts(lefts)

    def _with_lefts(self, lefts: list[list[Matrix]]) -> list[ScoreSource]:
        """The sources of all members with these left sides, scaled."""
        sources = []
        for model, weight, sides in zip(self._models, self._learnt, lefts, strict=True):
            own = [replace(source, left=left) for source, left in zip(model.score_sources(), sides, strict=True)]
            inverse = 1 / blend_weights.deviations(own, own[0].left.shape[0])
            for source in own:
                kind = "factors" if source.kind == "constant" else source.kind
                scaled = replace(source, left=_scaled(source.left, inverse), kind=kind)
                sources.append(replace(scaled, weight=float(weight) * source.weight))
        return sources

    # -- fold in -----------------------------------------------------------------------------------------------------

    def _left(self, histories: Histories) -> list[Matrix]:
        return [source.left for source in self._with_lefts([model._left(histories) for model in self._models])]

    def fold_in(self, interactions: pd.DataFrame) -> Self:
        folded = super().fold_in(interactions)
        folded._models = [model.fold_in(interactions) for model in self._models]
        return folded

    def _without_users(self) -> Self:
        empty = super()._without_users()
        empty._models = [model._without_users() for model in self._models]
        return empty

    def _influence(self, user: int, past: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32] | None:
        """That of the heaviest member that can say."""
        for member in np.argsort(-self._learnt, kind="stable"):
            if (strength := self._models[member]._influence(user, past, items)) is not None:
                return strength
        return None

    # -- save and load -----------------------------------------------------------------------------------------------

    def _stored_sources(self) -> list[ScoreSource]:
        return []

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"learnt": self._learnt}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._learnt = extra["learnt"]

    def _save_parts(self, folder: Path) -> None:
        for number, model in enumerate(self._models):
            model.save(folder / f"member{number}")

    def _restore_parts(self, folder: Path) -> None:
        self._models = [Recommender.load(folder / f"member{number}") for number in range(len(self.members))]
        self._sources = self._blended()


def _without_model(member: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in member.items() if name != "model"}


def _scaled(matrix: Matrix, factors: NDArray[np.float32]) -> Matrix:
    """Rows times factors."""
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix * factors[:, None], np.float32)
    return csr_matrix(diags(factors) @ matrix, dtype=np.float32)
