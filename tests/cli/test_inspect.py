"""`scanrnn inspect` tells what a source holds, and what it measures is what numpy says of the same rows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from odd_values import texts

from scanrnn_dist.cli import app as cli
from scanrnn_dist.input_spec import Category, InputSpec, Number, Time
from scanrnn_dist.source.unit_reader import UnitReader

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sources.command_line_in_this_process(monkeypatch, columns=120)


def written(path: Path, columns: dict[str, Any], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **how)
    return path


def looked_at(capsys: Capsys, *arguments: object) -> Any:
    """What the command says as JSON."""
    assert cli.run(["inspect", *map(str, arguments), "--json"]) == 0, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


def nested(lengths: list[int | None], seed: int = 0, far: float = 0.0) -> tuple[pa.Array, np.ndarray]:
    """Sequences of three numbers a step, and all steps together."""
    rows = sources.random_rows([length or 0 for length in lengths], seed)
    rows = [row + np.float32(far) for row in rows]
    listed = [None if length is None else row.tolist() for length, row in zip(lengths, rows, strict=True)]
    return pa.array(listed, pa.list_(pa.list_(pa.float32()))), np.concatenate(rows).astype(np.float64)


def test_nested_lists_in_several_files_are_measured_as_numpy_does(tmp_path: Path, capsys: Capsys) -> None:
    first, steps = nested([3, None, 0, 7], 1, far=1000)
    second, more = nested([2, 5], 2, far=-20)
    written(tmp_path / "a.parquet", {"id": [1, 2, 3, 4], "seq": first}, row_group_size=3)
    written(tmp_path / "b.parquet", {"id": pa.array([5, 6], pa.int32()), "seq": second})
    told = looked_at(capsys, tmp_path, "--statistics")
    assert (told["files"], told["row_groups"], told["rows"]) == (2, 3, 6)
    assert told["nbytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert told["columns"][0] == ["id", "int64"]
    assert told["drift"] == ["1 file with 'id' as int32: read as int64"]
    sequences = told["sequences"]
    assert sequences["lengths"] == [0, 3.0, 7] and sequences["faults"] == {"null_sequence": 1}
    assert sequences["features"] == [[str(nth), "float"] for nth in range(3)] and sequences["in_features"] == 3
    assert told["measured"]["steps"] == 17
    together = np.concatenate([steps, more])
    for nth, column in enumerate(told["measured"]["columns"]):
        own = together[:, nth]
        assert (column["count"], column["unusable"]) == (17, 0) and len(column["values"]) == 17
        expected = [own.min(), own.max(), own.mean(), own.std()]
        np.testing.assert_allclose([column[name] for name in ("min", "max", "mean", "std")], expected, rtol=1e-12)
    assert InputSpec.from_dict(told["measured"]["input"]).names == ("0", "1", "2")


def test_texts_with_nulls_get_an_input_that_takes_them(tmp_path: Path, capsys: Capsys) -> None:
    source = written(tmp_path / "in.parquet", {"w": [["a", None], ["b"]]})
    assert cli.run(["inspect", str(source), "--features", "w", "--statistics"]) == 0
    assert 'values = ["a", "b"]\nunknown = "own"' in capsys.readouterr().out


def test_texts_that_are_no_utf8_are_other_values_of_the_input(tmp_path: Path, capsys: Capsys) -> None:
    words = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), texts([b"a", b"\xff\xfe", b"b"]))
    source = written(tmp_path / "in.parquet", {"w": words, "x": [[1.0, 2.0], [3.0]]})
    assert cli.run(["inspect", str(source), "--features", "w,x", "--statistics"]) == 0
    out = capsys.readouterr().out
    assert 'values = ["a", "b"]\nunknown = "own"' in out
    assert looked_at(capsys, source, "--features", "w,x", "--statistics")["measured"]["columns"][0]["count"] == 3
    (spec := tmp_path / "spec.toml").write_text(out[out.index("[[column]]") :])
    asked = ["featurize", str(source), str(tmp_path / "out"), "--hidden", "2", "--layout", "list-columns"]
    assert cli.run([*asked, "--input", str(spec)]) == 0
    spec.write_text(spec.read_text().replace('unknown = "own"', 'unknown = "error"'))
    assert cli.run([*asked, "--input", str(spec), "--restart"]) == 3
    assert "step 1: column 'w' is '\ufffd\ufffd', which is not among the 2 values" in capsys.readouterr().err


def test_what_is_printed_is_read_back_and_fills_a_given_input(tmp_path: Path, capsys: Capsys) -> None:
    names = ['a"b', "age/days/list", "größe\n\x7f😀"]
    begin = datetime(2024, 1, 1)
    columns = {
        names[0]: [[1.0, None, 4.0], [float("nan")]],
        names[1]: pa.array([["x", "y", "x"], ['"']]).cast(pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        names[2]: [[begin, begin + timedelta(seconds=8), begin + timedelta(seconds=12)], [begin]],
        "money": [[Decimal("1.50")] * 3, [Decimal("2.50")]],
    }
    source, asked = written(tmp_path / "in.parquet", columns), ",".join([*names, "money"])
    assert cli.run(["inspect", str(source), "--features", asked, "--statistics"]) == 0
    out = capsys.readouterr().out
    (spec := tmp_path / "spec.toml").write_text(out[out.index("[[column]]") :])
    money = Number("money", mean=1.75, std=float(np.std([1.5, 1.5, 1.5, 2.5])))
    expected = InputSpec((
        Number(names[0], mean=2.5, std=1.5),
        Category(names[1], values=('"', "x", "y")),
        Time(names[2], mean=3.0, std=float(np.std([0.0, 8.0, 4.0, 0.0]))),
        money,
    ))  # fmt: skip
    assert InputSpec.load(spec) == expected
    told = looked_at(capsys, source, "--features", asked, "--statistics")["measured"]["columns"]
    assert [(one["count"], one["unusable"]) for one in told] == [(2, 2), (4, 0), (4, 0), (4, 0)]
    assert [one["values"] for one in told] == [[1.0, 4.0], ['"', "x", "y"], None, [1.5, 2.5]]

    given = InputSpec((Number(names[0], log1p=True, clip=(-3, 3)), Category(names[1], values=("x", "y", '"'))))
    spec.write_text(given.to_toml())
    output = tmp_path / "measured.toml"
    assert cli.run(["inspect", str(source), "--statistics", "--input", str(spec), "--output", str(output)]) == 0
    assert "[[column]]" not in capsys.readouterr().out
    logs = np.log1p([1.0, 4.0])
    first = Number(names[0], log1p=True, clip=(-3, 3), mean=float(logs.mean()), std=float(logs.std()))
    measured = InputSpec.load(output)
    assert measured.columns[1] == given.columns[1]
    assert isinstance(measured.columns[0], Number) and measured.columns[0].mean == pytest.approx(first.mean)
    assert measured.columns[0].std == pytest.approx(first.std) and measured.columns[0].clip == (-3, 3)


def test_a_file_is_overwritten_only_by_force(tmp_path: Path, capsys: Capsys) -> None:
    source = written(tmp_path / "in.parquet", {"seq": nested([2])[0]})
    (output := tmp_path / "spec.toml").write_text("mine")
    command = ["inspect", str(source), "--statistics", "--output", str(output)]
    assert cli.run(command) == 2 and output.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert cli.run([*command, "--force"]) == 0 and InputSpec.load(output).in_features == 3
    assert f"use it with --input {output}." in capsys.readouterr().err
    assert cli.run([*command[:-1], str(tmp_path / "my spec.toml")]) == 0
    assert f"use it with --input '{tmp_path}/my spec.toml'." in capsys.readouterr().err
    (tmp_path / "my spec.toml").unlink()
    assert cli.run(["inspect", str(source), "--output", str(tmp_path / "new.toml")]) == 2  # without --statistics
    assert cli.run([*command[:-1], str(tmp_path / "no" / "spec.toml")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "spec.toml"]


def test_long_format_counts_sequences(tmp_path: Path, capsys: Capsys) -> None:
    columns = {"id": [1, 1, 1, 2, 3, 3], "t": [0, 2, 1, 0, 0, 1], "x": [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]}
    source = written(tmp_path / "in.parquet", columns, row_group_size=2)
    told = looked_at(capsys, source, "--group-by", "id", "--order-by", "t", "--statistics")
    assert told["rows"] == 6 and told["sequences"]["count"] == 3 and told["sequences"]["lengths"] == [1, 2.0, 3]
    assert told["sequences"]["features"] == [["x", "double"]]
    (column,) = told["measured"]["columns"]
    assert (column["count"], column["mean"]) == (6, 4.0)
    assert cli.run(["inspect", str(source)]) == 0  # not said to be long
    assert "--group-by" in capsys.readouterr().out


EVENT = {"t": datetime(2024, 1, 1), "x": 0.5, "what": "tea", "tags": ["a"], "is_new": True}


def test_a_column_without_a_name_is_no_column_for_an_input(tmp_path: Path, capsys: Capsys) -> None:
    path = written(tmp_path / "long.parquet", {"id": ["a"], "": ["row 1"], "x": [0.5], "what": ["tea"]})
    told = looked_at(capsys, path, "--group-by", "id", "--features", "x")["sequences"]
    assert (told["left_out"], told["for_input"]) == (["", "what"], ["what"])


def test_what_is_left_out_is_told_and_what_an_input_could_take(tmp_path: Path, capsys: Capsys) -> None:
    events = {name: [value, value] for name, value in EVENT.items()}
    events["what"] = pa.array(events["what"]).dictionary_encode()
    long = tmp_path / "long"
    written(long / "site=a" / "long.parquet", {"id": ["a", "b"], **events})
    structs = written(tmp_path / "structs.parquet", {"id": ["a"], "t": [0], "seq": [[EVENT]]})
    columns = {f"{name}s": pa.array([[value]]) for name, value in EVENT.items() if name != "tags"}
    lists = written(tmp_path / "lists.parquet", {"id": ["a"], **columns})
    grouped = ("--group-by", "id", "--order-by", "t")
    for source, flags, left_out, for_input in (
        (long, grouped, ["t", "what", "tags"], ["t", "what", "site"]),
        (structs, (), ["t", "what", "tags"], ["t", "what"]),
        (structs, ("--column", "seq", "--features", "x,t"), ["what", "tags", "is_new"], ["what"]),
        (lists, ("--layout", "list-columns"), [], ["ts", "whats"]),
    ):
        told = looked_at(capsys, source, *flags)["sequences"]
        assert (told["left_out"], told["for_input"]) == (left_out, for_input)
    assert cli.run(["inspect", str(long), *grouped]) == 0
    out = capsys.readouterr().out
    assert "columns 'x', 'is_new', 2 features per step" in out and "--input   takes t, what, site too" in out
    assert "left out  t, what, tags (named by none of --features, --input and --keep)" in out


def test_several_layouts_are_shown_with_the_flags_that_choose_each(tmp_path: Path, capsys: Capsys) -> None:
    source = written(tmp_path / "in.parquet", {"x": [[1.0, 2.0]], "y": [[3.0, 4.0]], "label": ["a"]})
    assert cli.run(["inspect", str(source)]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("label   string", "--layout list-columns", "--column x", "--column y"))
    assert cli.run(["inspect", str(source), "--statistics"]) == 3
    assert "3 ways" in capsys.readouterr().err
    told = looked_at(capsys, source, "--layout", "list-columns")
    assert told["sequences"]["features"] == [["x", "double"], ["y", "double"]]
    assert told["sequences"]["flags"] == "--layout list-columns --features x,y"
    assert [one["mean"] for one in told["measured"]["columns"]] == [1.5, 3.5] and told["measured"]["input"] is None
    told = looked_at(capsys, source)
    assert told["layouts"][0]["flags"] == "--layout list-columns" and told["sequences"] is told["measured"] is None


def test_a_layout_that_nobody_knows_is_wrong_usage(tmp_path: Path, capsys: Capsys) -> None:
    source = written(tmp_path / "in.parquet", {"seq": nested([3])[0]})
    assert cli.run(["inspect", str(source), "--layout", "nested"]) == 2
    assert "no layout 'nested'; expected one of" in capsys.readouterr().err


def test_no_layout_an_empty_source_and_bad_files(tmp_path: Path, capsys: Capsys) -> None:
    flat = written(tmp_path / "flat.parquet", {"name": ["a", "b"]})
    told = looked_at(capsys, flat)
    assert told["sequences"] is None and "no column of sequences" in told["no_layout"]
    assert cli.run(["inspect", str(flat), "--column", "other"]) == 2
    assert cli.run(["inspect", str(flat), "--statistics"]) == 3
    assert cli.run(["inspect", str(tmp_path / "nowhere")]) == 2
    capsys.readouterr()

    none = written(tmp_path / "none.parquet", {"seq": pa.array([], sources.SEQUENCE)})
    told = looked_at(capsys, none, "--statistics")
    assert told["rows"] == 0 and told["sequences"]["lengths"] is None and told["measured"]["input"] is None
    assert cli.run(["inspect", str(none), "--statistics", "--output", str(tmp_path / "spec.toml")]) == 2
    assert "nothing to write" in capsys.readouterr().err and not (tmp_path / "spec.toml").exists()

    good = written(tmp_path / "good.parquet", {"seq": nested([2])[0]})
    (bad := tmp_path / "bad.parquet").write_bytes(good.read_bytes()[:-20])
    assert cli.run(["inspect", str(bad), str(good)]) == 3
    assert "bad.parquet cannot be read" in capsys.readouterr().err
    told = looked_at(capsys, bad, good, "--unreadable-file", "skip")
    assert told["files"] == 1 and list(told["left_out"]) == [str(bad)]


def test_a_sample_is_of_the_whole_source_and_a_scan_reads_all(tmp_path: Path, capsys: Capsys) -> None:
    lengths = [1] * 60_000 + [9] * 40_000
    numbers = np.random.default_rng(0).normal(size=sum(lengths))
    values = pa.ListArray.from_arrays(np.append(0, np.cumsum(lengths)).astype(np.int32), numbers)
    how: Any = {"row_group_size": 2000, "write_page_checksum": True, "use_dictionary": False}
    source = written(tmp_path / "in.parquet", {"seq": values}, **how)
    damaged = bytearray(source.read_bytes())
    chunk = pq.ParquetFile(source).metadata.row_group(1).column(0)  # of 50, of which 16 are looked at
    damaged[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 255
    source.write_bytes(bytes(damaged))
    told = looked_at(capsys, source)
    sequences = told["sequences"]
    assert (sequences["rows"], sequences["row_groups"], sequences["is_whole"]) == (10_000, 16, False)
    assert sequences["lengths"] == [1, 1.0, 9] and sum(bar["count"] for bar in sequences["histogram"]) == 10_000
    assert 3000 < sequences["histogram"][1]["count"] < 5000 and told["measured"]["input"] is None
    assert cli.run(["inspect", str(source)]) == 0
    assert "of 10,000 sequences, the first ones of 16 row groups" in " ".join(capsys.readouterr().out.split())
    for scans in ("--statistics", "--scan"):
        assert cli.run(["inspect", str(source), scans]) == 3


def test_a_sample_opens_a_file_once_for_sequences_and_once_for_other_columns(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each row group, also where these hold steps of different widths."""
    opened, open = list[str](), UnitReader.open
    monkeypatch.setattr(UnitReader, "open", lambda self, unit: (opened.append(unit.file.path), open(self, unit))[1])
    rows = pa.array([[[1.0] * (2 + row % 2)] for row in range(6)], pa.list_(pa.list_(pa.float32())))
    told = looked_at(capsys, written(tmp_path / "a.parquet", {"seq": rows, "id": range(6)}, row_group_size=1))
    assert told["plain"]["rows"] == told["rows"] == 6
    assert len(opened) == 2


