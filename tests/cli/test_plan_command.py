"""`scanrnn plan` foresees what `featurize` does with the same flags, code and places, and writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sources
from sources import command_line_in_this_process, entries

from scanrnn_dist.api import computation, explanation
from scanrnn_dist.cli import app as cli
from scanrnn_dist.job import foresight, plan_job
from scanrnn_dist.job import plan as plan_module
from scanrnn_dist.source import BadRows, ReadOptions

GRU = ["--hidden", "4"]
FLOATS = pa.list_(pa.list_(pa.float32()))


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computation, "window_shape_for", lambda encoder, mesh, **_: sources.SHAPE)
    command_line_in_this_process(monkeypatch, columns=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of 40 rows, in row groups of 10."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        write(tmp_path / f"in/{number}.parquet", rows())
    return tmp_path


def rows() -> list[Any]:
    return [np.ones((1 + number % 5, 2)).tolist() for number in range(40)]


def write(path: Path, sequences: list[Any], type: pa.DataType = FLOATS) -> None:
    table = pa.table({"id": range(len(sequences)), "sequence": pa.array(sequences, type)})
    pq.write_table(table, path, row_group_size=10)


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def broken(case: str, folder: Path) -> list[str]:
    """Make something that featurize refuses, or not; the flags to try it with."""
    last, first_bad, last_bad = folder / "in/2.parquet", rows(), rows()
    first_bad[0][0][1] = last_bad[39][0][1] = float("nan")
    if case in ("nan in the first row", "nan, skipped", "nan, skipped too often"):
        write(last, first_bad)
    elif case == "nan in the last row":
        write(last, last_bad)
    elif case == "a null":
        write(last, [None, *rows()[1:]])
    elif case in ("inexact", "inexact, allowed"):
        for path in sorted((folder / "in").iterdir()):
            write(path, [[[0.1, 0.2]]] * 40, pa.list_(pa.list_(pa.float64())))
    elif case == "damaged":
        content = bytearray(last.read_bytes())
        content[4:400] = bytes(396)
        last.write_bytes(content)
    elif case == "a file at DST":
        (folder / "out").write_text("")
    elif case == "others' files at DST":
        (folder / "out").mkdir()
        (folder / "out/a.txt").write_text("")
    elif case == "this job, finished when more bad rows were allowed":
        write(last, first_bad)
        assert cli.run(["featurize", str(folder / "in"), str(folder / "out"), *GRU, "--bad-value", "skip"]) == 0
    elif case in ("another job", "this job", "another job, restarted"):
        hidden = "4" if case == "this job" else "5"
        assert cli.run(["featurize", str(folder / "in"), str(folder / "out"), "--hidden", hidden]) == 0
    return {
        "nan, skipped": ["--bad-value", "skip"],
        "nan, skipped too often": ["--bad-value", "skip", "--max-bad-rows", "0"],
        "this job, finished when more bad rows were allowed": ["--bad-value", "skip", "--max-bad-rows", "0"],
        "inexact, allowed": ["--lossy-cast"],
        "another job, restarted": ["--restart"],
        "a column that is not there": ["--column", "sequense"],
        "flags that exclude one another": ["--restart", "--accept-changes"],
        "an initial state that is not kept": ["--initial-carry", "nope"],
    }.get(case, [])


CASES = {
    "good": 0,
    "nan in the first row": 3,
    "nan in the last row": 3,
    "nan, skipped": 0,
    "nan, skipped too often": 3,
    "a null": 3,
    "inexact": 3,
    "inexact, allowed": 0,
    "damaged": 3,
    "a file at DST": 2,
    "others' files at DST": 2,
    "another job": 2,
    "another job, restarted": 0,
    "this job": 0,
    "this job, finished when more bad rows were allowed": 0,
    "a column that is not there": 2,
    "flags that exclude one another": 2,
    "an initial state that is not kept": 2,
}


OFTEN = ("nan in the last row", "inexact, allowed", "a file at DST", "another job", "this job",
         "this job, finished when more bad rows were allowed")  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in OFTEN else pytest.mark.soak) for case in CASES]
)
def test_plan_ends_as_featurize_does(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [folder / "in", folder / "out", *GRU, *broken(case, folder)]
    capsys.readouterr()
    before = entries(folder)
    code, out, told = run(capsys, "plan", *words, "--scan")
    assert entries(folder) == before, "plan writes nothing"
    code_then, _, told_then = run(capsys, "featurize", *words)
    assert code == code_then == CASES[case], (told, told_then)
    if code == 3 and "--max-bad-rows" not in words:
        places = re.findall(r"^  (\S+parquet.*)$", told, re.MULTILINE)
        assert len(places) == 1 + 2 * (case == "inexact") and all(place in told_then for place in places)
        assert "would fail" in out
    elif code == 0:
        assert "checked:      all 120 rows: nothing would fail" in out and not told


def test_rows_that_a_filter_leaves_out_do_not_say_how_many_features_a_step_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.parquet", [[[]], [[1.0] * 3], [[1.0] * 2]])
    words = [tmp_path / "a.parquet", tmp_path / "out", *GRU, "--filter", "id > 1"]
    for command in ("plan", "featurize"):
        code, _, told = run(capsys, command, *words)
        assert code == 0, told
    assert pq.read_table(tmp_path / "out").num_rows == 1


def test_a_new_destination_may_be_named_from_here(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, out, _ = run(capsys, "plan", "in", "new/out", *GRU)
    assert code == 0 and "destination:  new" in out


def test_a_job_of_nested_lists_with_an_input_is_found_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "input.toml").write_text('[[column]]\nname = "1"\nkind = "number"\n')
    for name in ("new", "old"):
        words = [folder / "in", folder / name, *GRU, "--input", folder / "input.toml"]
        with monkeypatch.context() as patched:
            if name == "old":  # which did not record the width
                patched.setattr(plan_module, "layout_with_width", lambda plan, *_: plan.layout)
            assert run(capsys, "featurize", *words)[0] == 0
        (folder / name / "_SUCCESS").unlink()
        code, out, told = run(capsys, "plan", *words)
        assert code == 0 and "holds this same job, unfinished" in out, told
        assert run(capsys, "featurize", *words)[0] == 0


def test_plan_of_what_is_sorted_first_ends_as_featurize_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb", reason="--sort needs the extra 'duckdb'.")
    pq.write_table(pa.table({"id": [1, 2, 1], "t": [2, 1, 0], "x": [1.0, 2.0, 3.0], "c": ["a"] * 3}), tmp_path / "a")

    def both(destination: str, *flags: str, order: str = "t") -> tuple[int, str]:
        long = ["--group-by", "id", "--order-by", order, "--sort"]
        words = [tmp_path / "a", tmp_path / destination, *GRU, *long, *flags]
        before = entries(tmp_path)
        code, out, _ = run(capsys, "plan", *words)
        assert entries(tmp_path) == before, "plan writes nothing"
        assert run(capsys, "featurize", *words)[0] == code
        return code, out

    code, out = both("out", "--features", "x")
    assert code == 0 and "featurize sorts the rows first" in out
    code, out = both("out", "--features", "x")
    assert code == 0 and ", 2 rows, " in out and "holds this same job, finished" in out
    assert both("out", "--features", "x", order="c")[0] == 3
    assert both("out", "--features", "x", "--restart", order="c")[0] == 0
    assert both("new", "--features", "c")[0] == 3
    (tmp_path / "others").mkdir()
    (tmp_path / "others/a.txt").write_text("")
    assert both("others", "--features", "x")[0] == 2
    assert run(capsys, "plan", tmp_path / "a", *GRU, "--group-by", "id", "--sort", "--features", "x")[0] == 0


CARRIES: dict[str, tuple[pa.DataType, list[Any], str]] = {
    "too short": (pa.list_(pa.float32()), [[0.5] * 4, [0.5] * 3], "holds 3 numbers; expected 4"),
    "null": (pa.list_(pa.float32()), [[0.5] * 4, None], "is null; expected a list of 4 numbers"),
    "a NaN": (pa.list_(pa.float32()), [[0.5] * 4, [float("nan")] * 4], "feature 0 is nan"),
    "inexact": (pa.list_(pa.float64()), [[0.5] * 4, [0.1] * 4], "Allow rounding with --lossy-cast"),
    "texts": (pa.string(), ["a", "b"], "'carry' is string; expected a list of numbers per row"),
    "lists of texts": (pa.list_(pa.string()), [["a"], ["b"]], "expected a list of numbers per row"),
    "good": (pa.list_(pa.float32(), 4), [[0.5] * 4, [0.25] * 4], ""),
}


@pytest.mark.parametrize("case", CARRIES)
def test_plan_reads_the_initial_carries_that_rows_bring(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, carries, reason = CARRIES[case]
    table = pa.table({"sequence": pa.array([[[1.0, 2.0]]] * 2, FLOATS), "carry": pa.array(carries, kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    flags = [*GRU, "--column", "sequence", "--initial-carry", "carry"]
    code, out, told = run(capsys, "plan", tmp_path / "a.parquet", *flags, "--scan")
    code_then, _, told_then = run(capsys, "featurize", tmp_path / "a.parquet", tmp_path / "out", *flags)
    assert code == code_then == (0 if case == "good" else 2 if "texts" in case else 3), (told, told_then)
    assert reason in told and reason in told_then and ("1 place would fail" in out) == (code == 3)


def test_a_unit_whose_carries_fail_is_one_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "MOST_BYTES", 1)  # a chunk for each row
    monkeypatch.setattr(foresight, "LEAST_BYTES", 1)
    carries = pa.array([[0.5] * 3] * 4, pa.list_(pa.float32()))
    table = pa.table({"sequence": pa.array([[[1.0, 2.0]]] * 3 + [None], FLOATS), "carry": carries})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    flags = [*GRU, "--column", "sequence", "--initial-carry", "carry"]
    for scan in ([], ["--scan"]):
        code, out, err = run(capsys, "plan", tmp_path / "a.parquet", *flags, *scan)
        assert code == 3 and "1 place would fail" in out and err.count("holds 3 numbers; expected 4") == 1


def test_rows_before_one_that_is_refused_tell_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "MOST_BYTES", 1)  # a chunk for each row
    sequences = rows()
    sequences[39][0][1] = float("nan")
    write(tmp_path / "a.parquet", sequences)
    code, out, _ = run(capsys, "plan", tmp_path / "a.parquet", *GRU, "--scan")
    assert code == 3 and "39 of 40 rows: 1 place would fail" in out and "about 118 steps" in out


def write_damaged(path: Path, at: int) -> None:
    """A file of one part of 40 rows, the first with a NaN, and a wrong byte at a place of the column's pages."""
    sequences = rows()
    sequences[0][0][1] = float("nan")
    table = pa.table({"sequence": pa.array(sequences, FLOATS)})
    pages: Any = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(table, path, data_page_size=64, write_batch_size=1, **pages)
    column, content = pq.read_metadata(path).row_group(0).column(0), bytearray(path.read_bytes())
    content[column.data_page_offset + at % column.total_compressed_size] ^= 1
    path.write_bytes(content)


