"""Neighbours by content: edges between items that need no behaviour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_matrix, diags

from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.recommend.topk import nearest, unit


def content_neighbours(features: Mapping[str, FeatureMatrix], k: int) -> csr_matrix:
    """float32[n_items, n_items]: the k nearest items of each by content, those with a positive cosine; rows sum to 1.

    Vectors are centred and of length 1, and a pair's cosine is the mean over the modalities of the item. The row of an
    item without content is empty.
    """
    parts = []
    for matrix in features.values():
        centred = matrix.values - matrix.values[matrix.present].mean(axis=0)
        parts.append(unit(np.where(matrix.present[:, None], centred, 0)))
    vectors = unit(np.concatenate(parts, axis=1))
    described = np.flatnonzero(np.any([matrix.present for matrix in features.values()], axis=0))
    near, cosine = nearest(vectors, described, k)
    kept = (near >= 0) & (cosine > 0)
    rows = np.broadcast_to(described[:, None], near.shape)
    edges = csr_matrix((cosine[kept], (rows[kept], near[kept])), shape=(len(vectors), len(vectors)), dtype=np.float32)
    total = np.maximum(np.asarray(edges.sum(axis=1)).ravel(), 1e-12)
    return csr_matrix(diags(1 / total) @ edges, dtype=np.float32)
