"""Rows under every choice of every policy are what plain Python makes of them, however they are stored."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import Row, made_of

from scanrnn_dist.errors import ConfigError, DataError, LayoutError
from scanrnn_dist.input_spec import Category, InputSpec, Number, Time
from scanrnn_dist.source.bad_rows import CHOICES, BadRows, Lengths
from scanrnn_dist.source.judging import Judged, NamedInput
from scanrnn_dist.source.layouts import Steps, layout_of_column, picked_rows
from scanrnn_dist.source.layouts.layout import Fault
from scanrnn_dist.source.set_aside import aside_schema
from scanrnn_dist.source.taking import Taken, take

NAN, INF = math.nan, math.inf
FLOAT = pa.float32()
LISTS = [lambda item: pa.list_(item), lambda item: pa.large_list(item), lambda item: pa.list_view(item)]


def where(row: int) -> str:
    return f"row {row}"


def taken(array: pa.Array, in_features: int, bad_rows: BadRows, lengths: Lengths) -> Taken:
    layout = layout_of_column(array.type, "seq")
    steps = layout.steps(pa.record_batch({"seq": array}), in_features)
    return take(steps, in_features, bad_rows, False, where, lengths)


def cut(taken: Taken, lengths: Lengths) -> list[Any]:
    """The rows as the engine takes them, which cuts off the tail."""
    most = None if lengths.max_steps is None else int(lengths.max_steps)
    return [taken.sequences.row(row)[:most].tolist() for row in range(len(taken.sequences))]


def same(ones: Any, others: Any) -> bool:
    """Whether nested lists of numbers are equal, a NaN counting as equal to itself."""
    return str(ones) == str(others)


@st.composite
def cases(draw: st.DrawFn) -> tuple[pa.Array, list[Row], int, BadRows, Lengths]:
    """Rows some of which are not as they should be, as a slice of an array; and what is to be done with them."""
    in_features = draw(st.integers(1, 3))
    bad = draw(st.sampled_from([[], [], [None], [NAN, INF, -INF], [None, NAN]]))
    value = st.sampled_from([0.0, 1.0, -2.5, *bad])
    widths = draw(st.sampled_from([[in_features], [in_features], [in_features, in_features + 1]]))
    steps = st.sampled_from(widths).flatmap(lambda width: st.lists(value, min_size=width, max_size=width))
    steps = steps | st.none() if None in bad else steps
    row = st.lists(steps, max_size=6)
    rows = draw(st.lists(row | st.none() if draw(st.booleans()) else row, max_size=8))
    policies = {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    if draw(st.booleans()):  # or most of the time some row fails
        policies = {name: next(it for it in (choice, *CHOICES[name]) if it != "error")
                    for name, choice in policies.items()}  # fmt: skip
    lengths = Lengths(
        draw(st.sampled_from([0, 0, 1, 3])),
        draw(st.sampled_from([None, 0, 1, 3])),
        draw(st.sampled_from(["head", "tail"])),
    )
    inner, outer = draw(st.sampled_from(LISTS)), draw(st.sampled_from(LISTS))
    inner = (lambda item: pa.list_(item, in_features)) if len(widths) == 1 and draw(st.booleans()) else inner
    before = [[[7.0] * in_features] * 2]
    array = pa.array([*before, *rows, *before], outer(inner(draw(st.sampled_from([FLOAT, pa.float64()])))))
    return array[1:-1], rows, in_features, BadRows(**policies), lengths


@settings(max_examples=120)
@given(cases())
def test_every_row_is_what_plain_python_makes_of_it(case: Any) -> None:
    array, rows, in_features, bad_rows, lengths = case
    made = [made_of(row, in_features, bad_rows, lengths) for row in rows]
    failing = {number for number, one in enumerate(made) if one.becomes == "error"}
    if failing:
        with pytest.raises(DataError) as caught:
            taken(array, in_features, bad_rows, lengths)
        row, step = str(caught.value).split(":")[0].removeprefix("row ").partition(", step ")[::2]
        assert int(row) in failing and made[int(row)].step == (int(step) if step else None)
        assert isinstance(caught.value, LayoutError) == (made[int(row)].policy == "wrong_width")
        return
    got = taken(array, in_features, bad_rows, lengths)
    kept = [number for number, one in enumerate(made) if one.becomes != "skip"]
    assert got.kept.tolist() == kept
    is_null = [made[number].becomes == "null" for number in kept]
    assert (got.is_null.tolist() if got.is_null is not None else [False] * len(kept)) == is_null
    assert same(cut(got, lengths), [[] if made[n].becomes == "null" else made[n].steps for n in kept])
    aside = [(number, one.policy, one.step) for number, one in enumerate(made) if one.becomes == "skip"]
    assert [(each.row, each.policy, each.step) for each in got.aside] == aside
    assert got.counts == sum((Counter(one.counts) for one in made), Counter())
    assert got.sequences.values.dtype == np.float32 and got.sequences.in_features == in_features


def test_rows_with_one_kind_of_fault_are_judged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[tuple[str, int]] = []
    judge = Judged.judge

    def counting(self: Judged, policy: str, rows: np.ndarray, reason: Any) -> None:
        judged.append((policy, len(rows)))
        judge(self, policy, rows, reason)

    monkeypatch.setattr(Judged, "judge", counting)
    rows = [None, [[1.0, 2.0]], [[1.0]], None] * 25
    got = taken(pa.array(rows), 2, BadRows(null_sequence="skip", wrong_width="skip"), Lengths())
    assert judged == [("null_sequence", 50), ("wrong_width", 25)] and len(got.aside) == 75
    with pytest.raises(DataError, match="row 2, step 0"):
        taken(pa.array(rows), 2, BadRows(null_sequence="skip", wrong_width="error"), Lengths())


@pytest.mark.parametrize("policy", CHOICES)
def test_a_choice_that_there_is_not_is_refused_with_those_that_there_are(policy: str) -> None:
    with pytest.raises(ConfigError, match=f"{policy} is 'ignore'; expected one of '{CHOICES[policy][0]}', '"):
        BadRows(**{policy: "ignore"})
    assert getattr(BadRows(), policy) == CHOICES[policy][0]


def test_every_policy_has_its_choices() -> None:
    assert {each.name for each in dataclasses.fields(BadRows)} == CHOICES.keys()


@pytest.mark.parametrize("wrong", [{"min_steps": -1}, {"max_steps": -1}, {"truncate": "middle"}])
def test_lengths_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Lengths(**wrong)


def test_good_rows_stay_a_view_of_the_arrow_buffer_whatever_is_asked_for() -> None:
    array = pa.array([[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]], pa.list_(pa.list_(FLOAT)))
    address = array.values.values.buffers()[1].address
    policies = {name: choices[-1] for name, choices in CHOICES.items()}
    got = taken(array, 2, BadRows(**policies), Lengths(1, 2, "tail"))
    assert got.sequences.values.ctypes.data == address and not got.counts
    # Rows that are left out at the end, or have no steps, leave the others where they are.
    got = taken(array, 2, BadRows(too_long="skip"), Lengths(0, 1))
    assert cut(got, Lengths()) == [[[1, 2]], [[7, 8]]] and got.kept.tolist() == [0, 2]
    nulls = pa.array([None, [[1, 2]], None, [[3, 4]]], pa.list_(pa.list_(FLOAT)))
    got = taken(nulls, 2, BadRows(null_sequence="skip"), Lengths())
    assert got.sequences.values.ctypes.data == nulls.values.values.buffers()[1].address


def test_a_number_that_float32_does_not_hold_is_an_error_under_every_choice() -> None:
    array = pa.array([[[0.1]], [[NAN]]], pa.list_(pa.list_(pa.float64())))
    with pytest.raises(DataError, match=r"row 0, step 0: float64 value 0\.1 would become"):
        taken(array, 1, BadRows("skip"), Lengths())


def test_the_list_of_rows_set_aside_has_the_kept_columns_under_names_of_their_own() -> None:
    names = ["row", "reason", "id", "kept.row", "kept.kept.row"]
    schema = aside_schema(pa.schema([(name, pa.int8()) for name in names]))
    assert len(set(schema.names)) == len(schema.names)
    assert schema.names[8:] == ["kept.kept.kept.row", "kept.reason", "id", "kept.row", "kept.kept.row"]


KEPT = {
    "string_view": pa.array(["a", None, "b" * 30, "c"], pa.string_view()),
    "struct": pa.StructArray.from_arrays([pa.array(["a", None, "b" * 30, "c"], pa.string_view())], ["x"]),
    "list_view": pa.array([[1], [2, 3], None, []], pa.list_view(pa.int32())),
    "dictionary": pa.array(["a", None, "a", "b"]).dictionary_encode(),
    "map": pa.array([{"a": 1}, None, {"b": 2}, {}], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(4),
    "list of views": pa.array([["a"], None, [], ["b" * 30, None]], pa.list_(pa.string_view())),
    "fixed list of views": pa.array([[b"a"], None, [None], [b"b" * 30]], pa.list_(pa.binary_view(), 1)),
    "map of views": pa.array([{"a": "x"}, None, {}, {"b": None}], pa.map_(pa.string(), pa.string_view())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 3, 4], pa.int32()), pa.array(["a", None, "b"])),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("rows", [[], [0], [1, 3], [0, 1, 2, 3], [3, 0, 1]])
def test_rows_of_columns_of_every_type(name: str, rows: list[int]) -> None:
    batch = pa.record_batch({name: KEPT[name]})
    got = picked_rows(batch, np.array(rows, np.int64))
    got.validate(full=True)
    assert got.schema == batch.schema and got.to_pylist() == [batch.to_pylist()[row] for row in rows]


def test_rows_of_no_columns_are_counted() -> None:
    assert picked_rows(pa.record_batch({"x": [1, 2, 3]}).select([]), np.array([0, 2])).num_rows == 2


def test_features_in_columns_of_their_own_are_judged_alike() -> None:
    columns = pa.array([1, None, 3, 4], pa.int32()), pa.array([NAN, 6.0, 7.0, 8.0], pa.float64())
    fault = Fault(1, "unequal_lengths", "x has 2 steps and y has 3; expected as many.")
    steps = Steps(np.array([0, 2, 2, 4]), columns, 2, (fault,))
    with pytest.raises(DataError, match=r"^row 1: x has 2 steps and y has 3; expected as many\.$"):
        take(steps, 2, BadRows("zero"), False, where)
    with pytest.raises(DataError, match=r"^row 0, step 0: feature 1 is nan; expected a finite number"):
        take(steps, 2, BadRows(unequal_lengths="skip"), False, where)
    got = take(steps, 2, BadRows("zero", unequal_lengths="skip"), False, where)
    assert cut(got, Lengths()) == [[[1, 0], [0, 6]], [[3, 7], [4, 8]]] and got.kept.tolist() == [0, 2]
    assert got.counts == {"bad_value zero": 2, "unequal_lengths skip": 1}
    got = take(steps, 2, BadRows("skip", unequal_lengths="skip"), False, where)
    assert [(it.row, it.policy, it.step, it.reason[:16]) for it in got.aside] == [
        (0, "bad_value", 0, "feature 1 is nan"),
        (1, "unequal_lengths", None, "x has 2 steps an"),
    ]


def test_null_steps_of_an_input_are_judged_though_no_step_tells_the_features() -> None:
    array = pa.array([[None, None], []], pa.list_(pa.list_(FLOAT)))
    steps = layout_of_column(array.type, "seq").steps(pa.record_batch({"seq": array}), None)
    named = NamedInput(InputSpec((Number("0"), Number("1", mean=2.0))), ())
    with pytest.raises(DataError, match=r"^row 0, step 0: column '0' is null; expected a finite number"):
        take(steps, 0, BadRows(), False, where, named=named)
    for choice, rows in (("drop-step", [[], []]), ("zero", [[[0, 0], [0, 0]], []])):
        assert cut(take(steps, 0, BadRows(choice), False, where, named=named), Lengths()) == rows


def test_a_null_category_is_a_bad_value_and_an_unknown_one_is_not() -> None:
    def taken(words: list[list[str | None]], choice: str) -> Taken:
        flat = [word for row in words for word in row]
        steps = Steps(np.cumsum([0, *map(len, words)]), (pa.array([5] * len(flat)), pa.array(flat, pa.string())), 2)
        named = NamedInput(InputSpec((Number("x"), Category("word", values=("a", "b")))), ("x", "word"))
        return take(steps, 2, BadRows(choice), False, where, named=named)

    words = [["b", "a"], ["b", None], [None]]
    got = taken(words, "skip")
    assert cut(got, Lengths()) == [[[5, 1], [5, 0]]] and [it.row for it in got.aside] == [1, 2]
    assert cut(taken(words, "drop-step"), Lengths()) == [[[5, 1], [5, 0]], [[5, 1]], []]
    assert np.isnan(taken(words, "propagate").sequences.values[3, 1])
    with pytest.raises(DataError, match=r"^row 1, step 1: column 'word' is null; expected a category\. .*unknown = "):
        taken(words, "error")
    for choice in ("zero", "forward-fill"):
        with pytest.raises(DataError, match=f"^row 1, step 1: column 'word' is null, and --bad-value {choice} "):
            taken(words, choice)
    with pytest.raises(DataError, match=r"^row 0, step 1: column 'word' is 'c', which is not among .*in the input\.$"):
        taken([["a", "c"], [None]], "skip")


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        (Number("x"), [1.0, NAN], "nan, which is no finite number; expected a finite number"),
        (Number("x"), [1.0, 1e300], "1e+300, which is too large for float32; expected a smaller number"),
        (Number("x", log1p=True), [0, -5], "-5, of which log1p gives no finite number; expected a number above -1"),
        (Number("x", log1p=True), [0, -1], "-1, of which log1p gives no finite number; expected a number above -1"),
        (Number("x", log1p=True), [0.0, -INF], "-inf, which is no finite number; expected a finite number"),
        (
            Number("x", std=1e-30),
            [1.0, 1e10],
            "10000000000.0, which is too large for float32 once it is scaled; expected a smaller number",
        ),
        (
            Time("x", log1p=True),
            pa.array([9, 4], pa.timestamp("s")),
            r"1970-01-01 00:00:04 (difference -5.0), of which log1p gives no finite number; expected a number above -1",
        ),
    ],
)
def test_an_error_says_what_gave_no_finite_number(column: Number | Time, values: Any, told: str) -> None:
    array = pa.concat_arrays([pa.nulls(3, (given := pa.array(values)).type), given])
    named = NamedInput(InputSpec((column,)), ("x",))
    steps = Steps(np.array([0, 3, 3, 5]), (array,), 1)
    with pytest.raises(DataError, match=r"^row 0, step 0: column 'x' is null; expected a finite number\. Fill"):
        take(steps, 1, BadRows(), True, where, named=named)
    aside = take(steps, 1, BadRows("skip"), True, where, named=named).aside
    assert [(it.row, it.step) for it in aside] == [(0, 0), (2, 1)]
    assert aside[1].reason == f"column 'x' is {told}. Fill it or drop the step."
