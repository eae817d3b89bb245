"""The page of a report: nothing of the data is markup in it, it says how to go on; and the command that writes it."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from evil import EVIL, VALUES
from s3_server import S3Server
from sources import NAN, featurize, keep_devices, random_rows, write_source

from scanrnn_dist import cli
from scanrnn_dist.cli.reproducing import command_that_makes
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.records import ENCODER, JOB, RECORDS, RESTART
from scanrnn_dist.report import page, read_numbers, write_report
from scanrnn_dist.report.features import Map, numbers_of
from scanrnn_dist.report.page import as_script
from scanrnn_dist.report.plots import OTHERS, feature_plot, groups_of, map_plot
from scanrnn_dist.report.sample import Sample


def test_nothing_that_a_script_reads_ends_it() -> None:
    told = as_script({EVIL: [EVIL]})
    assert "</" not in told and "<!--" not in told and "<\\/script>" in told
    assert json.loads(told) == {EVIL: [EVIL]}


def test_a_plot_shows_values_as_text() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 3))
    plot = map_plot(Sample(rows, colour=EVIL, values=VALUES), Map(rows[:, :2], (0.6, 0.4)))
    names = [trace["name"] for trace in plot["data"]] if plot else []
    assert len(names) == 4 and not [name for name in names if "<" in name or ">" in name]
    assert {"&lt;b&gt;bold&lt;/b&gt;", "a &amp; b", "(null)"} < set(names)


def test_of_many_values_the_rare_ones_share_a_colour() -> None:
    values = [str(number) for number in range(30) for _ in range(30 - number)]
    names, which = groups_of(Sample(np.zeros((len(values), 1)), colour="c", values=tuple(values)))
    assert names == [*map(str, range(19)), OTHERS]
    assert np.bincount(which).tolist() == [*range(30, 11, -1), sum(range(1, 12))]


def test_many_numbers_colour_along_a_scale() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    plot = map_plot(Sample(rows, colour="<b>", values=(None, float("nan"), *range(28))), Map(rows[:, :2], (0.6, 0.4)))
    assert plot is not None and len(plot["data"]) == 1 and not plot["layout"]["showlegend"]
    marker = plot["data"][0]["marker"]
    assert marker["color"] == [None, None, *range(28)] and marker["colorbar"]["title"]["text"] == "&lt;b&gt;"
    few = map_plot(Sample(rows, colour="c", values=tuple(range(10)) * 3), Map(rows[:, :2], (0.6, 0.4)))
    assert few is not None and len(few["data"]) == 10


def test_plots_of_no_rows_are_left_out() -> None:
    assert feature_plot(numbers_of(np.zeros((0, 3)))) is None and map_plot(Sample(np.zeros((0, 3))), None) is None


def test_without_the_extra_the_command_says_how_to_install_it(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "NEEDED", ("nowhere_to_be_found",))
    assert cli.run(["report", str(out), "--output", str(tmp_path / "a.html")]) == 2
    assert "pip install -e '.[report]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_page_says_how_to_go_on_and_has_no_markup_of_the_data(out: Path, needs_extra: None) -> None:
    told = page.page_of(read_numbers(out))
    assert "<i>" not in told and "<b>bold" not in told and EVIL not in told and "<img" not in told
    assert "<script>document.title" not in told
    assert re.search(r"scanrnn verify &#39;.*/&lt;i&gt;out &amp; more&#39;", told)
    assert re.search(r"scanrnn resume &#39;.*/&lt;i&gt;out &amp; more&#39;", told)
    assert "60 rows" in told and "GRU" in told and re.search(r"held a step.*; this is called <em>occupancy", told)
    assert "All 60 sequences of the source have 2 to 4 steps" in told and '<th scope="row">jax</th>' in told


def test_a_page_about_a_restart_names_no_command_that_is_refused(tmp_path: Path, needs_extra: None) -> None:
    source, out = write_source(tmp_path / "a.parquet", random_rows([4] * 9)), tmp_path / "out"
    featurize(source, out)
    with pytest.raises(DataError, match="parts could not be made"):
        write_source(source, [*random_rows([4] * 8), NAN])
        featurize(source, out, restart=True, rows_per_part=5)
    told = page.page_of(read_numbers(out / RESTART))
    assert "scanrnn resume" not in told and "To continue it: the command that began it, with --restart." in told


def test_commands_for_a_bucket_name_its_server(tmp_path: Path, needs_extra: None, s3: S3Server) -> None:
    uri = s3.uri("bucket/out")
    featurize(write_source(tmp_path / "a.parquet", random_rows([4])), uri)
    told = unescape(page.page_of(read_numbers(uri, command_of=command_that_makes)))
    assert (
        f"scanrnn verify '{uri}'" in told and f"scanrnn resume '{uri}'" in told and "<h1>s3://bucket/out</h1>" in told
    )
    assert "s3://bucket/out/__scanrnn/encoder.safetensors</code>, which <code>--encoder</code> takes once" in told


def test_the_command_writes_the_page_and_says_where(
    out: Path, tmp_path: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["report", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "<i>out & more-report.html" and told["rows"] == 60 and told["state"] == "complete"
    assert [path.name for path in tmp_path.iterdir()] == [told["path"]]
    assert cli.run(["report", str(out)]) == 0
    assert f"{told['path']} was there already, and is replaced." in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.run(["report", "empty"]) == 2 and "no output of a job" in capsys.readouterr().err


def test_the_check_is_shown_whatever_it_finds(
    out: Path, tmp_path: Path, needs_extra: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_devices(monkeypatch)
    path, copy = tmp_path / "page.html", tmp_path / "copy"
    assert cli.run(["report", str(out), "--output", str(path)]) == 0
    assert "was not checked for this page" in path.read_text()
    assert cli.run(["report", str(out), "--output", str(path), "--verify"]) == 2
    assert "page.html is there already. Choose another name, or replace it with --force." in capsys.readouterr().err
    assert cli.run(["report", str(out), "--output", str(path), "--verify", "--force"]) == 0
    told = path.read_text()
    assert "60 rows, unchanged since they were written" in told and "right in all 32 rows" in told
    assert told.count('<th scope="row">part-') == 32
    shutil.copytree(out, copy)
    part = copy / "part-00003.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    capsys.readouterr()
    assert cli.run(["report", str(copy), "--output", str(path), "--verify", "--force"]) == 3
    assert "part-00003.parquet" in capsys.readouterr().err
    assert re.search(r"The output is not right.*part-00003.parquet", path.read_text())


def test_a_check_without_the_source_is_shown(
    out: Path, tmp_path: Path, needs_extra: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_devices(monkeypatch)
    path, source = tmp_path / "page.html", Path(json.loads((out / JOB).read_text())["options"]["source"])
    source.rename(tmp_path / "away")
    try:
        assert cli.run(["report", str(out), "--output", str(path), "--verify"]) == 4
    finally:
        (tmp_path / "away").rename(source)
    assert "The source cannot be read" in capsys.readouterr().err
    assert re.search(
        r"The output could not be checked.*The source cannot be read: .*`scanrnn verify --sample 0`",
        path.read_text(),
    )


def test_a_check_without_the_encoder_is_shown(
    out: Path, tmp_path: Path, needs_extra: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_devices(monkeypatch)
    path, copy = tmp_path / "page.html", tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / ENCODER).unlink()
    assert cli.run(["report", str(copy), "--output", str(path), "--verify"]) == 2
    assert "pass the encoder" in capsys.readouterr().err
    problem = r"The output could not be checked.*pass the encoder, .*`scanrnn verify --sample 0`"
    assert re.search(problem, path.read_text())


@pytest.mark.parametrize("name", ["", "no/page.html"])
def test_a_page_is_written_to_a_file_in_a_folder(out: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a file to write"):
        write_report(read_numbers(out), tmp_path / name)


def test_a_page_within_the_destination_is_refused_before_anything_is_read(
    out: Path, tmp_path: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, numbers = sorted(out.rglob("*")), read_numbers(out)
    monkeypatch.setattr("scanrnn_dist.report.read_numbers", None)
    monkeypatch.chdir(out)
    for arguments in (["."], [str(out)], [f"file://{quote(str(out))}"], [str(out / RESTART)]):
        assert cli.run(["report", *arguments]) == 2
        assert "where readers take it for a part; choose another place." in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert cli.run(["report", str(out), "--output", str(out / "a.html")]) == 2
    assert "a.html lies within" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="lies within"):
        write_report(numbers, out / RECORDS / "a.html")
    assert sorted(out.rglob("*")) == before


def test_a_page_has_the_name_of_the_folder_whatever_its_path_ends_with(
    tmp_path: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    featurize(write_source(tmp_path / "a.parquet", random_rows([4])), tmp_path / "out")
    for name in ("pages", "out/below"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "pages")
    assert cli.run(["report", "../out/below/.."]) == 0
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["out-report.html"]
