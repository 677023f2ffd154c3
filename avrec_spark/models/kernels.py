"""Kernels between items by content, and the regression on them that says where behaviour would put an item."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.recommend.topk import unit

Features = Mapping[str, FeatureMatrix]
# Items that a regression compares others with.
LANDMARKS = 1024
# Items that are compared at once, so that what the comparison passes over stays near the processor.
_BLOCK = 1024


@dataclass(frozen=True)
class _Modality:
    """Landmarks in one modality: unit vectors float32[landmarks, width] about a mean, bool[landmarks], and what a
    squared distance is divided by."""

    mean: NDArray[np.float32]
    vectors: NDArray[np.float32]
    present: NDArray[np.bool_]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: FeatureMatrix, items: NDArray[np.int64], width: float) -> _Modality:
        present = matrix.present[items]
        known = matrix.values[items[present]] if present.any() else matrix.values[matrix.present]
        mean = known.mean(axis=0)
        vectors = unit(matrix.values[items] - mean)
        among = vectors[present]
        # The mean of |a − b|² over all pairs of unit vectors is 2 − 2 |mean|².
        apart = 2 - 2 * float(np.square(among.mean(axis=0)).sum()) if present.any() else 1.0
        return cls(mean, vectors, present, np.array(width * max(apart, 1e-6), np.float32))

    def factor(self, matrix: FeatureMatrix) -> NDArray[np.float32]:
        """1 + e^(−d / scale), or 1 where either lacks the modality; float32[landmarks, n]."""
        # d = 2 − 2 cos. In place: the passes over landmarks × n cost as much as the product.
        near = self.vectors @ unit(matrix.values - self.mean).T
        near -= 1
        near *= 2 / self.scale
        np.exp(np.minimum(near, 0, out=near), out=near)
        near *= self.present[:, None]
        near *= matrix.present
        near += 1
        return near


class ContentKernel:
    """K(i, j) = (Π_m (1 + e^(−d_m / (width d̄_m))) − 1) / √(c_i c_j) of landmark items i and any items j.

    d_m is the squared distance of their vectors of modality m, centred and of length 1, d̄_m its mean among landmarks.
    Each modality counts, and each combination of them; one that either item lacks counts nothing. An item that has p of
    them has c = 2^p − 1, so that K(i, i) is 1 whatever it lacks: less content is not less of an item.
    Source: the ANOVA kernel of Stitson et al. 1999.
    """

    def __init__(self, modalities: Mapping[str, _Modality]) -> None:
        self.modalities = dict(modalities)
        self._scale = _scale([one.present for one in self.modalities.values()])

    @classmethod
    def of(cls, features: Features, items: NDArray[np.int64], width: float) -> Self:
        """With these items as landmarks."""
        return cls({name: _Modality.of(matrix, items, width) for name, matrix in features.items()})

    def of_only(self, names: Collection[str]) -> ContentKernel:
        """The kernel of these modalities alone."""
        return ContentKernel({name: one for name, one in self.modalities.items() if name in names})

    def __call__(self, features: Features) -> NDArray[np.float32]:
        """K, float32[landmarks, n]; a modality that `features` lacks is absent for all n items."""
        shared = {name: one for name, one in self.modalities.items() if name in features}
        product: Any = np.float32(1)
        for name, one in shared.items():
            product = product * one.factor(features[name])
        scale = np.atleast_1d(self._scale)[:, None] * _scale([features[name].present for name in shared])
        return np.asarray((product - 1) / scale, np.float32)


def _scale(present: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """√(2^p − 1) of items that have p modalities; 1 of one without any."""
    own = np.prod([1 + one for one in present], axis=0, dtype=np.float32)
    return np.sqrt(np.maximum(own - 1, np.float32(1)))


@dataclass(frozen=True)
class ContentRegression:
    """Kernel ridge regression of targets [items, d] on content: mean + K_S(landmarks, ·)ᵀ coefficients_S.

    S are the modalities that an item has: each set has a regression of its own, with K_S of these modalities and
    coefficients [landmarks, d], as if there had never been others. What an absent one would have said is then told, as
    far as it can be, by those that are there. Sets are those of the items at hand, that of all modalities and, for
    newcomers, those without one; an item of any other set is taken for one of all, whose kernel counts nothing where it
    lacks something. An item without content gets the mean.

    A modality stays out that does not lower the leave-one-out error, which is how pure noise is told. Beyond 1,024
    items the landmarks are some of them, and all take part in the fit.
    Sources: Saunders, Gammerman and Vovk, ICML 1998; subset of regressors, Smola and Schölkopf 2000.
    """

    kernel: ContentKernel
    mean: NDArray[np.float32]
    coefficients: Mapping[frozenset[str], NDArray[np.float32]]

    @classmethod
    def fit(
        cls,
        features: Features,
        items: NDArray[np.int64],
        targets: NDArray[Any],
        width: float,
        regularisation: float,
        newcomers: bool = False,
    ) -> ContentRegression:
        """For targets float[len(items), d] of these items, whose order must say nothing."""
        landmarks = items[:LANDMARKS]
        mean = targets.mean(axis=0)
        rest = (targets - mean).astype(np.float64)
        kernel = chosen(ContentKernel.of(features, landmarks, width), features, landmarks, rest, regularisation)
        every = frozenset(kernel.modalities)
        sets = {every} | {every - {name} for name in every if newcomers} | set(_sets_present(features, every))
        coefficients = {
            names: _solved(kernel.of_only(names)(features)[:, items], rest, regularisation) for names in sets if names
        }
        return cls(kernel, mean.astype(np.float32), coefficients)

    def __call__(self, features: Features) -> NDArray[np.float32]:
        """float32[n, d] for the content of n items."""
        every = frozenset(self.kernel.modalities)
        n = len(next(iter(features.values())).present)
        result = np.tile(self.mean, (n, 1))
        for names, rows in _sets_present(features, every).items():
            known = names if names in self.coefficients else every
            kernel = self.kernel.of_only(known)
            for start in range(0, len(rows), _BLOCK):
                some = rows[start : start + _BLOCK]
                block = {name: FeatureMatrix(one.values[some], one.present[some]) for name, one in features.items()}
                result[some] += kernel(block).T @ self.coefficients[known]
        return result

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restored` takes."""
        arrays: dict[str, NDArray[Any]] = {"mean": self.mean}
        for number, (names, coefficients) in enumerate(self.coefficients.items()):
            arrays |= {f"coefficients.{number}": coefficients, f"names.{number}": np.array(sorted(names))}
        for name, one in self.kernel.modalities.items():
            arrays |= {f"{part}.{name}": value for part, value in vars(one).items()}
        return arrays

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> ContentRegression:
        names = [name.removeprefix("vectors.") for name in arrays if name.startswith("vectors.")]
        parts = ("mean", "vectors", "present", "scale")
        kernel = ContentKernel({name: _Modality(*(arrays[f"{part}.{name}"] for part in parts)) for name in names})
        numbers = [name.removeprefix("names.") for name in arrays if name.startswith("names.")]
        coefficients = {frozenset(arrays[f"names.{n}"].tolist()): arrays[f"coefficients.{n}"] for n in numbers}
        return cls(kernel, arrays["mean"], coefficients)