def test_what_is_missing_is_counted(tmp_path: Path, capsys: Capsys) -> None:
    nan, inf = float("nan"), float("inf")
    columns = {
        "name": pa.array(["a", None, None] * 10), "size": pa.array([1.0, nan, None] * 10), "blob": [b"x"] * 30,
        "seq": pa.array([[[1.0, nan], [None, inf], [2.0, nan]], None, []] * 10, pa.list_(pa.list_(pa.float32()))),
    }  # fmt: skip
    written(tmp_path / "in/site=a/x.parquet", columns, row_group_size=7)
    told = looked_at(capsys, tmp_path / "in")
    read = {"rows": 30, "nulls": {"name": 20, "size": 10}, "nans": {"size": 10}, "is_whole": True}
    assert told["plain"] == read
    assert told["spelled"] == ["site"] and told["sequences"]["faults"] == {"null_sequence": 10}
    numbers = [[one[name] for name in ("count", "nulls", "nans", "infinite")] for one in told["measured"]["columns"]]
    assert numbers == [[20, 10, 0, 0], [0, 0, 20, 10]]
    assert looked_at(capsys, tmp_path / "in", "--scan")["plain"] == told["plain"]
    assert looked_at(capsys, tmp_path / "in", "--limit", "7")["plain"]["rows"] == 7


