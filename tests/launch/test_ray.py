"""`--engine ray`: commands as users run them, on a real cluster of two nodes; actors, nodes and drivers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from sources import parts_of, random_rows, write_source

from scanrnn_dist import scan_rnn_forward
from scanrnn_dist.cli.run_options import RunFlags
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.job import HandOut, read_status
from scanrnn_dist.launch import RayExecutor
from scanrnn_dist.launch.ray import RayPool
from scanrnn_dist.launch.ray_actor import use_devices

# Ray forks to start its processes, of which JAX warns wherever it runs; what is forked here becomes another program.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

ROOT = Path(__file__).parents[2]
UNITS = 320
LIMIT_SECONDS = 300
NODE = {"num_cpus": 2, "object_store_memory": 80 << 20}


class TwoNodes:
    """A cluster of two nodes with 2 CPUs each, which was begun in another folder than the commands are."""

    def __init__(self) -> None:
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.second = self.cluster.add_node(**NODE)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def remove_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)

    def add_second(self) -> None:
        self.second = self.cluster.add_node(**NODE)

    def actors(self) -> list[int]:
        """The processes of our workers, on all nodes."""
        raylets = [
            process.process.pid
            for node in self.cluster.list_all_nodes()
            for process in node.all_processes.get("raylet", [])
        ]
        found = []
        for raylet in raylets:
            for child in children_of(raylet):
                with suppress(FileNotFoundError, ProcessLookupError):
                    if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::Actor"):
                        found.append(child)
        return found


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]'.")
    nodes = TwoNodes()
    yield nodes
    nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 units of 15 rows, each of which takes some milliseconds."""
    rows = random_rows(np.random.default_rng(0).integers(1, 600, 15 * UNITS))
    return write_source(tmp_path_factory.mktemp("source") / "a.parquet", rows, row_group_size=15)


def command(source: Path, out: Path, *flags: str) -> list[str]:
    """A job of one lane shape, whatever the number of devices."""
    shape = ("--hidden", "32", "--rows-per-part", "15", "--lanes", "8")
    return [sys.executable, "-m", "scanrnn_dist", "featurize", str(source), out.name, *shape, *flags]


def on(nodes: TwoNodes, workers: int) -> list[str]:
    return ["--engine", "ray", "--address", nodes.address, "--workers", str(workers)]


