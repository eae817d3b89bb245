"""`ScanRNNFeatures`: the features of `encode` within scikit-learn, and what scikit-learn asks of its transformers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest
from flax import nnx

from scanrnn_dist.api import encode
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import Ragged

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from scanrnn_dist.sklearn import ScanRNNFeatures

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(length, 2)).astype(np.float32) + length % 2 for length in [3, 4, 0, 7] * 5]
Y = [len(row) % 2 for row in X]


def test_the_features_are_those_of_encode() -> None:
    made = ScanRNNFeatures(hidden=3, seed=5, cell="lstm", readout="mean").fit(X)
    wanted = encode(Encoder.from_seed(5, 2, 3, cell="lstm", readout="mean"), X)
    np.testing.assert_array_equal(made.transform(X), wanted)
    np.testing.assert_array_equal(ScanRNNFeatures(3, seed=5, cell="lstm", readout="mean").fit_transform(X), wanted)
    assert made.n_features_in_ == 2
    assert made.get_feature_names_out().tolist() == ["scanrnnfeatures0", "scanrnnfeatures1", "scanrnnfeatures2"]


def test_an_encoder_of_ones_own(tmp_path: Path) -> None:
    encoder = Encoder.from_seed(1, 2, 3)
    encoder.save(tmp_path / "e.safetensors")
    wanted = encode(encoder, X, max_steps=2)
    for given in (encoder, tmp_path / "e.safetensors", str(tmp_path / "e.safetensors")):
        np.testing.assert_array_equal(ScanRNNFeatures(encoder=given, max_steps=2).fit_transform(iter(X)), wanted)
    beyond = pa.array([[[1.0, 2.0], [3.0, 4.0], [float("nan"), 0.0]]])
    made = ScanRNNFeatures(encoder=encoder, max_steps=2).fit_transform(beyond)
    np.testing.assert_array_equal(made, encode(encoder, beyond, max_steps=2))
    with pytest.raises(DataError, match="the encoder takes 2"):
        ScanRNNFeatures(encoder=encoder).fit([np.ones((2, 3))])
    with pytest.raises(ConfigError, match="The encoder is a int"):
        ScanRNNFeatures(encoder=3).fit(X)


def test_training_an_encoder_further_changes_nothing_that_was_fitted() -> None:
    encoder = Encoder.from_seed(1, 2, 3)
    made = ScanRNNFeatures(encoder=encoder).fit(X)
    wanted = made.transform(X)
    nnx.update(encoder, jax.tree.map(lambda weights: weights * 2, nnx.state(encoder)))
    np.testing.assert_array_equal(made.transform(X), wanted)
    assert not np.array_equal(encode(encoder, X), wanted)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="The readout is 'steps'; expected one vector"):
        ScanRNNFeatures(readout="steps").fit(X)
    with pytest.raises(DataError, match="3 features per step, and the encoder takes 2"):
        ScanRNNFeatures(2).fit(X).transform([np.ones((1, 3))])
    with pytest.raises(ConfigError, match="max_steps is -1; expected 0 or more"):
        ScanRNNFeatures(2, max_steps=-1).fit(X)
    with pytest.raises(TypeError, match="sample_weight"):
        ScanRNNFeatures(2).fit_transform(X, Y, sample_weight=Y)
    with pytest.raises(DataError, match="lossy_cast"):
        ScanRNNFeatures(2).fit([np.full((1, 2), 0.1)])
    with pytest.raises(NotFittedError):
        ScanRNNFeatures(2).transform(X)


def test_clones_and_pickles_are_the_same() -> None:
    made = ScanRNNFeatures(encoder=Encoder.from_seed(1, 2, 3)).fit(X)
    wanted = made.transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).transform(X), wanted)
    np.testing.assert_array_equal(clone(made).fit_transform(X), wanted)
    assert "Encoder(GRU of 1 layer, 3 hidden features" in repr(made)


def test_a_grid_search_over_a_pipeline() -> None:
    search = GridSearchCV(
        make_pipeline(ScanRNNFeatures(), LogisticRegression()), {"scanrnnfeatures__hidden": [1, 4]}, cv=2
    )
    search.fit(X, Y)
    assert search.cv_results_["param_scanrnnfeatures__hidden"].tolist() == [1, 4]
    assert search.best_estimator_[0].encoder_.out_features == search.best_params_["scanrnnfeatures__hidden"]
    assert search.score(X, Y) > 0.8


def test_cross_validation_takes_a_ragged() -> None:
    model = make_pipeline(ScanRNNFeatures(3), LogisticRegression())
    np.testing.assert_array_equal(cross_val_score(model, Ragged.from_sequences(X), Y), cross_val_score(model, X, Y))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_in_and_out(library: str) -> None:
    frames = pytest.importorskip(library)
    made = ScanRNNFeatures(3, column="seq").set_output(transform=library)
    frame = frames.DataFrame({"y": Y, "seq": [row.tolist() for row in X]})
    features = made.fit_transform(frame)
    assert type(features) is frames.DataFrame and list(features.columns) == list(made.get_feature_names_out())
    np.testing.assert_array_equal(features.to_numpy(), encode(Encoder.from_seed(0, 2, 3), X))


def test_the_index_of_a_frame_stays_and_columns_have_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"y": Y, "seq": [row.tolist() for row in X]}, index=range(len(X), 0, -1))
    made = ScanRNNFeatures(3, column="seq").set_output(transform="pandas")
    assert made.fit_transform(frame).index.equals(frame.index) and made.transform(frame).index.equals(frame.index)
    both = ColumnTransformer([("y", "passthrough", ["y"]), ("seq", ScanRNNFeatures(3), "seq")])
    assert [*both.fit(frame).get_feature_names_out()] == ["y__y", *(f"seq__scanrnnfeatures{n}" for n in range(3))]


class OneStep(ScanRNNFeatures):
    """Takes matrices, each row being a sequence of one step, since most of scikit-learn's checks try nothing else."""

    def _sequences(self, X: Any, in_features: int | None) -> Any:
        X = validate_data(self, X, dtype="numeric", reset=in_features is None)
        return super()._sequences(np.asarray(X)[:, None], in_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


@pytest.mark.soak  # 3 s
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_finds_no_fault() -> None:
    for estimator in (ScanRNNFeatures(2), OneStep(2, lossy_cast=True)):
        told = check_estimator(estimator, on_skip=None)  # raises where a check fails; none is expected to
    assert len([each for each in told if each["status"] == "passed"]) > 40
