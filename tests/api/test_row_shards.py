"""Global arrays: each process encodes the rows that it holds, and their features stay on the same devices."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scanrnn_dist.api.arrays import encode
from scanrnn_dist.api.row_shards import shards_of
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.protocols import WindowShape

D, H, STEPS = 2, 5, 9
ENCODER = Encoder.from_seed(1, D, H)
SHAPE = WindowShape(2, 4, 4)
PADDED = np.random.default_rng(0).normal(size=(8, STEPS, D)).astype(np.float32)
LENGTHS = np.array([3, 0, 9, 1, 7, 5, 2, 8])
CARRIES = np.random.default_rng(1).normal(size=(8, H)).astype(np.float32)


def mesh_of(*shape: int, names: tuple[str, ...] = ("data",)) -> Mesh:
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))


def wanted(**kwargs: Any) -> np.ndarray:
    features = encode(ENCODER, PADDED, LENGTHS, mesh=mesh_of(2), window_shape=SHAPE, **kwargs)
    assert isinstance(features, np.ndarray)
    return features


@pytest.mark.parametrize(
    ("mesh", "spec", "expected_spec"),
    [
        (mesh_of(4), P("data"), P("data")),
        (mesh_of(1), P("data", None, None), P("data")),
        (mesh_of(2, 2, names=("rows", "other")), P("rows"), P("rows")),
        (mesh_of(2, 2, names=("a", "b")), P(("b", "a")), P(("b", "a"))),
    ],
    ids=["one axis", "one device", "replicas", "rows over two axes"],
)
def test_rows_sharded_over_a_mesh_come_back_sharded_alike(mesh: Mesh, spec: P, expected_spec: P) -> None:
    rows = jax.device_put(PADDED, NamedSharding(mesh, spec))
    features = encode(ENCODER, rows, LENGTHS, window_shape=SHAPE)
    assert isinstance(features, jax.Array)
    assert features.sharding == NamedSharding(mesh, expected_spec)
    np.testing.assert_array_equal(np.asarray(features).view(np.uint32), wanted().view(np.uint32))


def test_lengths_and_carries_may_be_sharded_too() -> None:
    rows, lengths, carries = (
        jax.device_put(array, NamedSharding(mesh_of(4), P("data"))) for array in (PADDED, LENGTHS, CARRIES)
    )
    features = encode(ENCODER, rows, lengths, window_shape=SHAPE, initial_carry=carries, mesh=mesh_of(3))
    np.testing.assert_array_equal(np.asarray(features), wanted(initial_carry=CARRIES))


def test_an_array_that_is_not_sharded_by_rows_gives_a_numpy_array_as_ever() -> None:
    for sharding in (NamedSharding(mesh_of(2), P()), jax.sharding.SingleDeviceSharding(jax.devices()[3])):
        features = encode(ENCODER, jax.device_put(PADDED, sharding), LENGTHS, window_shape=SHAPE)
        assert isinstance(features, np.ndarray)
        np.testing.assert_array_equal(features, wanted())


def test_errors_name_the_rows_that_are_meant() -> None:
    bad = PADDED.copy()
    bad[5, 2] = np.nan
    rows = jax.device_put(bad, NamedSharding(mesh_of(2), P("data")))
    with pytest.raises(DataError, match=r"process 0, which holds the rows 0 to 3, 4 to 7 of 8.*Sequence 5 holds a NaN"):
        encode(ENCODER, rows, LENGTHS)
    with pytest.raises(DataError, match=r"seq_lengths has shape \(3,\); expected one entry for each of 8 rows"):
        encode(ENCODER, rows, [1, 2, 3])


def test_carries_of_a_global_array_are_told_apart_from_what_is_no_array() -> None:
    rows = jax.device_put(PADDED, NamedSharding(mesh_of(2), P("data")))
    with pytest.raises(DataError, match=r"initial_carry.*masked"):
        encode(ENCODER, rows, LENGTHS, initial_carry=[np.ma.masked_array(row, row > 1.5) for row in CARRIES])
    with pytest.raises(DataError, match=r"initial_carry is no array of numbers: .* Expected one entry for each of 8"):
        encode(ENCODER, rows, LENGTHS, initial_carry=[CARRIES[0], [1.0]])


def test_carries_that_are_cut_within_a_row_are_put_together_and_those_of_other_rows_refused() -> None:
    mesh = mesh_of(2, 2, names=("data", "model"))
    rows, many = np.arange(48.0).reshape(8, 6), np.zeros((16, H))
    shards = shards_of(jax.device_put(PADDED, NamedSharding(mesh, P("data"))))
    assert shards is not None
    np.testing.assert_array_equal(
        shards.taken("x", jax.device_put(rows, NamedSharding(mesh, P("data", "model")))), rows
    )
    with pytest.raises(DataError, match=r"x has shape \(16, 5\); expected one entry for each of 8 rows"):
        shards.taken("x", jax.device_put(many, NamedSharding(mesh_of(4), P("data"))))


def test_rows_that_are_cut_are_refused() -> None:
    for spec in (P(None, None, "data"), P("data", None, "model")):
        mesh = mesh_of(2, 2, names=("data", "model"))
        cut = jax.device_put(PADDED, NamedSharding(mesh, spec))
        if spec[0] is None:
            assert isinstance(encode(ENCODER, cut, LENGTHS, window_shape=SHAPE), np.ndarray)  # all of it is here
        else:
            with pytest.raises(ConfigError, match=r"over \['model'\] within a row; expected rows that are whole"):
                encode(ENCODER, cut, LENGTHS)


def test_rows_over_an_axis_of_one_device_are_whole() -> None:
    mesh = mesh_of(2, 1, names=("data", "model"))
    rows = jax.device_put(PADDED, NamedSharding(mesh, P("data", None, "model")))
    found = encode(ENCODER, rows, LENGTHS, window_shape=SHAPE)
    np.testing.assert_array_equal(np.asarray(found), encode(ENCODER, PADDED, LENGTHS, window_shape=SHAPE))


def test_outputs_of_all_steps_are_refused() -> None:
    rows = jax.device_put(PADDED, NamedSharding(mesh_of(2), P("data")))
    with pytest.raises(ConfigError, match="no room for the outputs of all steps"):
        encode(Encoder.from_seed(1, D, H, readout="steps"), rows)


def test_a_column_is_refused_which_an_array_has_not() -> None:
    rows = jax.device_put(PADDED, NamedSharding(mesh_of(2), P("data")))
    with pytest.raises(ConfigError, match=r"column='x' was given, and the sequences are a global array"):
        encode(ENCODER, rows, LENGTHS, column="x")


PROCESS = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
port, process, wanted = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(process))
import scanrnn_dist as srd
from flax import nnx

told = np.load(wanted)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
def sharded(array, spec=P("data")):
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])

encoder = srd.Encoder.from_seed(1, 2, 5)
shape = srd.WindowShape(2, 4, 4)
rows = sharded(told["padded"])
assert not rows.is_fully_addressable
with jax.set_mesh(mesh):
    features = srd.encode(encoder, rows, sharded(told["lengths"]), window_shape=shape)
assert features.shape == (8, 5) and features.sharding == NamedSharding(mesh, P("data"))
mine = features.addressable_shards
assert len(mine) == 2
for shard in mine:
    np.testing.assert_array_equal(np.asarray(shard.data), told["features"][shard.index])
same = srd.encode(encoder, rows, told["lengths"], window_shape=shape)
assert all(np.array_equal(a.data, b.data) for a, b in zip(same.addressable_shards, mine))
first = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])  # of process 0
at = NamedSharding(first, P("data"))
there = jax.make_array_from_callback((8, 9, 2), at, lambda index: told["padded"][index], dtype=np.float32)
features = srd.encode(encoder, there, told["lengths"], window_shape=shape)
assert (features.shape, features.dtype, features.sharding) == ((8, 5), np.float32, at)
assert len(features.addressable_shards) == (2 if process == "0" else 0)
def with_weights(encoder, spec_of):
    graphdef, weights = nnx.split(encoder)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: sharded(np.asarray(leaf), spec_of(leaf)), weights))

replicated = with_weights(encoder, lambda leaf: P())
for kernel in ("xla", None):
    options = {"seq_lengths": told["lengths"], "window_shape": shape, "kernel": kernel}
    features, same = (srd.encode(one, told["padded"], **options) for one in (encoder, replicated))
    assert np.array_equal(features, same)
cut = with_weights(srd.Encoder.from_seed(1, 2, 4), lambda leaf: P(None, "data") if leaf.ndim == 2 else P())
steps_cut = sharded(told["padded"][:, :8], P(None, "data"))
for encoder, arguments, says in (
    (encoder, {"sequences": steps_cut}, "on devices of several processes"),
    (encoder, {"sequences": rows, "mesh": mesh}, "The mesh holds devices of processes"),
    (cut, {"sequences": told["padded"], "kernel": "xla"}, "expected weights that each process holds whole"),
    (cut, {"sequences": told["padded"]}, "expected weights that each process holds whole"),
):
    try:
        srd.encode(encoder, **arguments)
    except srd.ConfigError as error:
        assert says in str(error), error
    else:
        raise AssertionError(says)
print("same bits in process", process)
"""


@pytest.mark.soak
def test_two_processes_encode_the_rows_they_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "wanted.npz", padded=PADDED, lengths=LENGTHS, features=wanted())
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-c", PROCESS, str(port)]
    processes = [
        subprocess.Popen(
            [*command, str(process), str(tmp_path / "wanted.npz")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        for process, running in enumerate(processes):
            told, _ = running.communicate(timeout=120)
            assert running.returncode == 0, told
            assert f"same bits in process {process}" in told
    finally:
        for running in processes:
            running.kill()