def test_a_column_that_a_job_would_refuse_to_keep_leaves_the_others_to_be_looked_at(
    tmp_path: Path, capsys: Capsys
) -> None:
    """Nanoseconds in INT96; times and numbers of which the type of all files cannot hold one."""
    far, sequences = 253_402_214_400_000_000, pa.array([[[1.0]]], pa.list_(pa.list_(pa.float32())))
    own = {"id": pa.array([2**53 + 1]), "at": pa.array([far], pa.timestamp("us"))}
    other = {"id": pa.array([0.5]), "at": pa.array([1], pa.timestamp("ns"))}
    for name, each in (("a", own), ("b", other)):
        written(tmp_path / f"in/{name}.parquet", {**each, "name": [None], "seq": sequences})
    fine = {"fine": pa.array([1001], pa.timestamp("ns")), "name": ["x"], "seq": sequences}
    written(tmp_path / "int96.parquet", fine, use_deprecated_int96_timestamps=True)
    for scan in ((), ("--scan",)):
        told = looked_at(capsys, tmp_path / "in", *scan)
        assert told["plain"] == {"rows": 2, "nulls": {"name": 2}, "nans": {}, "is_whole": True}
        assert told["unreadable"].keys() == {"id", "at"} and "cannot hold a value" in told["unreadable"]["at"]
        told = looked_at(capsys, tmp_path / "int96.parquet", *scan)
        assert told["plain"]["nulls"] == {"name": 0} and "has nanoseconds" in told["unreadable"]["fine"]


