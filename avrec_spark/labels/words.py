"""What an item's words say, without an encoder's help: character n-grams, weighted and put into few dimensions.

The text vectors in gold.item_features cannot be used to predict tags: they read the declared tags, too. Character
n-grams need no tokeniser, so that they also read languages that write no spaces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from avrec_spark.dataset.training_set import FeatureMatrix

_NGRAMS, _BUCKETS, _WIDTH = (2, 4), 2**17, 128


def word_vectors(words: Sequence[str], seed: int = 42) -> FeatureMatrix | None:
    """Latent semantic analysis (Deerwester et al. 1990) of the words of n items; None where too few have any.

    Items without words are absent.

    >>> matrix = word_vectors(["steam train", "", "night train", "apple cake", "cake"])
    >>> matrix.present
    array([ True, False,  True,  True,  True])
    >>> similar = matrix.values @ matrix.values.T
    >>> bool(similar[3, 4] > similar[3, 0])
    True
    """
    present = np.array([bool(text.strip()) for text in words], np.bool_)
    width = min(_WIDTH, int(present.sum()) - 1)
    if width < 1:
        return None
    hashing = HashingVectorizer(analyzer="char_wb", ngram_range=_NGRAMS, n_features=_BUCKETS, alternate_sign=False)
    counts = hashing.set_params(norm=None).transform([text for text in words if text.strip()])
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    values = np.zeros((len(words), width), np.float32)
    values[present] = TruncatedSVD(width, random_state=seed).fit_transform(weighted)
    return FeatureMatrix(values, present)
