"""Sequences in whatever holds them: columns, tables and tensors of each library become the same rows, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanrnn_dist.api import encode
from scanrnn_dist.api.sequences import as_ragged
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.ragged import Ragged

LISTS: list[Any] = [[[0.5, 1.0], [2.0, 0.25]], [], [[1.0, -3.0]]]
ARRAYS = [np.array(row, np.float32).reshape(-1, 2) for row in LISTS]
NESTED = pa.list_(pa.list_(pa.float32()))


def arrow() -> pa.Array:
    return pa.array(LISTS, NESTED)


def table(**others: Any) -> pa.Table:
    return pa.table({"id": [7, 8, 9], "seq": arrow(), **others})


class NoArray(list[Any]):
    """As awkward's arrays are: `ndim` and `__array__`, which refuses rows of several sizes."""

    ndim = 3

    def __array__(self, *given: Any, **named: Any) -> np.ndarray:
        raise ValueError("cannot convert to RegularArray")


class Column:
    """A column that tells its schema, and gives its rows once, as a stream of nanoarrow's does."""

    def __init__(self, array: pa.Array | pa.ChunkedArray) -> None:
        self.schema, self._left = array.type, [array]

    def __arrow_c_stream__(self, *asked: Any) -> Any:
        return pa.chunked_array(self._left.pop()).__arrow_c_stream__(*asked)


class ArrayColumn:
    """A column that tells its schema, as an array of nanoarrow's does."""

    def __init__(self, array: pa.Array) -> None:
        self.schema, self._array = array.type, array

    def __arrow_c_array__(self, *asked: Any) -> Any:
        return self._array.__arrow_c_array__(*asked)


def objects(rows: list[Any]) -> np.ndarray:
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def pandas() -> Any:
    return pytest.importorskip("pandas")


def polars() -> Any:
    return pytest.importorskip("polars")


def torch() -> Any:
    return pytest.importorskip("torch")


def tensors(**options: Any) -> list[Any]:
    return [torch().tensor(row, **options) for row in ARRAYS]


FORMS: dict[str, Callable[[], Any]] = {
    "nested lists": lambda: LISTS,
    "tuple": lambda: tuple(ARRAYS),
    "generator": lambda: (row for row in ARRAYS),
    "iterator of lists": lambda: iter(LISTS),
    "numpy objects": lambda: objects(ARRAYS),
    "numpy objects of lists": lambda: objects(LISTS),
    "numpy objects of objects, as pandas reads Parquet": lambda: objects(
        [objects([np.array(step) for step in row]) if row else np.empty(0, object) for row in LISTS]
    ),
    "float64 that float32 holds": lambda: [row.astype(np.float64) for row in ARRAYS],
    "arrow array": arrow,
    "arrow chunks": lambda: pa.chunked_array([arrow()[:1], arrow()[1:]]),
    "arrow table": table,
    "arrow batch": lambda: table().to_batches()[0],
    "arrow reader": lambda: table().to_reader(),
    "arrow column that tells its schema": lambda: ArrayColumn(arrow()),
    "arrow stream of one column": lambda: Column(pa.chunked_array([arrow()[:1], arrow()[1:]])),
    "dict of columns": lambda: {"id": 3, "seq": LISTS},
    "dict of numbers, texts and sequences": lambda: {
        "id": [1, 2, 3],
        "t": np.ones(3),
        "n": "abc",
        "seq": LISTS,
    },
    "dict of Arrow's columns": lambda: {"id": pa.array([1, 2, 3]), "seq": arrow()},
    "dict of tensors": lambda: {"id": torch().ones(3), "seq": torch().nested.nested_tensor(tensors())},
    "dict of pandas columns": lambda: {"id": pandas().Series([1, 2, 3]), "seq": pandas().Series(LISTS)},
    "pandas lists": lambda: pandas().Series(LISTS, index=[5, 6, 7]),
    "pandas arrays": lambda: pandas().Series(ARRAYS),
    "pandas arrow": lambda: pandas().Series(arrow(), dtype=pandas().ArrowDtype(NESTED)),
    "pandas table": lambda: pandas().DataFrame({"id": [7, 8, 9], "seq": LISTS}),
    "pandas arrow table": lambda: table().to_pandas(types_mapper=pandas().ArrowDtype),
    "pandas read from arrow": lambda: pandas() and table().to_pandas(),
    "polars": lambda: polars().Series(LISTS, dtype=polars().List(polars().List(polars().Float32))),
    "polars float64": lambda: polars().Series(LISTS),
    "polars table": lambda: polars().from_arrow(table()),
    "Hugging Face": lambda: pytest.importorskip("datasets").Dataset.from_dict({"id": [7, 8, 9], "seq": LISTS}),
    "Hugging Face column": lambda: pytest.importorskip("datasets").Dataset.from_dict({"seq": LISTS})["seq"],
    "tensors": tensors,
    "tensors with gradients": lambda: tensors(requires_grad=True),
    "tensors of half precision": lambda: tensors(dtype=torch().bfloat16),
    "lists of tensors": lambda: [list(row) for row in tensors(dtype=torch().bfloat16, requires_grad=True)],
    "no array of several sizes, as awkward's": lambda: NoArray(LISTS),
    "nested tensor, jagged": lambda: torch().nested.nested_tensor(tensors(), layout=torch().jagged),
    "nested tensor, strided": lambda: torch().nested.nested_tensor(tensors()),
    "ragged": lambda: Ragged.from_sequences(ARRAYS),
}