def test_blobs_are_not_read_whatever_their_type(tmp_path: Path, capsys: Capsys) -> None:
    sequences = pa.array([[[1.0]]], pa.list_(pa.list_(pa.float32())))
    blobs = {"view": pa.array([b"x"], pa.binary_view()), "coded": pa.array([b"x"]).dictionary_encode()}
    told = looked_at(capsys, written(tmp_path / "in.parquet", {**blobs, "id": [1], "seq": sequences}))
    assert told["plain"]["nulls"] == {"id": 0}


@pytest.mark.parametrize("how", [(), ("--scan",)])
def test_a_limit_holds_where_no_layout_is_known(tmp_path: Path, capsys: Capsys, how: tuple[str, ...]) -> None:
    written(tmp_path / "in.parquet", {"name": ["a", None] * 20, "size": [1.0] * 40}, row_group_size=5)
    told = looked_at(capsys, tmp_path / "in.parquet", "--limit", "8", *how)
    read = {"rows": 8, "nulls": {"name": 4, "size": 0}, "nans": {"size": 0}, "is_whole": True}
    assert told["no_layout"] and told["plain"] == read
    assert cli.run(["inspect", str(tmp_path / "in.parquet"), "--limit", "8", *how]) == 0
    assert "--scan counts in all" not in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "encoding"), [(60, "utf-8"), (80, "utf-8"), (60, "ascii")])