def test_a_part_that_is_set_aside_as_a_whole_is_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "MOST_BYTES", 1)  # a chunk for each row
    monkeypatch.setattr(foresight, "LEAST_BYTES", 1)
    (tmp_path / "in").mkdir()
    write_damaged(tmp_path / "in/0.parquet", -3)
    write(tmp_path / "in/1.parquet", rows())
    skips = ["--unreadable-file", "skip", "--bad-value", "skip", "--max-bad-rows", "40"]
    words = [tmp_path / "in", tmp_path / "out", *GRU, *skips, "--column", "sequence", "--keep", ""]
    code, out, _ = run(capsys, "plan", *words, "--scan", "--json")
    told = json.loads(out)
    assert (code, told["set_aside"], told["rows_checked"], told["steps"]) == (0, 40, 80, sum(map(len, rows())))
    plan = plan_job(tmp_path / "in")
    bad_rows, seen = BadRows("skip", unreadable_file="skip"), list[int]()
    foresight.foresee(
        plan, lambda size: ReadOptions(plan.layout, bad_rows=bad_rows, chunk_bytes=size), lambda _: None,
        whole=True, on_rows=seen.append,
    )  # fmt: skip
    assert sum(seen) == 80
    assert run(capsys, "featurize", *words)[0] == 0