def run(source: Path, out: Path, *flags: str, expected: int = 0) -> str:
    """What a command says that runs where `out` is, and names it from there."""
    done = subprocess.run(
        command(source, out, *flags), cwd=out.parent, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """The parts of one process with one device."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(source, out, "--devices", "1")
    return parts_of(out)


def disturbed(
    source: Path, out: Path, flags: list[str], disturb: Callable[[subprocess.Popen[str]], None]
) -> tuple[int, str]:
    """The exit code of a command that something happened to once it had made some parts, and what it said."""
    before = len(list(out.glob("part-*")))
    process = subprocess.Popen(command(source, out, *flags), cwd=out.parent, text=True, stdout=-1, stderr=-1)
    until = time.monotonic() + LIMIT_SECONDS
    while len(list(out.glob("part-*"))) < before + 5:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    disturb(process)
    told, said = process.communicate(timeout=LIMIT_SECONDS)
    assert "Traceback" not in said, said
    return process.returncode, told + said


def wait_until_up(nodes: TwoNodes, workers: int, process: subprocess.Popen[str]) -> None:
    """The first parts may all be of one worker, while others still start: on a busy machine that takes seconds."""
    until = time.monotonic() + LIMIT_SECONDS
    while len(nodes.actors()) < workers:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)


def assert_nobody_is_left(nodes: TwoNodes) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while nodes.actors():
        assert time.monotonic() < until, "a worker is left over"
        time.sleep(0.05)


@pytest.mark.soak
def test_four_actors_one_of_which_is_killed_make_the_parts_of_one_device(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], nodes: TwoNodes
) -> None:
    out, before = tmp_path / "out", list[int]()

    def kill_one(process: subprocess.Popen[str]) -> None:
        wait_until_up(nodes, 4, process)
        before.extend(nodes.actors())
        os.kill(before[0], signal.SIGKILL)

    code, said = disturbed(source, out, on(nodes, 4), kill_one)
    assert code == 0, said
    assert len(before) == 4 and "Another one takes its place." in said
    assert parts_of(out) == undisturbed
    assert_nobody_is_left(nodes)


@pytest.mark.soak
def test_a_driver_that_is_killed_is_gone_on_with_on_ray_whose_node_is_removed_and_then_without_ray(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], nodes: TwoNodes
) -> None:
    def remove_node(process: subprocess.Popen[str]) -> None:
        wait_until_up(nodes, 4, process)
        nodes.remove_second()

    out = tmp_path / "out"
    assert disturbed(source, out, on(nodes, 2), lambda process: process.kill())[0] == -signal.SIGKILL
    assert_nobody_is_left(nodes)
    # Five parts were named; of each of the two workers, the last one may not have been recorded yet.
    assert 5 - 2 <= read_status(out).units_committed < UNITS
    try:
        code, said = disturbed(source, out, on(nodes, 4), remove_node)
    finally:
        nodes.add_second()
    # Nobody need say that workers died: where they had begun nothing yet, the others may be done before Ray tells it.
    assert code == 0 and "rows were there before" in said, said
    assert parts_of(out) == undisturbed
    assert "Nothing to do" in run(source, out, "--devices", "1")


@pytest.mark.soak
def test_what_ray_began_one_process_finishes_and_the_other_way_round(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], nodes: TwoNodes
) -> None:
    out = tmp_path / "out"
    code, said = disturbed(source, out, on(nodes, 2), lambda process: process.terminate())
    assert code == 4 and "To continue, run the same command" in said, said
    status = read_status(out)
    assert status.state == "stopped" and 5 <= status.units_committed < UNITS
    assert_nobody_is_left(nodes)
    assert "rows were there before" in run(source, out, "--devices", "2")
    assert parts_of(out) == undisturbed
    other = tmp_path / "other"
    disturbed(source, other, ["--devices", "1"], lambda process: process.kill())
    assert "rows were there before" in run(source, other, *on(nodes, 2))
    assert parts_of(other) == undisturbed


@pytest.mark.soak
def test_what_the_cluster_cannot_give_is_told(tmp_path: Path, source: Path, nodes: TwoNodes) -> None:
    words = ["--engine", "ray", "--address"]
    said = run(source, tmp_path / "out", *words, nodes.address, "--cpus-per-worker", "3", expected=2)
    assert "No node of the Ray cluster has room for a worker of 3 CPUs and 0 GPUs; its 2 nodes have 2 CPUs" in said
    said = run(source, tmp_path / "out", *words, "127.0.0.1:1", expected=2)
    assert "The Ray cluster 127.0.0.1:1 cannot be reached" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.sweep
def test_the_pipeline_gives_what_the_specification_gives(tmp_path: Path, nodes: TwoNodes) -> None:
    rows = random_rows((3, 0, 20), in_features=12)
    source = write_source(tmp_path / "in.parquet", rows, row_group_size=3)
    words = [sys.executable, ROOT / "pipelines" / "featurize_ray.py", source, tmp_path / "out", nodes.address]
    printed = subprocess.run(words, check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS).stdout
    assert "3 rows, 23 steps" in printed
    table = pq.read_table(tmp_path / "out")
    for row, features in zip(rows, table["features"].to_pylist(), strict=True):
        expected = scan_rnn_forward(0, row, 64, len(row))
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6)  # the bound of the design


@pytest.mark.sweep
def test_more_workers_than_there_is_room_for_wait_and_the_others_do_the_work(
    tmp_path: Path, source: Path, undisturbed: dict[str, bytes | None], nodes: TwoNodes
) -> None:
    said = run(source, tmp_path / "out", *on(nodes, 9))
    assert parts_of(tmp_path / "out") == undisturbed, said
    assert_nobody_is_left(nodes)


@pytest.mark.sweep
def test_workers_for_whom_there_is_no_room_at_all_are_waited_for_and_ctrl_c_ends_that(
    tmp_path: Path, source: Path, nodes: TwoNodes
) -> None:
    words = command(source, tmp_path / "out", *on(nodes, 1), "--cpus-per-worker", "3")
    process = subprocess.Popen(words, cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.readline()
    assert (
        "1 of 1 workers are not up after 10 s. Each takes 3 CPUs and 0 GPUs of one node; the Ray cluster has 4 CPUs "
        "(4 free) and 0 GPUs (0 free). Nothing is done before one is up." in told
    )
    assert "not up after 20 s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_SECONDS) == 4
    process.stderr.close()


@pytest.mark.sweep
def test_a_gpu_that_jax_does_not_find_is_told(tmp_path: Path, source: Path, nodes: TwoNodes) -> None:
    third = nodes.cluster.add_node(**NODE, num_gpus=2)  # as Ray is told; there may be none
    try:
        words = ["--engine", "ray", "--address", nodes.address, "--gpus-per-worker", "1"]
        said = run(source, tmp_path / "out", *words, expected=2)
    finally:
        nodes.cluster.remove_node(third, allow_graceful=False)
    assert "Ray gave the worker a GPU, and JAX finds none" in said and "scanrnn_dist[cuda]" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.sweep
def test_a_cluster_whose_head_is_gone_ends_the_command_in_order(tmp_path: Path, source: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]'.")
    nodes = TwoNodes()
    address = nodes.address
    try:
        words = command(source, tmp_path / "out", *on(nodes, 1), "--cpus-per-worker", "3")
        process = subprocess.Popen(words, cwd=tmp_path, text=True, stderr=subprocess.PIPE)
        assert process.stderr is not None and "Nothing is done" in process.stderr.readline()
        nodes.cluster.head_node.kill_gcs_server()
        said = process.communicate(timeout=LIMIT_SECONDS)[1]
        assert process.returncode == 4 and f"The head of the Ray cluster at {address} is gone" in said, said
    finally:
        nodes.cluster.shutdown()


@pytest.mark.sweep
def test_ctrl_c_in_a_terminal_with_a_cluster_of_the_command_itself(tmp_path: Path, source: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]'.")
    words = command(source, tmp_path / "out", "--engine", "ray", "--address", "local", "--workers", "2")
    process = subprocess.Popen(words, cwd=tmp_path, text=True, stderr=-1, stdout=-1, start_new_session=True)
    while not list((tmp_path / "out").glob("part-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=LIMIT_SECONDS)[1]
    assert process.returncode == 4 and "Traceback" not in said, said
    assert read_status(tmp_path / "out").units_committed


def test_without_ray_it_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Ray is not installed; .*pip install -e '\.\[ray\]'"):
        RunFlags(engine="ray").executor()


class ClusterWithoutUs:
    """A cluster none of whose nodes can begin an actor of ours."""

    def __init__(self, exceptions: Any) -> None:
        self.ray: Any = self
        self.exceptions = exceptions

    def head_answers(self) -> bool:
        return False

    def put(self, value: Any) -> Any:
        return value

    def kill(self, actor: Any) -> None:
        pass

    def remote(self, *given: Any) -> Any:
        return self

    @property
    def answer(self) -> Any:
        return self

    def options(self, **given: Any) -> Any:
        return self

    def future(self) -> Future[Any]:
        told = Future[Any]()
        told.set_exception(self.exceptions.RayActorError(error_msg="No module scanrnn_dist", actor_init_failed=True))
        return told


def test_an_actor_that_cannot_begin_is_told_although_more_was_asked_of_it() -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]'.")
    pool = RayPool("local", 1, 1, 0)
    pool._cluster = cast(Any, ClusterWithoutUs(ray.exceptions))
    workers = HandOut(pool)
    workers._start_missing()
    workers._ask(workers._hands[0], "begin")
    with pytest.raises(ConfigError, match=r"cannot begin a worker.*No module scanrnn_dist"):
        workers._next()
    workers.close("")
    assert not pool._actors


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"address": "ray://head:10001"}, "is an address of Ray Client; expected HOST:PORT of the head"),
        ({"workers": 0}, "workers is 0; expected 1 or more"),
        ({"cpus_per_worker": 0}, "cpus_per_worker is 0; expected 1 or more"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1; expected 0 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayExecutor(**told)


def test_an_actor_has_the_devices_that_ray_gave_it() -> None:
    script = (
        "from scanrnn_dist.launch.ray_actor import use_devices; use_devices(3, 0); "
        "import jax; print(jax.local_device_count())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


@pytest.mark.parametrize(
    "chosen", [{"JAX_NUM_CPU_DEVICES": "2"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}]
)
def test_an_actor_leaves_the_devices_that_the_user_has_set(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "PJRT_"))}
    monkeypatch.setattr(os, "environ", environment | chosen)
    monkeypatch.delitem(sys.modules, "jax")  # as in a process that has not imported it; this one's devices stay
    use_devices(3, 0)
    assert os.environ == environment | chosen | {"PJRT_NPROC": "3", "JAX_PLATFORMS": "cpu"}
