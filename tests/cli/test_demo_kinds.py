"""The demo's recordings are the same numbers in each way in which they can stand in Parquet."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from scanrnn_dist.cli import first_steps
from scanrnn_dist.cli.demo import FLAGS, KINDS, make_source, options_of
from scanrnn_dist.job import in_features_of, plan_job
from scanrnn_dist.source import ReadOptions, read_chunks


def recordings(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """What a job would compute, by the recording's name."""
    make_source(folder, 13, 3, kind)
    plan = plan_job(str(folder), options_of(kind))
    kept = ["id", "kind"]
    chunks = read_chunks(plan.source, plan.units, ReadOptions(plan.layout, kept, in_features_of(plan)))
    return {
        name: np.asarray(chunk.sequences.row(row))
        for chunk in chunks
        for row, name in enumerate(chunk.kept["id"].to_pylist())
    }


@pytest.mark.parametrize("kind", KINDS[1:])
def test_each_kind_holds_the_same_recordings(kind: str, tmp_path: Path) -> None:
    expected, found = recordings(tmp_path / "sensors", "sensors"), recordings(tmp_path / kind, kind)
    assert list(found) == list(expected) and len(found) == 13
    for name, steps in expected.items():
        np.testing.assert_array_equal(found[name], steps)
    table = pq.read_table(tmp_path / kind)
    assert set(table["kind"].to_pylist()) == {"fan", "pump", "valve"}


@pytest.mark.soak  # the first kind, which is the default: test_demo_ends_well_and_its_output_verifies
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_demo_runs_on_each_kind_and_names_flags_that_read_it(kind: str, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "scanrnn_dist", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("demo", "--kind", kind, "--rows", "60")
    assert f"plan scanrnn-demo/recordings{FLAGS[kind]}\n" in said
    assert "60" in run("plan", "scanrnn-demo/recordings", *FLAGS[kind].split())


def test_a_demo_that_was_called_as_a_module_names_commands_that_are_so() -> None:
    told = first_steps._as_called("scanrnn", str(Path(first_steps.__file__).parents[1] / "__main__.py"))
    assert told.endswith(" -m scanrnn_dist") and not told.startswith("scanrnn")


def test_a_program_at_a_place_with_a_blank_is_named_as_one_word(tmp_path: Path) -> None:
    (word,) = shlex.split(first_steps._as_called("python", str(tmp_path / "a b/python")))
    assert Path(word).resolve() == tmp_path / "a b/python"


def test_a_python_that_an_environment_links_to_is_not_called_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same file, and has not the packages of the environment."""
    base, of_environment = tmp_path / "base/python", tmp_path / "venv/python"
    for path in (base, of_environment):
        path.parent.mkdir()
    base.write_text("")
    base.chmod(0o755)
    of_environment.symlink_to(base)
    monkeypatch.setenv("PATH", str(base.parent))
    monkeypatch.chdir(tmp_path)
    assert first_steps._as_called("python", str(of_environment)) == "venv/python"
    assert first_steps._as_called("python", str(base)) == "python"