def test_a_source_of_which_nothing_can_be_read_may_be_set_aside_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_damaged(tmp_path / "a.parquet", 30)
    sources.encoder_of(in_features=2).save(tmp_path / "a.safetensors")
    words = [tmp_path / "a.parquet", tmp_path / "out", "--encoder", tmp_path / "a.safetensors"]
    for scan in ([], ["--scan"]):
        code, out, told = run(capsys, "plan", *words, "--unreadable-file", "skip", *scan)
        assert code == 0 and "40 rows would be set aside" in out, told
        assert run(capsys, "plan", *words, *scan)[0] == 3
    assert run(capsys, "featurize", *words, "--unreadable-file", "skip")[0] == 0


def test_without_scan_the_first_rows_of_each_file_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "FIRST_BYTES", 1)
    monkeypatch.setattr(foresight, "LEAST_BYTES", 1)
    words = ["plan", folder / "in", *GRU]
    broken("nan in the last row", folder)
    code, out, _ = run(capsys, *words)
    assert code == 0 and "the first rows of each of the 3 files" in out and "--scan checks all rows" in out
    broken("nan in the first row", folder)
    assert run(capsys, *words)[0] == 3
    monkeypatch.setattr(foresight, "MOST_FILES", 2)  # the first and the third
    code, out, _ = run(capsys, *words)
    assert code == 3 and "2 of 3 files" in out
    plan = plan_job(folder / "in")
    found = foresight.foresee(plan, lambda size: ReadOptions(plan.layout, chunk_bytes=size), lambda _: None)
    assert (found.files, found.failed, found.whole) == (2, 1, False) and found.rows < 40