def test_what_is_printed_fits_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, encoding: str
) -> None:
    long = "a_column_whose_name_is_longer_than_anybody_would_want_it"
    lengths = pa.array([[[0.5] * 6] * length for length in [*range(1, 60), 900]], pa.list_(pa.list_(pa.float64())))
    source = written(tmp_path / "in.parquet", {long: ["x"] * 60, "sequence": lengths})
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", said := io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert cli.run(["inspect", str(source)]) == 0
    said.seek(0)
    lines = said.read().splitlines()
    assert not [line for line in lines if len(line) > columns and str(source) not in line]
    full, less = ("#", "#") if encoding == "ascii" else ("█", {60: "▉", 80: "█▋"}[columns])
    (longest,) = (line for line in lines if line.lstrip().startswith("32 - 63 "))
    (shortest,) = (line for line in lines if "512 - 1,023" in line)
    assert longest.endswith(full) and len(longest) >= columns - 3 and shortest.endswith(f"1.7%  {less}")


def test_texts_too_many_to_list_are_left_out_with_a_comment(tmp_path: Path, capsys: Capsys) -> None:
    texts = [[f"item {nth}" for nth in range(1001)]]
    source = written(tmp_path / "in.parquet", {"item": texts, "x": [[1.0] * 1001]})
    assert cli.run(["inspect", str(source), "--features", "item,x", "--statistics"]) == 0
    out = capsys.readouterr().out
    assert "# 'item' is left out: it holds too many different texts" in out
    assert out.count("[[column]]") == 1 and 'name = "x"' in out