def ragged(sequences: Any, column: str | None = None, lossy_cast: bool = False) -> Ragged:
    return as_ragged(sequences, None, 2, "error", lossy_cast, column)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_every_form_is_the_same_rows(form: str) -> None:
    rows = ragged(FORMS[form]())
    assert rows.lengths.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(rows.values[rows.offsets[0] : rows.offsets[-1]], np.concatenate(ARRAYS))
    assert rows.values.dtype == np.float32


@given(
    st.lists(
        st.lists(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2), max_size=4
        )
    )
)
def test_lists_are_what_arrow_reads_of_them(lists: list[Any]) -> None:
    one, other = ragged(lists), ragged(pa.array(lists, NESTED))
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("is_generator", [True, False])
def test_an_iterable_may_fill_one_array_again_and_again(kind: str, is_generator: bool) -> None:
    buffer = np.zeros((4, 2), np.float32)
    whole = buffer if kind == "numpy" else torch().from_numpy(buffer)

    def rows() -> Any:
        for row in ARRAYS:
            buffer[: len(row)] = row
            yield whole[: len(row)]

    class Reader:
        def __iter__(self) -> Any:
            return rows()

    ragged = as_ragged(rows() if is_generator else Reader(), None, 2, "error", False)
    for index, row in enumerate(ARRAYS):
        np.testing.assert_array_equal(ragged.row(index), row)


def test_only_empty_rows_have_the_features_of_the_encoder() -> None:
    assert encode(Encoder.from_seed(0, 2, 3), [[], np.empty(0)]).tolist() == [[0.0] * 3] * 2


def test_padded_tensors_take_lengths_as_tensors() -> None:
    padded = torch().ones(3, 4, 2, requires_grad=True)
    rows = as_ragged(padded, torch().tensor([4, 0, 1]), 2, "error", False)
    assert rows.lengths.tolist() == [4, 0, 1]


def test_lengths_and_initial_carries_may_be_tensors() -> None:
    encoder, carries = Encoder.from_seed(0, 2, 3), np.float32([[0.5] * 3, [0.25] * 3])
    padded, lengths = np.ones((2, 4, 2), np.float32), [4, 1]
    expected = encode(encoder, padded, lengths, initial_carry=carries)
    for options in ({"requires_grad": True}, {"dtype": torch().bfloat16}):
        given = [torch().tensor(lengths), torch().tensor(carries, **options)]
        np.testing.assert_array_equal(encode(encoder, padded, given[0], initial_carry=given[1]), expected)
        listed = [list(map(torch().tensor, lengths)), [torch().tensor(row, **options) for row in carries]]
        np.testing.assert_array_equal(encode(encoder, padded, listed[0], initial_carry=listed[1]), expected)


@pytest.mark.parametrize("name", ["sequences", "seq_lengths", "initial_carry"])
def test_a_tensor_that_numpy_cannot_take_is_refused_in_words(name: str) -> None:
    given = {"sequences": np.ones((2, 4, 2)), name: torch().ones(2).to_sparse()}
    with pytest.raises(DataError, match=r"A tensor of PyTorch is no array: .*Sparse.* Expected a dense one"):
        encode(Encoder.from_seed(0, 2, 3), **given)


