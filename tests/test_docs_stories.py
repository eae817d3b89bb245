"""The blocks of a page work in their order, in one folder: its commands, and the Python and TOML that make its files.

What a block of `text` shows has to be what the block before it printed. Commands that cannot run here are in
`doc_blocks.NOT_RUN`, with the reason; what stands in for buckets and clusters is in `doc_places.py`.
"""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from urllib.request import urlopen

import doc_places
import pyarrow.parquet as pq
import pytest
import sources
from doc_blocks import (
    PAGES,
    ROOT,
    RUN_BY_ANOTHER_TEST,
    blocks,
    commands,
    entry_of,
    name_of,
    scanrnn_commands,
    words_of,
)
from s3_server import S3Server

from scanrnn_dist.cli import app as cli

# Ray forks to start its processes, of which JAX warns wherever it runs; what is forked here becomes another program.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

ANEW = {"docs/clusters": "features", "docs/ray": "features", "docs/stores": "features"}
"""Pages that write to this place again and again: what is there is taken away before each command that writes to it.

Where it is called `features`, the commands are ways to the same output, and all outputs are equal.
"""
OWN_PROCESS = re.compile(r"--engine ray|~/")
"""What a `scanrnn` needs that is not run within the process of the tests."""
NEEDS = {"--sort": "duckdb", "torchrun": "torch", "scanrnn report": "plotly", "pipelines/train": "optax"}
"""Packages of extras that a command needs."""
FIGURE = re.compile(r"\b[01]\.[0-9]{3}\b")
NEARLY = 0.01
"""An accuracy of three digits may differ by so much: other bits of features move a few rows of some hundred."""


def runs(page: Path) -> bool:
    """Whether a page has a command that is to be run here."""
    told = [command for kind, _, text in blocks(page) if kind == "sh" for command in commands(text)]
    return name_of(page) not in RUN_BY_ANOTHER_TEST and any(entry_of(command) is None for command in told)


STORIES = [page for page in PAGES if runs(page)]