def test_jax_is_not_started(tmp_path: Path) -> None:
    source = written(tmp_path / "in.parquet", {"seq": nested([2])[0]})
    code = (
        "import os, sys; from scanrnn_dist.cli.app import run; "
        f"code = run(['inspect', {str(source)!r}, '--statistics'], owns_process=True); assert code == 0; "
        "assert 'jax' not in sys.modules; os._exit(0)"  # as the command does
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_statistics_that_overflow_are_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"x": [[-1.7e308, 1.7e308, 1.7e308]], "y": [[1.0, 2.0, 3.0]]}), tmp_path / "in.parquet")
    capsys.readouterr()
    assert cli.run(["inspect", str(tmp_path / "in.parquet"), "--features", "x,y", "--statistics", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    first, second = told["measured"]["columns"]
    assert first["std"] is None and first["max"] == 1.7e308 and second["mean"] == 2.0


def test_what_a_terminal_would_act_on_is_shown_and_not_sent(tmp_path: Path, capsys: Capsys) -> None:
    name = "x\x1b]52;c;ZXZpbA==\x07\u202egpj"
    file = written(tmp_path / "a.parquet", {name: [1.0], "sequence": nested([2])[0]})
    assert cli.run(["inspect", str(file)]) == 0
    assert cli.run(["plan", str(file), "--hidden", "4", "--column", f"{name}z"]) == 2
    told = "".join(capsys.readouterr())
    assert not set("\x1b\x07\u202e") & set(told) and r"\x1b]52;c;" in told and r"\u202egpj" in told