def _sets_present(features: Features, among: frozenset[str]) -> dict[frozenset[str], NDArray[np.int64]]:
    """The items that have each set of these modalities, but for those that have none."""
    names = sorted(among & set(features))
    if not names:
        return {}
    sets, of_item = np.unique(np.stack([features[name].present for name in names], axis=1), axis=0, return_inverse=True)
    return {
        frozenset(name for name, present in zip(names, one, strict=True) if present): np.flatnonzero(of_item == number)
        for number, one in enumerate(sets)
        if one.any()
    }


def _solved(known: NDArray[np.float32], targets: NDArray[np.float64], regularisation: float) -> NDArray[np.float32]:
    """Coefficients [landmarks, d] by K(landmarks, items); the landmarks are the first of the items."""
    known = known.astype(np.float64)
    among = known[:, : len(known)]
    if known.shape[1] > len(known):
        system, right = known @ known.T + regularisation * among, known @ targets
    else:
        system, right = among.copy(), targets
        system[np.diag_indices_from(system)] += regularisation
    system[np.diag_indices_from(system)] += 1e-6 * max(float(system.diagonal().mean()), 1.0)
    return np.asarray(scipy.linalg.solve(system, right, assume_a="pos"), np.float32)


def chosen(
    kernel: ContentKernel, features: Features, items: NDArray[np.int64], targets: NDArray[Any], regularisation: float
) -> ContentKernel:
    """The kernel without the modalities that do not lower the leave-one-out error; `items` are its landmarks."""
    of_items = {name: FeatureMatrix(one.values[items], one.present[items]) for name, one in features.items()}
    some = targets[: len(items)]
    error = left_out_error(kernel(of_items), some, regularisation)
    for name in list(kernel.modalities):
        if len(kernel.modalities) == 1:
            break
        less = kernel.of_only(set(kernel.modalities) - {name})
        other = left_out_error(less(of_items), some, regularisation)
        if other <= error:
            kernel, error = less, other
    return kernel


def left_out_error(kernel: NDArray[Any], targets: NDArray[Any], regularisation: float) -> float:
    """Mean squared error of each row of targets [n, d], predicted from the others: (G⁻¹ y)_i / (G⁻¹)_ii, G = K + λI."""
    system = kernel.astype(np.float64)
    system[np.diag_indices_from(system)] += regularisation
    inverse = np.linalg.inv(system)
    return float(np.mean(np.square((inverse @ targets) / inverse.diagonal()[:, None])))
