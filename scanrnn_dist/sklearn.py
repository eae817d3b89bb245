"""Inside scikit-learn: `ScanRNNFeatures`, a transformer from sequences to features, for pipelines and grid searches.

What counts as sequences is `encode`'s, and so are the features. Needs scikit-learn, which the extra `sklearn` brings.
"""

from __future__ import annotations

import copy
import os
from typing import Any, Literal, Self

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from scanrnn_dist.api import as_ragged, encode
from scanrnn_dist.encoder import Encoder, checked_encoder
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.ragged import Ragged, checked_max_steps


class ScanRNNFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer whose `transform` gives one row of features for each sequence, the same as `encode` gives.

    `fit` only learns how many features a step has, and draws the random weights; nothing is trained, and `y` is not
    looked at. In the meaning of scikit-learn, `n_features_in_` are the features of a step, `D`.

    Args:
        hidden: hidden features of every layer.
        seed: fixes the random weights.
        cell: `"gru"`, `"lstm"` or `"rnn"`.
        num_layers, bidirectional, readout: as of `Encoder.from_seed`; the readout is not `"steps"`.
        encoder: an `Encoder`, of which `fit` makes a copy, or the path of its file, in place of random weights; all of
            the above is then unused. The cache of `Pipeline(memory=...)` compares paths, not the content of files: give
            an `Encoder` there.
        column: where X is a table, the column that holds the sequences.
        max_steps: use only the first so many steps of each sequence.
        lossy_cast: round numbers, such as those of float64, that float32 cannot hold; otherwise they are refused.

    Raises:
        ConfigError: an encoder that gives no vectors, no such column, or numbers that are too small; raised by `fit`.
        DataError: sequences that are not what they should be, raised by `fit` and `transform`.

    Example:
        >>> import numpy as np
        >>> X = [np.ones((5, 2)), np.zeros((0, 2)), np.ones((9, 2))]
        >>> ScanRNNFeatures(hidden=3).fit_transform(X).shape
        (3, 3)
    """

    def __init__(
        self,
        hidden: int = 64,
        *,
        seed: int = 0,
        cell: str = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        encoder: Encoder | str | os.PathLike[str] | None = None,
        column: str | None = None,
        max_steps: int | None = None,
        lossy_cast: bool = False,
    ) -> None:
        self.hidden = hidden
        self.seed = seed
        self.cell = cell
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.readout = readout
        self.encoder = encoder
        self.column = column
        self.max_steps = max_steps
        self.lossy_cast = lossy_cast

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn how many features a step of `X` has, and make the encoder; whatever `encode` takes can be `X`."""
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit` and `transform`, reading `X` once, so that it may be any iterator that `encode` takes."""
        return self._features(self._fit(X))

    def transform(self, X: Any) -> Any:
        """The features of each sequence, `(N, out_features)` float32, in order."""
        check_is_fitted(self)
        return self._features(self._sequences(X, self.n_features_in_))

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """`scanrnnfeatures0` and so on, `(out_features,)`; `input_features` changes nothing."""
        return super().get_feature_names_out()

    def _features(self, sequences: Ragged) -> Any:
        """Not by `transform`, which scikit-learn wraps: a table without the index of `X` would come out of it."""
        return encode(self.encoder_, sequences, max_steps=self.max_steps, lossy_cast=self.lossy_cast)

    def _fit(self, X: Any) -> Ragged:
        """The sequences of `X`, for which the encoder is made."""
        checked_max_steps(self.max_steps)
        given = self.encoder
        told = None if given is None else _own(given)
        sequences = self._sequences(X, None if told is None else told.in_features)
        if told is None:
            told = Encoder.from_seed(
                self.seed, sequences.in_features, self.hidden, cell=self.cell, num_layers=self.num_layers,
                bidirectional=self.bidirectional, readout=self.readout,
            )  # fmt: skip
        if told.gives_steps:
            raise ConfigError(
                "The readout is 'steps'; expected one vector for each sequence, such as 'last' or 'mean'."
            )
        self.encoder_, self.n_features_in_ = told, sequences.in_features
        return sequences

    def _sequences(self, X: Any, in_features: int | None) -> Ragged:
        # With max_steps `encode` judges, which knows the steps that count.
        nonfinite: Literal["error", "propagate"] = "error" if self.max_steps is None else "propagate"
        return as_ragged(X, None, in_features, nonfinite, self.lossy_cast, self.column)

    @property
    def _n_features_out(self) -> int:
        """What `get_feature_names_out` counts to."""
        return self.encoder_.out_features

    def __sklearn_tags__(self) -> Any:
        """That `X` is sequences, not a matrix."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _own(given: Any) -> Encoder:
    """The encoder of a file, or a copy of one, which may be trained further; a `ConfigError` for what is neither."""
    return Encoder.load(given) if isinstance(given, str | os.PathLike) else copy.deepcopy(checked_encoder(given))
