"""An `InputSpec` survives TOML and JSON, and whatever means nothing is refused with its column and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.input_spec import UNITS, Category, InputSpec, Number, Time

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
numbers = st.none() | st.floats(-1e6, 1e6)
scalings = {
    "log1p": st.booleans(),
    "mean": numbers,
    "std": st.none() | st.floats(1e-6, 1e6),
    "clip": st.none() | st.tuples(st.floats(-9, 0), st.floats(0, 9)),
}
values = st.lists(st.integers(), min_size=1, unique=True) | st.lists(names, min_size=1, unique=True)
unknowns = st.sampled_from(["error", "zeros", "own"])
columns = st.one_of(
    st.builds(Number, names, **scalings),
    st.builds(
        Time, names, st.sampled_from(["difference", "hour", "weekday"]), st.sampled_from(list(UNITS)), **scalings
    ),
    st.builds(Category, names, values=values.map(tuple), unknown=unknowns),
    st.builds(
        Category,
        names,
        size=st.integers(1, 99),
        encode=st.just("embedding"),
        dimension=st.integers(1, 9),
        unknown=unknowns,
    ),
)


@given(st.lists(columns, min_size=1, max_size=4, unique_by=lambda column: column.name))
def test_json_gives_back_the_input(some: list[Any]) -> None:
    spec = InputSpec(tuple(some))
    again = InputSpec.from_json(spec.to_json())
    assert again == spec and hash(again) == hash(spec)
    assert spec.places[-1].stop == spec.width == sum(column.width for column in some)


@pytest.mark.parametrize(
    ("of_numpy", "plain"),
    [
        (Category("a", values=np.array([3, 5])), Category("a", values=(3, 5))),
        (Category(np.str_("a"), values=[np.int64(3), np.int64(5)]), Category("a", values=(3, 5))),
        (Category("a", values=np.array(["x", "y"])), Category("a", values=("x", "y"))),
        (Category("a", values=sorted(np.array(["x", "y"]))), Category("a", values=("x", "y"))),
        (
            Category("a", size=np.int64(5), encode="embedding", dimension=np.int32(2)),
            Category("a", size=5, encode="embedding", dimension=2),
        ),
        (
            Number("a", log1p=np.True_, mean=np.float32(1), std=np.int8(2), clip=np.array([0.0, 1.0])),
            Number("a", log1p=True, mean=1, std=2, clip=(0, 1)),
        ),
        (Time("a", clip=(np.float32(0), 1), unit=np.str_("h")), Time("a", clip=(0, 1), unit="h")),
    ],
)
def test_values_of_numpy_are_those_of_python(of_numpy: Any, plain: Any) -> None:
    assert of_numpy == plain and repr(of_numpy) == repr(plain)
    assert InputSpec((of_numpy,)).to_json() == InputSpec((plain,)).to_json()


keys = st.sampled_from(["name", "kind", "values", "size", "encode", "dimension", "unknown", "mean", "std", "clip",
                        "unit", "give", "log1p"])  # fmt: skip
words = st.sampled_from(["a", "number", "category", "time", "embedding", "own", "s", "hour"])
leaves = st.none() | st.booleans() | st.integers(-1, 5) | st.just(10**400) | st.floats() | words
plain = leaves | st.lists(leaves | st.lists(leaves, max_size=1), max_size=3) | st.dictionaries(keys, leaves, max_size=2)
likely = st.fixed_dictionaries({"name": st.just("a"), "kind": st.sampled_from(["number", "category", "time"])})


@given(st.builds(lambda some, more: {**some, **more}, likely, st.dictionaries(keys, plain, max_size=5)))
def test_whatever_plain_values_arrive_they_are_a_column_or_a_wrong_argument(column: dict[str, Any]) -> None:
    try:
        spec = InputSpec.from_dict({"column": [column]})
    except ConfigError as error:
        assert str(error)
    else:
        assert InputSpec.from_json(spec.to_json()) == spec


TOML = """
[[column]]
name = "item_id"
kind = "category"
size = 100000
encode = "embedding"
dimension = 32
unknown = "own"

