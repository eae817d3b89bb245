"""How much a linear classifier can tell from features: its accuracy on rows that it has not seen, set by set.

    python evaluate_features.py FEATURES... --label label                   # a column `split` holds train and test
    python evaluate_features.py FEATURES/train,FEATURES/test --label label  # or two paths, with a comma

FEATURES are outputs of `scanrnn featurize`, of any layout, with one vector per row. They are standardised by the mean
and deviation of the training rows, and a logistic regression is fitted to these; no choice is made by looking at the
test rows. Covered: features that fit in memory. Not covered: tuning of the classifier, and how sure the accuracy is.
Copy this file and edit it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileType
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scanrnn_dist as srd
from scanrnn_dist.records import FEATURES, RECORDS, SUCCESS, feature_names
from scanrnn_dist.storage import resolve

TRAIN, TEST = "train", "test"  # the values of the split column; rows of others are left out
MOST_ITERATIONS = 2000  # the default, 100, is too few for some hundred features


class Result(NamedTuple):
    """A line of the table."""

    name: str
    features: int
    train_rows: int
    test_rows: int
    train_accuracy: float
    test_accuracy: float


def read_splits(name: str, label: str, split: str) -> tuple[pa.Table, pa.Table]:
    """Training and test rows, of one data set with a split column or of two paths."""
    paths = name.split(",")
    if len(paths) == 2:
        return read_features(paths[0], [label]), read_features(paths[1], [label])
    table = read_features(name, [label, split])
    values = pc.cast(table[split], pa.string())
    parts = tuple(table.filter(pc.equal(values, value)) for value in (TRAIN, TEST))
    for value, part in zip((TRAIN, TEST), parts, strict=True):
        if not len(part):
            found = sorted(map(str, pc.unique(values).to_pylist()))
            raise srd.DataError(
                f"No row of {name} has {value!r} in column {split!r}; its values are {found}. "
                "Choose the column with --split, or give two paths: TRAIN,TEST."
            )
    return parts


def read_features(path: str, columns: list[str]) -> pa.Table:
    """The features and the named columns of a data set that is whole."""
    filesystem, _, root = resolve(path)
    try:
        records, success = filesystem.get_file_info([f"{root.rstrip('/')}/{name}" for name in (RECORDS, SUCCESS)])
        if records.type != FileType.NotFound and success.type == FileType.NotFound:
            raise srd.DataError(
                f"{path} has no {SUCCESS}: its job has not ended. Expected a whole one; featurize again."
            )
        table = pq.read_table(root, filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise srd.ConfigError(f"{path} cannot be read as Parquet: {error}. Expected features of featurize.") from error
    features = feature_names(table.schema)
    for column in (*(features or [FEATURES]), *columns):
        if column not in table.column_names:
            raise srd.ConfigError(
                f"{path} has no column {column!r}; it has {table.column_names}. Choose with --label and --split, "
                "featurize with all columns kept, or give two paths: TRAIN,TEST."
            )
    chosen = {name: table[name] for name in (*features, *columns)}
    views = [name for name in columns if pa.types.is_string_view(chosen[name].type)]
    return pa.table(chosen | {name: chosen[name].cast(pa.string()) for name in views})  # of views Arrow takes no rows


def arrays(table: pa.Table, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Features `(N, H)` and labels `(N,)`."""
    if not len(table):
        raise srd.DataError("There are no rows of features; expected some of each split.")
    kind = table[label].type
    values, types = kind.value_type if pa.types.is_dictionary(kind) else kind, pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_boolean)
    if not any(is_kind(values) for is_kind in tests):
        raise srd.ConfigError(
            f"Column {label!r} is {kind}; expected classes: strings, integers or booleans. Choose another with --label."
        )
    if table[label].null_count:
        raise srd.DataError(f"{table[label].null_count} rows have no {label!r}; expected a class in every row.")
    vectors = vectors_of(table)
    if bad := len(table) - int(np.isfinite(vectors).all(axis=1).sum()):
        raise srd.DataError(
            f"The features of {bad} rows are null or not finite; expected numbers. Leave such rows out."
        )
    return vectors, np.asarray(table[label].to_pylist())


def vectors_of(table: pa.Table) -> np.ndarray:
    """The features of those rows that have some, whatever the layout: vectors in one column, or a column for each."""
    names = feature_names(table.schema)
    if names != [FEATURES]:
        return np.stack([table[name].to_numpy() for name in names], axis=1)
    features = table[FEATURES].combine_chunks()
    features = (features.storage if isinstance(features, pa.ExtensionArray) else features).drop_null()
    is_list = pa.types.is_list(features.type) or pa.types.is_fixed_size_list(features.type)
    is_vector = is_list and pa.types.is_floating(features.type.value_type)
    sizes = pc.unique(pc.list_value_length(features)).to_pylist() if is_vector else []
    if not is_vector or len(sizes) > 1:
        raise srd.DataError(
            f"Column {FEATURES!r} is {features.type}; expected one vector in each row, all of one length, not one of "
            "each step."
        )
    return features.flatten().to_numpy().reshape(len(features), *(sizes or [0]))


def evaluate(name: str, label: str, split: str) -> Result:
    """Fit the classifier to the training rows and judge it by the test rows."""
    (x, y), (x_test, y_test) = (arrays(table, label) for table in read_splits(name, label, split))
    if len(np.unique(y)) < 2:
        raise srd.DataError(
            f"All {len(y)} training rows of {name} have the {label!r} {y[0]!s}; expected two classes or more. Choose "
            "another with --label."
        )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MOST_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # an accuracy half-way there means nothing
        try:
            classifier.fit(x, y)
        except ConvergenceWarning as warning:
            raise srd.DataError(f"The classifier did not settle on {name}: {warning}") from warning
    return Result(name, x.shape[1], len(x), len(x_test), classifier.score(x, y), classifier.score(x_test, y_test))


def table_of(results: list[Result]) -> str:
    """The results side by side."""
    width = max(len("data set"), *(len(result.name) for result in results))
    lines = [f"{'data set':{width}}  features  train rows  test rows  train accuracy  test accuracy"]
    for result in results:
        name, features, train_rows, test_rows, train, test = result
        lines.append(f"{name:{width}}  {features:8}  {train_rows:10}  {test_rows:9}  {train:14.3f}  {test:13.3f}")
    return "\n".join(lines)


def main() -> None:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="+", help="a data set with a split column, or TRAIN,TEST")
    parser.add_argument("--label", required=True, help="the column of the classes")
    parser.add_argument("--split", default="split", help="the column that says train or test; %(default)s if not given")
    arguments = parser.parse_args()
    print(table_of([evaluate(name, arguments.label, arguments.split) for name in arguments.features]))


if __name__ == "__main__":
    try:
        main()
    except srd.ScanRNNError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