def steps_of(count: int, steps: int) -> pa.Array:
    numbers = pa.array(np.tile(np.array([0.5, 1.0], np.float32), count * steps))
    of_steps = pa.ListArray.from_arrays(pa.array(range(0, len(numbers) + 1, 2), pa.int32()), numbers)
    return pa.ListArray.from_arrays(pa.array(range(0, count * steps + 1, steps), pa.int32()), of_steps)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each file some kilobytes are read first."""
    monkeypatch.setattr(foresight, "MOST_BYTES", 1 << 14)
    monkeypatch.setattr(foresight, "LEAST_BYTES", 1 << 14)


def told_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    code, out, err = run(capsys, "plan", *arguments, *GRU, "--json")
    assert code == 0, err
    return json.loads(out)


def write_in_groups(path: Path, sequences: pa.Array, row_group_size: int, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": range(len(sequences)), "sequence": sequences, **more}
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size, use_dictionary=False)


@pytest.mark.usefixtures("small_chunks")
def test_each_file_counts_by_its_rows_however_long_its_sequences_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_in_groups(tmp_path / "in/a.parquet", steps_of(1000, 10), 1000)
    write_in_groups(tmp_path / "in/b.parquet", steps_of(1000, 1000), 1000)
    told = told_of(capsys, tmp_path / "in")
    assert told["rows_checked"] < 500 and told["steps"] == 1000 * 10 + 1000 * 1000
    assert told_of(capsys, tmp_path / "in", "--limit", "500")["steps"] == 500 * 10


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("most", [1000, 2])
def test_folders_that_do_not_match_have_no_steps(
    most: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "MOST_FILES", most)
    for day in range(8):
        for number in range(2):
            write_in_groups(tmp_path / f"in/day={day}/{number}.parquet", steps_of(2000, 20), 1000)
    told = told_of(capsys, tmp_path / "in", "--filter", "day == 5")
    assert told["steps"] == 2 * 2000 * 20 and told["seconds"] > 1 and 0 < told["rows_checked"] < 500
    none = told_of(capsys, tmp_path / "in", "--filter", "day == 9", "--in-features", "2")
    assert none["steps"] == 0 and "no row that matches was found" in none["told"]["checked"]


MATCHES = {
    "in a later row group": ("id >= 3000", 1000),
    "at the end of each row group": ("is_last", 4),
    "in the first rows": ("id < 1000", 1000),
    "in each second row": ("odd == 1", 2000),
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("case", "rows_per_part"),
    [
        *((case, None) for case in MATCHES),
        ("in a later row group", 1000),
        ("in the first rows", 1000),
        pytest.param("at the end of each row group", 1000, marks=pytest.mark.soak),
        pytest.param("in each second row", 1000, marks=pytest.mark.soak),
    ],
)
def test_rows_are_looked_for_that_match(
    case: str, rows_per_part: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, matching = MATCHES[case]
    more = {"odd": [number % 2 for number in range(4000)], "is_last": [number % 1000 == 999 for number in range(4000)]}
    write_in_groups(tmp_path / "a.parquet", steps_of(4000, 20), 1000, **more)
    parts = [] if rows_per_part is None else ["--rows-per-part", rows_per_part]
    told = told_of(capsys, tmp_path / "a.parquet", "--filter", text, *parts)
    steps = told_of(capsys, tmp_path / "a.parquet", "--filter", text, *parts, "--scan")["steps"]
    assert steps == matching * 20 and told["seconds"] > 1
    # Of a file of several parts the first one tells.
    expected = 4 * steps if rows_per_part and case == "in the first rows" else steps
    assert told["steps"] == pytest.approx(expected, rel=0.2)


def test_the_time_counts_what_the_job_decodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation, "_READ_BYTES_A_SECOND", 1e3)
    wide = np.random.default_rng(0).bytes(1_000_000)
    wide_column = pa.array([wide[at : at + 1000] for at in range(0, len(wide), 1000)])
    write_in_groups(tmp_path / "a.parquet", steps_of(1000, 10), 1000, wide=wide_column)
    narrow, kept = (told_of(capsys, tmp_path / "a.parquet", "--keep", keep)["seconds"] for keep in ("id", "wide"))
    few = told_of(capsys, tmp_path / "a.parquet", "--keep", "wide", "--limit", "10")["seconds"]
    assert 80 < narrow < 150 and 1000 < kept < 1300 and few < 20


def test_all_places_are_counted_and_the_first_ones_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [[[float("nan"), 0.0]]] * 30
    for number in range(3):
        write(folder / f"in/{number}.parquet", bad)
    code, out, err = run(capsys, "plan", folder / "in", *GRU, "--rows-per-part", "1", "--scan")
    assert code == 3 and "9 places would fail" in out and "about 90 steps" in out and err.count("feature 0 is nan") == 9


def test_steps_of_rows_that_are_all_refused_are_told_all_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write(folder / f"in/{number}.parquet", [[[0.1, 0.2]] * 5] * 40, pa.list_(pa.list_(pa.float64())))
    for flags, steps in (([], 5), (["--max-steps", "2"], 2)):
        code, out, _ = run(capsys, "plan", folder / "in", *GRU, *flags)
        assert code == 3 and "3 places would fail" in out and f"120 rows, about {120 * steps} steps" in out


def test_where_the_first_part_is_set_aside_as_a_whole_the_next_one_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.parquet"
    write(file, rows())
    file.write_bytes(file.read_bytes()[:4] + bytes(40) + file.read_bytes()[44:])
    told = told_of(capsys, file, "--unreadable-file", "skip", "--rows-per-part", "10", "--column", "sequence")
    assert (told["set_aside"], told["rows_checked"], told["steps"]) == (10, 10, 40 * 3) and told["seconds"] > 1


def test_the_plan_as_json_says_steps_time_and_memory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plan", folder / "in", *GRU, "--json", "--scan")
    told = json.loads(out)
    assert code == 0 and not err
    assert (told["files"], told["rows"], told["steps"], told["failures"]) == (3, 120, 3 * 8 * 15, [])
    assert told["seconds"] > 1 and told["gflops"] > 0 and told["memory_bytes"] > 1 << 20
    assert told["told"]["time"].startswith("about ")
    cut = json.loads(run(capsys, "plan", folder / "in", *GRU, "--json", "--max-steps", "2")[1])
    assert cut["steps"] == 3 * 8 * 9


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("", "3 parts, features: fixed_size_list<float32>[4]"),
        ("--keep-state", "3 parts, state: fixed_size_list<float32>[4], features: fixed_size_list<float32>[4]"),
        ("--output-layout list --output-dtype float16", "3 parts, features: list<float16>"),
        ("--output-layout tensor", "3 parts, features: fixed_shape_tensor<float32>[4]"),
        ("--output-layout columns", "3 parts, feature_0 to feature_3: float32"),
    ],
)
def test_the_plan_names_the_columns_that_featurize_writes(
    flags: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [folder / "in", *GRU, *flags.split(), "--json"]
    assert json.loads(run(capsys, "plan", *arguments)[1])["told"]["output"] == told


def test_a_source_without_steps_has_a_plan_without_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(
        pa.table({"sequence": pa.array([[], []], pa.list_(pa.list_(pa.float32(), 2)))}), tmp_path / "a.parquet"
    )
    code, out, _ = run(capsys, "plan", tmp_path / "a.parquet", *GRU)
    assert code == 0 and "0 steps" in out and "time:" not in out


def test_sizes_that_make_no_sense_are_warned_of_before(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [folder / "in", folder / "out", *GRU]
    code, out, err = run(capsys, "plan", *words, "--lanes", "3000", "--devices", "500")
    assert code == 0 and "time:" not in out, "nor is it measured what would take long"
    assert "Warning: --lanes 3,000 has each device compute so many rows" in err
    assert re.search(r"Warning: --devices 500 on \d+ cores", err)
    assert "Warning" not in run(capsys, "plan", *words)[2]


def test_a_width_that_the_types_fix_and_the_encoder_does_not_take_is_refused_before_anything_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = pa.list_(pa.list_(pa.float32(), 6))
    tables = {
        "fixed": pa.table({"sequence": pa.array([[[0.5] * 6]], fixed)}),
        "columns": pa.table({name: pa.array([[0.5]], pa.list_(pa.float32())) for name in ("x", "y")}),
    }
    told = {"fixed": ("column 'sequence'", 6), "columns": ("columns 'x', 'y'", 2)}
    encoder, out = tmp_path / "encoder.safetensors", tmp_path / "out"
    sources.encoder_of(in_features=12).save(encoder)
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        flags = ["--encoder", encoder, *(["--features", "x,y"] if name == "columns" else [])]
        for command in (["plan"], ["featurize", out]):
            code, _, err = run(capsys, command[0], tmp_path / f"{name}.parquet", *command[1:], *flags)
            where, width = told[name]
            assert code == 2 and not out.exists(), err
            assert (
                f"ConfigError: The encoder takes 12 features per step; there are {width} in {where}. Choose another"
                in err
            )


@pytest.mark.parametrize("flags", [["--hidden", "4"], ["--encoder", 6], ["--encoder", 12]])
def test_a_width_that_is_asked_for_and_the_type_does_not_have_is_refused_before_anything_is_tried(
    flags: list[str | int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, encoder, out = tmp_path / "fixed.parquet", tmp_path / "encoder.safetensors", tmp_path / "out"
    pq.write_table(pa.table({"sequence": pa.array([[[0.5] * 6]], pa.list_(pa.list_(pa.float32(), 6)))}), source)
    option, value = flags
    if isinstance(value, int):
        sources.encoder_of(in_features=value).save(encoder)
        value = str(encoder)
    for command in (["plan"], ["featurize", out]):
        code, _, err = run(capsys, command[0], source, *command[1:], option, value, "--in-features", "12")
        assert code == 2 and not out.exists(), err
        assert "ConfigError: column 'sequence' of" in err and "fixed_size_list<element: float>[6]>, 6 features" in err
        assert "--in-features says 12. Leave --in-features out" in err
    assert run(capsys, "featurize", source, out, option, value, "--in-features", "6")[0] == 2 * (flags[1] == 12)


def test_kept_columns_that_do_not_go_with_the_rest_are_refused_before_a_row_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = pa.table({"id": [1, 1, 2], "t": [2, 1, 1], "x": [1.0, float("nan"), 3.0], "l": [[1], [1], [2]]})
    pq.write_table(events, tmp_path / "events.parquet")
    rows = pa.table({"sequence": pa.array([[[float("nan"), 2.0]]], FLOATS), "feature_0": [1]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    long = ["--group-by", "id", "--order-by", "t", "--keep", "id,l"]
    for name, flags, told in (
        ("events", long, "--keep: column 'l' is list<element: int64>; expected numbers"),
        ("events", [*long, "--sort"], "--keep: column 'l' is list<element: int64>; expected numbers"),
        ("rows", ["--output-layout", "columns"], "'feature_0'"),
        ("rows", ["--initial-carry", "nope"], "column 'nope' is not kept"),
    ):
        before = entries(tmp_path)
        for command in (["plan"], ["plan", tmp_path / "out"], ["featurize", tmp_path / "out"]):
            if command == ["featurize", tmp_path / "out"] or "--sort" not in flags:
                code, _, err = run(capsys, command[0], tmp_path / f"{name}.parquet", *command[1:], *GRU, *flags)
                assert code == 2 and told in err and entries(tmp_path) == before, err


@pytest.mark.parametrize(
    ("flags", "left_out"),
    [
        ((), "t, what, site"),
        (("--keep", "id,what,site"), "t"),
        (("--features", "x", "--keep", "id,site,t"), "what, ok"),
        (("--features", "x,t", "--keep", "what,ok"), "site"),  # the user's --keep leaves out the id
        (("--keep", "id,what,site,t"), ""),
    ],
)
def test_columns_that_are_neither_features_nor_kept_are_named(
    flags: tuple[str, ...], left_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = {"id": [1, 1, 2], "t": pa.array([1, 2, 3], pa.timestamp("s")), "what": ["a", "b", "a"]}
    pq.write_table(pa.table({**events, "ok": [True, False, True], "x": [1, 2, 3], "site": ["p", "p", "q"]}),
                   tmp_path / "long.parquet")  # fmt: skip
    told = f"{left_out} (named by none of --features, --input and --keep)"
    given = (tmp_path / "long.parquet", *GRU, "--group-by", "id", "--order-by", "t", "--lossy-cast", *flags)
    _, out, _ = run(capsys, "plan", *given)
    assert [line for line in out.splitlines() if line.startswith("left out")] == [f"left out:     {told}"] * (
        left_out != ""
    )
    _, _, err = run(capsys, "featurize", given[0], tmp_path / "out", *given[1:])
    assert (f"Left out: {told}." in err) == (left_out != "") and ("Left out" in err) == (left_out != "")


def test_what_plan_foresees_is_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet", [[[0.5, float("nan")]]])
    code, _, err = run(capsys, "plan", tmp_path / "a.parquet", *GRU)
    head, _, advice = err.splitlines()[-3:]
    assert code == 3 and head.endswith("would leave out the parts that hold these rows, and end with 3:")
    assert advice == "Mend these files, or set the flag in parentheses to skip or to another choice."
    write(tmp_path / "b.parquet", [[[0.5, 0.1]]], pa.list_(pa.list_(pa.float64())))
    _, _, err = run(capsys, "plan", tmp_path / "b.parquet", *GRU)
    assert err.endswith("Mend these files, or round numbers that float32 does not hold with --lossy-cast.\n")


@pytest.mark.parametrize("destination", ["out", "new/out"])
def test_a_destination_in_the_working_folder_is_new(
    destination: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code, told, _ = run(capsys, "plan", "in", destination, *GRU)
    assert code == 0 and "new: nothing is there yet" in told


def test_plan_says_what_accepted_changes_would_keep(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [folder / "in", folder / "out", *GRU, "--rows-per-part", "20"]
    assert run(capsys, "featurize", *flags)[0] == 0
    assert "finished; there would be nothing to do" in run(capsys, "plan", *flags, "--accept-changes")[1]
    write(folder / "in/1.parquet", rows()[:30])
    (folder / "in/2.parquet").unlink()
    code, told, _ = run(capsys, "plan", *flags, "--accept-changes")
    assert code == 0 and "holds this job of the source as it was; 2 of 4 parts would be kept" in told
    code, _, said = run(capsys, "featurize", *flags, "--accept-changes")
    assert code == 0 and "2 of 4 parts are kept" in said


def test_plan_says_what_is_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [folder / "in", folder / "out", *GRU, "--rows-per-part", "20"]
    assert run(capsys, "featurize", *flags)[0] == 0
    (folder / "out/part-00001.parquet").unlink()
    told = run(capsys, "plan", *flags)[1]
    assert "finished; 1 part, missing or changed, will be made again" in told


def test_a_finished_job_of_another_environment_has_nothing_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [folder / "in", folder / "out", *GRU, "--rows-per-part", "20"]
    assert run(capsys, "featurize", *flags)[0] == 0
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    for command, told in (("featurize", "othing to do"), ("plan", "finished; there would be nothing to do")):
        code, out, err = run(capsys, command, *flags)
        assert code == 0 and told in out, err
    (folder / "out/part-00001.parquet").unlink()
    for command in ("plan", "featurize"):
        code, _, err = run(capsys, command, *flags)
        assert code == 2 and "xla_flags was" in err


def test_of_a_changed_source_and_other_flags_plan_says_what_featurize_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [folder / "in", folder / "out", *GRU, "--rows-per-part"]
    assert run(capsys, "featurize", *words, "20")[0] == 0
    write(folder / "in/1.parquet", rows()[:30])
    for flags, code, says in (
        (["20"], 3, "The source changed since the job in"),
        (["20", "--keep", "id", "--limit", "50"], 2, "limit was not given and is 50"),
        (["20", "--accept-changes", "--limit", "50"], 2, "limit was not given and is 50"),
        (["10"], 2, "rows_per_part was 20 and is 10"),
    ):
        told = [run(capsys, command, *words, *flags) for command in ("plan", "featurize")]
        assert [each[0] for each in told] == [code, code] and all(says in err for _, _, err in told), told
    for name in ("_SUCCESS", *(f"part-{number:05}.parquet" for number in range(6))):
        (folder / "out" / name).unlink()
    told = [run(capsys, command, *words, "10") for command in ("plan", "featurize")]
    assert [each[0] for each in told] == [0, 0] and "holds a job without parts; this one would" in told[0][1], told