@dataclass
class Place:
    """The folder of a page, its servers, and the addresses that are put in the place of those that it shows."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    s3: S3Server | None = None
    shown: dict[str, str] = field(default_factory=lambda: dict(doc_places.SMALLER))

    def run(self, command: str) -> str:
        """Run a command and give what it prints; a comment may name the exit code."""
        for name, package in NEEDS.items():
            if name in command:
                pytest.importorskip(package)
        for shown, here in self.shown.items():
            command = command.replace(shown, here)
        words = words_of(command)
        if words[0] == "export":
            self.monkeypatch.setenv(*words[1].split("=", 1))
            return ""
        if "--live" in words:
            return self._open_live(command)
        if words[0] != "scanrnn" or OWN_PROCESS.search(command):
            return self._run_by_the_shell(command)
        return self._run_in_this_process(command, words)

    def _run_by_the_shell(self, command: str) -> str:
        own = doc_places.own_environment(self.folder)
        done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, timeout=200, env=own)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def _run_in_this_process(self, command: str, words: list[str]) -> str:
        expected = re.search(r"#.*exit code ([0-9])", command)
        with self.monkeypatch.context() as told:
            for name, value in doc_places.told_to(command).items():
                told.setenv(name, value)
            code = cli.run(next(scanrnn_commands(command)))
        out, err = self.capsys.readouterr()
        assert code == (int(expected.group(1)) if expected else 0), (command, out, err)
        if ">" in words:
            Path(words[words.index(">") + 1]).write_text(out)
        return out

    def _open_live(self, command: str) -> str:
        """Open the page that a command serves, then press Ctrl-C."""
        own = {**doc_places.own_environment(self.folder), "PYTHONUNBUFFERED": "1"}
        serving = subprocess.Popen(["bash", "-euc", f"exec {command}"], stdout=-1, stderr=-2, text=True, env=own)
        assert serving.stdout is not None
        watch = Timer(60, serving.kill)
        watch.start()
        try:
            lines = []
            while not (found := re.search(r"http://127\.0\.0\.1:[0-9]+/", "".join(lines))):
                assert lines == [] or lines[-1], lines
                lines.append(serving.stdout.readline())
            with urlopen(found.group(), timeout=60) as page:
                assert b'id="live"' in page.read()
            serving.send_signal(signal.SIGINT)
            lines.append(serving.communicate()[0])
            assert serving.returncode == 0 and "Traceback" not in lines[-1], lines
        finally:
            watch.cancel()
            serving.kill()
            serving.wait()
            serving.stdout.close()
        return "".join(lines)


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Place:
    """A folder with programs and recordings; `arrange` adds what a page wants besides."""
    monkeypatch.chdir(tmp_path)
    doc_places.put_programs(tmp_path / "bin")
    doc_places.put_recordings(tmp_path)
    return Place(tmp_path, monkeypatch, capsys)


def arrange(page: Path, place: Place, request: pytest.FixtureRequest, held: ExitStack) -> None:
    """Put what the page takes for granted, and begin the servers that it names."""
    text = "".join(text for _, _, text in blocks(page))
    if "japanese_vowels" in text and page.stem == "training":
        (place.folder / "japanese_vowels").symlink_to(request.getfixturevalue("shared_data") / "japanese_vowels")
    if page.stem in doc_places.FILES:
        doc_places.FILES[page.stem](place.folder)
    if "s3://" in text:
        place.s3 = request.getfixturevalue("s3")
        doc_places.put_bucket(place.s3, place.folder)
        address = f"http://127.0.0.1:{place.s3.port}"
        place.monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        place.shown[doc_places.MINIO] = address
    if doc_places.RAY in text:
        place.shown[doc_places.RAY] = held.enter_context(doc_places.ray_node())
    place.capsys.readouterr()


@pytest.mark.soak
@pytest.mark.parametrize("page", STORIES, ids=name_of)
def test_the_blocks_of_a_page_work_in_their_order(page: Path, place: Place, request: pytest.FixtureRequest) -> None:
    said, outputs, destination = "", [], ANEW.get(name_of(page), "")
    sources.command_line_in_this_process(place.monkeypatch, columns=120)
    with ExitStack() as held:
        arrange(page, place, request, held)
        for kind, title, text in blocks(page):
            if kind == "toml" and title:
                (place.folder / title).write_text(text)
            elif kind == "python":
                run_python(text, page)
            elif kind == "sh":
                said = ""
                for command in (command for command in commands(text) if entry_of(command) is None):
                    begins_anew = destination and re.search(rf"featurize.*\b{destination}\b", command)
                    if begins_anew:
                        doc_places.without_output(destination, place.s3)
                    said += place.run(command)
                    if begins_anew:
                        outputs.append(doc_places.output_of(destination, place.s3))
            elif kind == "text":
                check_shown(text, said)
    if destination == "features":
        assert all(output == outputs[0] for output in outputs)
    if page.stem == "layouts":
        check_layouts(place.folder)


def run_python(text: str, page: Path) -> None:
    """Run a block of Python, unless a package that it imports is missing."""
    for name in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE):
        pytest.importorskip(name)
    exec(compile(text, str(page), "exec", dont_inherit=True), {})


def check_shown(text: str, said: str) -> None:
    """Each line that a page shows was printed; see `NEARLY`."""
    assert said, ("no block that runs here comes before this text", text)
    printed = [line.strip() for line in said.splitlines()]
    for line in {line.strip() for line in text.splitlines()} - {"", "..."}:
        assert any(_alike(line, other) for other in printed), (line, said)


def _alike(shown: str, printed: str) -> bool:
    pairs = zip(FIGURE.findall(shown), FIGURE.findall(printed), strict=False)
    are_near = all(abs(float(one) - float(other)) <= NEARLY for one, other in pairs)
    return are_near and FIGURE.sub("figure", shown) == FIGURE.sub("figure", printed)


def check_layouts(folder: Path) -> None:
    """All layouts of the page give the features of the first one."""
    features = {out.name: features_of(out) for out in folder.glob("*-out")}
    nested = features.pop("nested-out")
    assert len(features) == 8
    for own in features.values():
        assert set(own.items()) <= set(nested.items())


def features_of(out: Path) -> dict[str, tuple[float, ...]]:
    """The features of each row of an output, by its id."""
    table = pq.read_table(out)
    return dict(zip(table["id"].to_pylist(), map(tuple, table["features"].to_pylist()), strict=True))


def test_a_text_that_was_not_printed_is_found() -> None:
    check_shown("random  256  0.965\n...\n", "data set\n random  256  0.968 \n")
    for text, said in (("random  256  0.965", "random  256  0.985"), ("a", "b"), ("a", "")):
        with pytest.raises(AssertionError):
            check_shown(text, said)


def test_pages_that_another_test_runs() -> None:
    everything = {name_of(page): page for page in PAGES}
    for name, path in RUN_BY_ANOTHER_TEST.items():
        assert everything[name] and (ROOT / path).exists()
    ours, shown = (
        [text for kind, _, text in blocks(everything[name]) if kind == "sh"]
        for name in ("pipelines/README", "docs/training")
    )
    assert set(ours) <= set(shown)
