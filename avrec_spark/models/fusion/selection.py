"""Which modalities say anything of what people do, told before the network is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.models.kernels import LANDMARKS, ContentKernel, chosen
from avrec_spark.models.lightgcn import Graph
from avrec_spark.recommend.topk import unit

_DIMENSIONS = 64


def telling(
    interactions: csr_matrix, features: Mapping[str, FeatureMatrix], width: float, regularisation: float
) -> tuple[str, ...]:
    """The modalities that lower the leave-one-out error of where behaviour puts items, in the order of `features`.

    Where it puts them are the singular vectors of the interactions, each divided by the roots of its user's and item's
    numbers; the error is that of a kernel ridge regression on content (`chosen`), of at most 1,024 items. A network
    cannot tell this as it trains: noise of enough dimensions tells items apart as well as an id does, so that the loss
    falls for it, and only items that were not learnt from show that it says nothing. All of them, where there is one
    user or item only, as in pre-training.
    """
    graph = Graph(interactions)
    items = np.flatnonzero(graph.degree[interactions.shape[0] :])[:LANDMARKS]
    dimensions = min(_DIMENSIONS, min(interactions.shape) - 1)
    if len(features) < 2 or dimensions < 1:
        return tuple(features)
    places = unit(_right_vectors(graph.between.astype(np.float64), dimensions)[items])
    kernel = ContentKernel.of(features, items, width)
    kept = chosen(kernel, features, items, places - places.mean(axis=0), regularisation).modalities
    return tuple(name for name in features if name in kept)


def _right_vectors(matrix: csr_matrix, dimensions: int) -> NDArray[np.float64]:
    """float64[columns, dimensions]; the same whenever they are asked for."""
    start = np.random.default_rng(0).normal(size=min(matrix.shape))
    return np.asarray(svds(matrix, k=dimensions, v0=start)[2].T)
