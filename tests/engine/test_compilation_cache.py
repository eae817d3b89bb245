"""A second process compiles nothing and gives the same bits; a cache that others could write to is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from sources import encoder_of, features_of, mesh_of, needs_native, random_rows, some_lengths, write_source

from scanrnn_dist.api import featurize
from scanrnn_dist.cli.computation import AskedComputation
from scanrnn_dist.engine import compilation_cache
from scanrnn_dist.engine.compilation_cache import use_compilation_cache
from scanrnn_dist.engine.engine import Engine
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.protocols import WindowShape


@pytest.fixture(autouse=True)
def _jax_as_before(no_compilation_cache: None) -> Iterator[None]:
    names = [
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run(*arguments: Any) -> dict[str, Any]:
    """Featurize in a process of its own; the report."""
    command = [
        sys.executable,
        "-m",
        "scanrnn_dist",
        "featurize",
        *map(str, arguments),
        "--hidden",
        "5",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SIGILL" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.soak
@pytest.mark.parametrize("kernel", [pytest.param("native", marks=needs_native), "xla"])
def test_a_second_process_compiles_nothing_and_gives_the_same_bits(tmp_path: Path, kernel: str) -> None:
    source = write_source(tmp_path / "in.parquet", random_rows(some_lengths(12)))
    cache = ["--kernel", kernel, "--compilation-cache", tmp_path / "cache/of/mine"]
    assert run(source, tmp_path / "other", *cache, "--lanes", "7")["compilations"] == 1
    assert run(source, tmp_path / "first", *cache)["compilations"] == 1
    assert run(source, tmp_path / "second", *cache)["compilations"] == 0
    featurize(encoder_of(seed=0), source, tmp_path / "plain", mesh=mesh_of(1), kernel=kernel)
    bits = features_of(tmp_path / "plain").tobytes()
    assert bits == features_of(tmp_path / "first").tobytes() == features_of(tmp_path / "second").tobytes()
    for folder in (tmp_path / "cache/of/mine", *(tmp_path / "cache/of/mine").iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(ConfigError, match=f"Others may write to .*mode {mode:04o}.*chmod 700"):
        use_compilation_cache(tmp_path / "cache")
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_within_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    use_compilation_cache(tmp_path)
    of_machine = Path(jax.config.jax_compilation_cache_dir)
    assert of_machine.parent == tmp_path
    of_machine.chmod(0o777)
    with pytest.raises(ConfigError, match="Others may write to"):
        use_compilation_cache(tmp_path)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"belongs to user {owner}, and this is user {owner + 1}"):
        use_compilation_cache(tmp_path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no compilation cache at .*file: File exists"):
        use_compilation_cache(tmp_path / "file")


def test_a_second_cache_is_refused_and_the_same_one_is_not(tmp_path: Path) -> None:
    use_compilation_cache(tmp_path / "a")
    use_compilation_cache(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"JAX has the compilation cache .*a.* already"):
        use_compilation_cache(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_each_kind_of_cpu_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Path, "read_text", lambda path: "processor : 0\nflags : fpu sse\nprocessor : 1\nflags : fpu sse"
    )
    small = compilation_cache._machine()
    monkeypatch.setattr(Path, "read_text", lambda path: "processor : 0\nflags : fpu sse avx512f")
    assert compilation_cache._machine() != small


def test_a_folder_of_a_user_who_has_no_home_is_taken_as_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use_compilation_cache("~no-such-user/cache")
    assert Path(jax.config.jax_compilation_cache_dir).parent == tmp_path / "~no-such-user/cache"
    asked = AskedComputation(None, 4, 0, {}, None, Path("~no-such-user/cache"))
    assert asked._cache == tmp_path / "~no-such-user/cache"


def test_cache_hits_of_other_threads_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener hears every thread of the process; here another one finds something while this one compiles."""
    register = jax.monitoring.register_event_listener

    def register_and_hear(listen: Any) -> None:
        register(listen)
        other = threading.Thread(target=jax.monitoring.record_event, args=("/jax/compilation_cache/cache_hits",))
        other.start()
        other.join()

    monkeypatch.setattr(jax.monitoring, "register_event_listener", register_and_hear)
    assert Engine(encoder_of(), mesh_of(1), WindowShape(lanes=3, block_steps=2, window_blocks=5)).compilations == 1
