"""Multi-label classifiers over the concatenated vectors of all modalities: logistic regression, linear SVM and MLP.

All labels are fitted at once, by the same few lines for the three of them. A label that nobody has decided for an item
is NaN and weighs nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.errors import DataError
from avrec_spark.labels.metrics import f1, mean_average_precision
from avrec_spark.models.torch_model import standardised

Floats = NDArray[np.float32]
# Inputs float32[n, w] and what is known of their labels, float32[n, L] of 1, 0 and NaN.
Labelled = tuple[Floats, Floats]

# Penalties λ of the linear models, strongest first; the one with the lowest validation loss is taken.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
_HIDDEN, _DROPOUT, _LEARNING_RATE, _WEIGHT_DECAY = 256, 0.5, 3e-3, 1e-2
_BATCH, _EPOCHS, _PATIENCE = 32, 200, 20


def inputs(features: Mapping[str, FeatureMatrix]) -> tuple[Floats, NDArray[np.bool_]]:
    """(float32[n, w], bool[n]): standardised modalities side by side, and whether an item has any of them.

    Each modality weighs the same, however wide its vectors are; an absent one is zero, which is its average item. A
    modality that no item has is no part of `features`. Raises `DataError` where there is none at all.
    """
    if not features:
        raise DataError("No item has a vector of any modality, so nothing can be classified.", "Run features first.")
    has_any = np.any([matrix.present for matrix in features.values()], axis=0)
    return np.concatenate([standardised(matrix) for matrix in features.values()], axis=1), has_any


@dataclass(frozen=True)
class Classifier:
    """A fitted network; `scores` are logits, or margins in the case of the SVM."""

    name: str
    network: nn.Module
    width: int

    @torch.inference_mode()
    def scores(self, x: Floats) -> Floats:
        """float32[n, L] for float32[n, w]. Raises `DataError` for another width and for NaN."""
        _check(x, self.width)
        scores: Floats = self.network.eval()(torch.from_numpy(x)).numpy()
        return scores


def fit(name: str, train: Labelled, validation: Labelled, seed: int = 42) -> Classifier:
    """Fit one of `CANDIDATES`; the validation part chooses the penalty of a linear model and when an MLP stops.

    Raises `DataError` for NaN among the inputs, and for a label of one class in train.
    """
    x, known = train
    _check(x, x.shape[1])
    one_class = [number for number, column in enumerate(known.T) if not ((column == 1).any() and (column == 0).any())]
    if one_class:
        raise DataError(
            f"Label number {one_class[0]} has items of one class only in the train part.",
            "Leave such labels out (avrec_spark.labels.truth.learnable), or add items of the other class.",
        )
    candidate = CANDIDATES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = candidate.build(x.shape[1], known.shape[1])
        loss, tensors = candidate.loss, [torch.from_numpy(part) for part in (*train, *validation)]
        return Classifier(name, candidate.fit(network, loss, *tensors), x.shape[1])


def best(classifiers: Sequence[Classifier], validation: Labelled) -> Classifier:
    """The one with the highest mean average precision on validation; of equals the one with the higher macro F1."""

    def quality(classifier: Classifier) -> tuple[float, float]:
        scores = classifier.scores(validation[0])
        precision = mean_average_precision(validation[1], scores)
        # Not a number where no label has both kinds of items.
        return float(np.nan_to_num(precision, nan=-1)), f1(validation[1], scores > 0)["macro"]

    return max(classifiers, key=quality)


def _check(x: Floats, width: int) -> None:
    if x.shape[1] != width:
        raise DataError(f"The vectors have {x.shape[1]} dimensions, and the classifier reads {width}.", "Fit it anew.")
    if not np.isfinite(x).all():
        raise DataError("The vectors hold NaN or infinite values.", "Leave such items out, or encode them anew.")


# -- losses ------------------------------------------------------------------------------------------------------------

Loss = Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(scores: Tensor, truth: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")


def _squared_hinge(scores: Tensor, truth: Tensor) -> Tensor:
    return torch.relu(1 - (2 * truth - 1) * scores).square()


def _mean(loss: Loss, scores: Tensor, known: Tensor) -> Tensor:
    """The sum over the labels of the mean over the items whose label is known."""
    said = ~known.isnan()
    # Infinities and NaN must not meet a weight of 0.
    losses = torch.where(said, loss(scores, known.nan_to_num()), 0.0)
    return (losses.sum(dim=0) / said.sum(dim=0).clamp(min=1)).sum()


# -- fitting -----------------------------------------------------------------------------------------------------------


def _fit_linear(network: nn.Module, loss: Loss, x: Tensor, known: Tensor, *validation: Tensor) -> nn.Module:
    """Minimise Σ_l (mean loss of label l + λ/2 ‖w_l‖²) by L-BFGS; the biases are not penalised.

    With n known items C = 1 / (λ n) in scikit-learn's LogisticRegression and LinearSVC means the same.
    """
    chosen, lowest = network, float("inf")
    for penalty in PENALTIES:
        minimise(network, loss, x, known, penalty)
        found = _validation_loss(network, loss, *validation)
        if found < lowest:
            chosen, lowest = copy.deepcopy(network), found
    return chosen


def minimise(network: nn.Module, loss: Loss, x: Tensor, known: Tensor, penalty: float) -> None:
    """Move a linear layer, from where it is, to the minimum of the penalised loss."""
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=200, history_size=10, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = _mean(loss, network(x), known) + penalty / 2 * network.get_parameter("weight").square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(objective)  # type: ignore[arg-type]


def _fit_by_epochs(network: nn.Module, loss: Loss, x: Tensor, known: Tensor, *validation: Tensor) -> nn.Module:
    """AdamW until the validation loss has not fallen for some epochs; the network as it was at its lowest."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    chosen, lowest, last = network, float("inf"), 0
    for epoch in count():
        if epoch - last > _PATIENCE or epoch == _EPOCHS:
            return chosen
        network.train()
        for rows in torch.randperm(len(x)).split(_BATCH):
            optimizer.zero_grad()
            _mean(loss, network(x[rows]), known[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = _validation_loss(network, loss, *validation)
        if found < lowest:
            chosen, lowest, last = copy.deepcopy(network), found, epoch
    raise AssertionError("the loop ends by itself")


@torch.inference_mode()
def _validation_loss(network: nn.Module, loss: Loss, x: Tensor, known: Tensor) -> float:
    return float(_mean(loss, network.eval()(x), known))


def _mlp(width: int, labels: int) -> nn.Module:
    hidden = nn.Linear(width, _HIDDEN)
    return nn.Sequential(hidden, nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_HIDDEN, labels))


@dataclass(frozen=True)
class Candidate:
    """How a classifier is built (width of the inputs, number of labels), what it minimises, and how."""

    build: Callable[[int, int], nn.Module]
    loss: Loss
    fit: Callable[..., nn.Module]


# Another network over the same inputs, such as one with a gate a modality, is one more line here.
CANDIDATES = {
    "logistic": Candidate(nn.Linear, _cross_entropy, _fit_linear),
    "linear-svm": Candidate(nn.Linear, _squared_hinge, _fit_linear),
    "mlp": Candidate(_mlp, _cross_entropy, _fit_by_epochs),
}