@pytest.mark.parametrize("name", ["seq_lengths", "initial_carry"])
def test_rows_of_several_sizes_are_refused_in_words(name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is no array of numbers: .* Expected"):
        encode(Encoder.from_seed(0, 2, 3), np.ones((2, 4, 2)), **{name: [[1], [1, 2]]})


def test_a_list_with_what_is_no_array_is_refused_in_words() -> None:
    carries = [np.ones(3), torch().ones(3, requires_grad=True)]
    with pytest.raises(DataError, match=r"initial_carry is no array of numbers: .* Expected"):
        encode(Encoder.from_seed(0, 2, 3), np.ones((2, 4, 2)), initial_carry=carries)


TABLES: dict[str, Callable[[], Any]] = {
    "Table": lambda: table(more=arrow()),
    "dict": lambda: {"id": [1, 2, 3], "seq": LISTS, "more": LISTS},
    "DataFrame": lambda: pandas().DataFrame({"id": [1, 2, 3], "seq": LISTS, "more": LISTS}),
}
MIXED: dict[str, Callable[[], Any]] = {
    "a tensor": lambda: torch().ones(3, 4, 2),
    "a column of pandas": lambda: pandas().Series(LISTS),
    "a column of Arrow": arrow,
    "an array": lambda: np.ones((3, 4, 2)),
}


@pytest.mark.parametrize("kind", MIXED)
def test_a_candidate_of_any_kind_is_one(kind: str) -> None:
    with pytest.raises(ConfigError, match="2 columns of the dict may be the sequences: 'seq', 'other'"):
        ragged({"seq": LISTS, "other": MIXED[kind]()})


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_several_candidates_wants_a_column(kind: str) -> None:
    given = TABLES[kind]()
    with pytest.raises(ConfigError, match=rf"columns of the {kind} may be the sequences: .*'seq', 'more'\. Choose one"):
        ragged(given)
    assert ragged(given, "more").lengths.tolist() == [2, 0, 1]
    with pytest.raises(ConfigError, match=rf"There is no column 'nope' in the {kind}; expected one of .*'seq', 'more'"):
        ragged(given, "nope")


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "text": ("abc", ConfigError, "The sequences are a str; expected a list of"),
    "number": (3, ConfigError, "The sequences are a int; expected a list of"),
    "set": ({1}, ConfigError, "The sequences are a set; expected"),
    "no lists": (pa.table({"a": [1.0], "b": ["x"]}), ConfigError, "Table has no column of sequences; .* 'a', 'b'"),
    "column of a list": (LISTS, ConfigError, "column='seq' was given, and the sequences are a list; expected a table"),
    "column of a column": (Column(arrow()), ConfigError, "and the sequences are a Column; expected a table"),
    "null": (pa.array([[[1.0, 2.0]], None], NESTED), DataError, "sequence 1"),
    "one sequence": (np.ones((3, 2)), DataError, r"for a single sequence \(T, D\), pass \[x\]"),
    "flat": ([[1.0, 2.0]], DataError, r"Sequence 0 has shape \(2,\); expected \(T, D\)"),
    "none": (
        [LISTS[0], None],
        DataError,
        r"Sequence 1 has shape \(\), a NoneType; expected .* \[\] is a sequence without",
    ),
    "dicts": ([{"seq": LISTS[0]}], DataError, r"Sequence 0 has shape \(\), a dict; expected \(T, D\)"),
    "texts": ([[["a", "b"]]], DataError, "Sequence 0 is of dtype <U1; expected numbers"),
    "rough": ([[[1.0, 2.0], [3.0]]], DataError, "Sequence 0, a list, is no array of numbers"),
    "rough objects": (objects([objects([np.ones(2), np.ones(3)])]), DataError, "Sequence 0, a ndarray, is no array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sequences_is_refused_in_words(case: str) -> None:
    sequences, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        ragged(sequences, "seq" if case.startswith("column of") else None)


def test_a_lazy_frame_is_to_be_collected() -> None:
    with pytest.raises(ConfigError, match=r"are a LazyFrame; .* Collect it first: frame.collect\(\)"):
        ragged(polars().LazyFrame({"seq": LISTS}))


STEPS = {"id": [1, 1, 2], "x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}


def test_a_frame_of_steps_and_its_groups_are_to_be_collected() -> None:
    pd, frame = pandas(), pandas().DataFrame(STEPS)
    recipe = r"If each row is one step, .*: \[group\[\[\"x\", \"y\"\]\]\.to_numpy\(\) for _, group in frame\.groupby"
    for sequences, says in (
        (frame, "The DataFrame has no column of sequences"),
        (frame.groupby("id"), "are a DataFrameGroupBy"),
        (frame.groupby("id")["x"], "are a SeriesGroupBy"),
        (pd.DataFrame({"name": ["a"]}), "The DataFrame has no"),
    ):
        with pytest.raises(ConfigError, match=f"{says}.*{recipe}"):
            ragged(sequences)


def test_those_of_polars_too() -> None:
    frame = polars().DataFrame(STEPS)
    recipe = r'If each row is one step, .*: frame\.group_by\("id", maintain_order=True\)\.agg\(seq=pl\.concat_list\('
    for sequences, says in (
        (frame, "The DataFrame has no column of sequences"),
        (frame.group_by("id"), "are a GroupBy"),
        (frame.lazy().group_by("id"), "are a LazyGroupBy"),
    ):
        with pytest.raises(ConfigError, match=f"{says}.*{recipe}"):
            ragged(sequences)


def test_a_packed_sequence_is_to_be_unpacked() -> None:
    packed = torch().nn.utils.rnn.pack_sequence([torch().ones(3, 2), torch().ones(1, 2)])
    with pytest.raises(ConfigError, match=r"are a PackedSequence; .*\.pad_packed_sequence\(.*seq_lengths=lengths"):
        ragged(packed)
    padded, lengths = torch().nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    assert as_ragged(padded, lengths, 2, "error", False).lengths.tolist() == [3, 1]


INEXACT = [[[0.1, 1.0]]]


@pytest.mark.parametrize("form", [lambda: INEXACT, lambda: np.array(INEXACT), lambda: pa.array(INEXACT)])
def test_float64_that_float32_cannot_hold_is_refused_in_every_form(form: Callable[[], Any]) -> None:
    with pytest.raises(DataError, match="lossy"):
        ragged(form())
    assert ragged(form(), lossy_cast=True).values.tolist() == [[np.float32(0.1), 1.0]]