[[column]]
name = "dwell"
kind = "number"
log1p = true
mean = 2
std = 0.5
clip = [-4, 4]
"""


def test_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(TOML)
    wanted = InputSpec(
        (
            Category("item_id", size=100_000, encode="embedding", dimension=32, unknown="own"),
            Number("dwell", log1p=True, mean=2.0, std=0.5, clip=(-4.0, 4.0)),
        )
    )
    assert InputSpec.load(path) == wanted
    assert wanted.tables == {"item_id": (100_001, 32)} and (wanted.in_features, wanted.width) == (2, 33)


COLUMN = 'name = "a"\nkind = "number"\n'
CATEGORY = 'name = "a"\nkind = "category"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "An input holds nothing; expected nothing but tables"),
        ("[[columns]]\n" + COLUMN, r"An input holds columns; expected nothing but tables \[\[column\]\]"),
        ("column = 3", r"An input holds column; expected"),
        ("column = []", "has no columns"),
        ("[[column]]\nkind = 'number'", "Column 1 of the input has no name"),
        ("[[column]]\nname = 'a'", "'a' has no kind; expected one of number, category, time"),
        ("[[column]]\nname = 'a'\nkind = 'text'", "'a' has the kind 'text'"),
        ("[[column]]\n" + COLUMN + "log = true", "'a' has the key 'log'; a column of kind number takes kind, clip,"),
        ("[[column]]\n" + COLUMN + "size = 3", "'a' has the key 'size'"),
        ("[[column]]\n" + COLUMN + "log1p = 1", "'a': log1p is 1; expected true or false"),
        ("[[column]]\n" + COLUMN + "std = 0", "'a': std is 0; expected a number above 0"),
        ("[[column]]\n" + COLUMN + "mean = nan", "'a': mean is nan; expected a finite number"),
        ("[[column]]\n" + COLUMN + "clip = [1]", r"'a': clip is \(1,\); expected two numbers"),
        ("[[column]]\n" + COLUMN + "clip = [1, 0]", r"'a': clip is \(1, 0\); expected two numbers"),
        ("[[column]]\n" + COLUMN + "clip = 3", "'a': clip is 3; expected a list"),
        ("[[column]]\n" + CATEGORY, "'a': neither of values and size was given"),
        ("[[column]]\n" + CATEGORY + "size = 3\nvalues = [1]", "'a': both of values and size was given"),
        ("[[column]]\n" + CATEGORY + "size = true", "'a': size is True; expected a whole number"),
        ("[[column]]\n" + CATEGORY + "size = 16777217", "'a' has 16,777,217 ids; expected at most 16,777,216, since"),
        ("[[column]]\n" + CATEGORY + "values = [1, 'b']", "'a': values are of int, str; expected all integers or all"),
        ("[[column]]\n" + CATEGORY + "values = [1.5]", "'a': values are of float"),
        ("[[column]]\n" + CATEGORY + "values = [true]", "'a': values are of bool"),
        ("[[column]]\n" + CATEGORY + "values = ['b', 'b']", "'a': values hold 'b' twice"),
        ("[[column]]\n" + CATEGORY + "values = []", "'a': values is .*; expected a list of one value or more"),
        ("[[column]]\n" + CATEGORY + "values = 'abc'", "'a': values is 'abc'; expected a list"),
        ("[[column]]\n" + CATEGORY + "size = 3\nencode = 'embedding'", "'a': dimension is None; expected a whole"),
        ("[[column]]\n" + CATEGORY + "size = 3\ndimension = 3", "'a': dimension is 3; expected none"),
        ("[[column]]\n" + CATEGORY + "size = 3\nunknown = 'skip'", "'a': unknown is 'skip'; expected one of error,"),
        ("[[column]]\n" + CATEGORY + "size = 3\nencode = 'hash'", "'a': encode is 'hash'; expected one of one-hot"),
        ("[[column]]\nname = 'a'\nkind = 'time'\nunit = 'year'", "'a': unit is 'year'; expected one of ns"),
        ("[[column]]\nname = 'a'\nkind = 'time'\ngive = 'month'", "'a': give is 'month'; expected one of difference"),
        (2 * ("[[column]]\n" + CATEGORY + "size = 3\nencode = 'embedding'\ndimension = 2\n"), "'a' has two embedding"),
        ("[[column]", "is no TOML that can be read"),
        ("a = " + 9999 * "9", "is no TOML that can be read"),
        ("a = " + 9999 * "[", "is no TOML that can be read"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        InputSpec.load(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_and_other_json_are_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        InputSpec.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="The input is no JSON"):
        InputSpec.from_json("{")
    with pytest.raises(ConfigError, match="An input holds list"):
        InputSpec.from_json("[]")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        InputSpec.from_json('{"column": [{"name": "a", "kind": "category", "values": ["\\ud800"]}]}')


def test_the_file_in_the_docs_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/inputs.md").read_text()
    (tmp_path / "spec.toml").write_text(page.split('```toml title="spec.toml"\n')[1].split("```")[0])
    spec = InputSpec.load(tmp_path / "spec.toml")
    assert (spec.in_features, spec.width, spec.tables) == (4, 37, {"item_id": (100_001, 32)})


@given(st.lists(columns, min_size=1, max_size=4))
def test_what_is_written_as_toml_is_read_back(some: list[Any]) -> None:
    tables = [column.name for column in some if isinstance(column, Category) and column.encode == "embedding"]
    if len(set(tables)) == len(tables):
        spec = InputSpec(tuple(some))
        assert InputSpec.from_dict(tomllib.loads(spec.to_toml())) == spec


@given(
    st.lists(st.floats(-0.5, 1e6) | st.sampled_from([float("nan"), float("inf")]), max_size=5),
    st.booleans(),
    st.sampled_from([None, 0.5]),
    st.sampled_from([None, 2.0]),
)
def test_scaling_leaves_the_numbers_alone_that_it_is_given(
    given_numbers: list[float], log1p: bool, mean: float | None, std: float | None
) -> None:
    numbers = np.array(given_numbers)
    found = Number("x", log1p=log1p, mean=mean, std=std)(numbers)
    np.testing.assert_array_equal(numbers, given_numbers)
    expected = np.where(np.isfinite(numbers), np.log1p(numbers) if log1p else numbers, np.nan)
    np.testing.assert_array_equal(found, (expected - (mean or 0.0)) / (std or 1.0))
