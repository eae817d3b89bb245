"""Which layout is found: the only one there is, or the one that is named; anything else is an error that says how."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from scanrnn_dist.errors import ConfigError, LayoutError
from scanrnn_dist.source.layouts.find import LAYOUTS, find_layout, layout_of
from scanrnn_dist.source.layouts.layout import Asked, Layout

LIST = pa.list_(pa.float32())
NESTED = pa.list_(LIST)
STRUCT = pa.struct([("x", pa.float32()), ("label", pa.string()), ("n", pa.int64()), ("at", pa.timestamp("us"))])


def found(*fields: Any, **asked: Any) -> Layout:
    schema = pa.schema([("id", pa.int64()), *fields])
    layout = find_layout(schema, Asked(**asked), where="a.parquet")
    assert layout_of(layout.asked) == layout  # as the records of a job give it back
    assert all(name in schema.names for name in layout.columns(schema))
    return layout


def refused(*fields: Any, **asked: Any) -> str:
    with pytest.raises((LayoutError, ConfigError)) as caught:  # the second where something asked for is not there
        found(*fields, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "name", "features"),
    [
        (("seq", NESTED), "nested-lists", None),
        (("seq", LIST), "nested-lists", None),
        (("seq", pa.list_(pa.bool_())), "nested-lists", None),
        (("seq", pa.list_(pa.decimal128(9, 2))), "nested-lists", None),
        (("seq", pa.list_(pa.dictionary(pa.int8(), pa.float32()))), "nested-lists", None),
        (("seq", pa.list_(STRUCT)), "list-of-structs", ("x", "n")),
        (("seq", pa.struct([("x", LIST), ("t", pa.int8()), ("y", LIST)])), "struct-of-lists", ("x", "y")),
        (("seq", pa.fixed_shape_tensor(pa.int8(), [5, 2])), "tensors", None),
    ],
    ids=str,
)
def test_the_only_layout_is_found_beside_other_columns(field: Any, name: str, features: Any) -> None:
    others = [("tags", pa.list_(pa.string())), ("times", pa.list_(pa.timestamp("us"))), ("none", pa.list_(pa.null()))]
    layout = found(*others, field, ("more", pa.list_(pa.list_(NESTED))))
    assert (layout.name, layout.columns(pa.schema([field]))) == (name, ("seq",))
    assert getattr(layout, "features", None) == features
    assert found(*others, field, layout=name) == found(field, column="seq") == layout


def test_of_several_layouts_none_is_guessed() -> None:
    text = refused(("x", LIST), ("my list", LIST), ("seq", pa.list_(STRUCT)))
    assert text == (
        "a.parquet may hold its sequences in 4 ways; expected one. Choose it with --layout list-columns (one list "
        "column per feature; --features a,b chooses some); or --column x (a list for each row); or --column 'my list' "
        "(a list for each row); or --column seq (a list of structs)."
    )
    many = refused(*[(f"f{n}", LIST) for n in range(20)])
    assert "in 21 ways" in many and "--column f6" in many and "f7" not in many and "(13 more)" in many
    assert refused(("a", LIST), ("b", LIST), in_features=2).count("--in-features 2") == 2


def test_columns_are_chosen_by_features() -> None:
    fields = [
        ("x/y", LIST),
        ("a.b", pa.list_(pa.int64())),
        ("a", pa.struct([("b", LIST), ("c", LIST)])),
        ("n", pa.int8()),
    ]
    schema = pa.schema(fields)
    layout = found(*fields, features=("a.b", "x/y", "a.c"))
    assert layout.leaves(schema) == (("a.b",), ("x/y",), ("a", "c"))  # a column's own name goes before a field
    assert layout.columns(schema) == ("a.b", "x/y", "a")
    assert layout.feature_names(schema, 3) == ("a.b", "x/y", "a.c")
    assert layout.types(schema) == (pa.int64(), pa.float32(), pa.float32())
    everything = found(*fields, layout="list-columns")
    assert getattr(everything, "features", None) == ("x/y", "a.b")
    text = refused(*fields, features=("x/y", "n", "nope"))
    assert "'x/y' is list<" in text and "'n' is int8, 'nope' is not there" in text
    assert found(*fields, column="a", features=("c", "b")).leaves(schema) == (("a", "c"), ("a", "b"))
    assert found(*fields, features=("c",)).leaves(schema) == (("a", "c"),)  # of the only struct that has it


def test_fields_are_found_at_any_depth() -> None:
    deep = pa.struct([("p.q", pa.struct([("seq", NESTED), ("hits", pa.list_(pa.struct([("at", STRUCT)])))]))])
    schema = pa.schema([("a", deep)])
    assert found(("a", deep), column="a.p.q.seq").leaves(schema) == (("a", "p.q", "seq"),)
    layout = found(("a", deep), column="a.p.q.hits", features=("at.n", "at.x", "at.at"))
    assert layout.leaves(schema) == tuple(("a", "p.q", "hits", "at", name) for name in ("n", "x", "at"))
    assert layout.types(schema) == (pa.int64(), pa.float32(), pa.timestamp("us"))
    text = refused(("a", deep), column="a.p.q.hits", features=("at.nope",))
    assert "does not go with --features at.nope; expected some of its fields ('at' struct<x" in text
    assert "no column 'a.p.q.nope'" in refused(("a", deep), column="a.p.q.nope")


def test_a_name_that_may_mean_two_fields_is_an_error() -> None:
    struct = pa.struct([("b.c", LIST), ("b", pa.struct([("c", LIST)]))])
    text = refused(("a", struct), column="a.b.c")
    assert text == (
        "'a.b.c' may mean 'a' > 'b.c' or 'a' > 'b' > 'c'; expected one meaning. Rename one of these fields."
    )
    assert found(("a", struct), column="a", features=("b.c",)).leaves(pa.schema([("a", struct)])) == (("a", "b.c"),)


def test_flat_lists_are_asked_for_by_their_width() -> None:
    assert found(("seq", LIST), in_features=3).name == "flat-lists"
    assert found(("seq", LIST)).name == "nested-lists"
    assert found(("seq", NESTED), in_features=3) == layout_of(Asked("nested-lists", "seq", in_features=3))
    assert found(("seq", LIST), ("nested", NESTED), in_features=3, layout="flat-lists").columns(
        pa.schema([("seq", LIST)])
    ) == ("seq",)
    fixed = pa.list_(pa.list_(pa.float32(), 2))
    assert found(("seq", fixed), in_features=2).name == "nested-lists"
    with pytest.raises(ConfigError, match=r"column 'seq' .*\[2\]>, 2 features a step; --in-features says 3\. Leave"):
        found(("seq", fixed), in_features=3)
    assert "no column of sequences for --layout flat-lists" in refused(("seq", LIST), layout="flat-lists")


def test_texts_are_refused_unless_something_takes_them() -> None:
    schema = pa.schema([("items", pa.list_(pa.string())), ("dwell", LIST)])
    for asked in (Asked(column="items"), Asked(features=("dwell", "items"))):
        with pytest.raises(LayoutError, match=r"^a\.parquet: 'items' holds texts, which are no numbers"):
            find_layout(schema, asked, where="a.parquet")
        assert (
            find_layout(schema, asked, where="a.parquet", takes_texts=True).asked
            == layout_of(find_layout(schema, asked, where="a.parquet", takes_texts=True).asked).asked
        )


def test_times_and_columns_of_nulls_are_taken_where_they_are_named() -> None:
    times, nothing = ("times", pa.list_(pa.timestamp("us"))), ("none", pa.list_(pa.null()))
    assert found(times, nothing, column="times").name == found(times, nothing, column="none").name == "nested-lists"
    assert found(("x", LIST), times, features=("x", "times")).width(pa.schema([("x", LIST), times])) == 2
    assert "no column of sequences" in refused(times, nothing)


def test_extension_types_are_refused_where_they_are_read_alone() -> None:
    marked = pa.field("x", LIST, metadata={"ARROW:extension:name": "somebody.tensor"})
    struct = ("s", pa.struct([marked, ("y", LIST)]))
    assert found(struct, column="s", features=("y",)).name == "struct-of-lists"
    assert "column 's.x' of a.parquet is list" in refused(struct, column="s")
    assert "'somebody.tensor', which is not understood" in refused(struct, column="s.x")


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(ConfigError, match=f"no layout 'nope'; expected one of {', '.join(LAYOUTS)}"):
        found(("seq", LIST), layout="nope")
