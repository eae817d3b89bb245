"""A mesh of the user's own: rows are shared out over its axis "data", and further axes repeat the work."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scanrnn_dist.api.arrays import encode
from scanrnn_dist.api.data_sets import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.run import Run
from scanrnn_dist.engine.same_bits import gives_same_bits
from scanrnn_dist.engine.smaller import SmallerPrograms, Worth
from scanrnn_dist.protocols import WindowShape
from scanrnn_dist.ragged import Ragged

D, H = 3, 6
SHAPE = WindowShape(4, 4, 8)
ROWS = [np.random.default_rng(n).normal(size=(n, D)).astype(np.float32) for n in (0, 1, 3, 9, 40, 7, 100, 2) * 3]


def mesh_of(sizes: tuple[int, ...], names: tuple[str, ...], kind: AxisType = AxisType.Auto) -> Mesh:
    devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
    return Mesh(devices, names, axis_types=(kind,) * len(names))


def encoder_of() -> Encoder:
    """Of the cells, this one is compiled in the least time."""
    return Encoder.from_seed(0, D, H, cell="rnn")


def features_of(mesh: Mesh, encoder: Encoder | None = None) -> np.ndarray:
    features = encode(encoder or encoder_of(), ROWS, mesh=mesh, window_shape=SHAPE, kernel="xla")
    assert isinstance(features, np.ndarray)
    return features.view(np.uint32)


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return features_of(mesh_of((2,), ("data",)))


@pytest.mark.parametrize("kind", [pytest.param(AxisType.Auto, marks=pytest.mark.soak), AxisType.Explicit])
@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        ((2, 2, 2), ("a", "data", "b")),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in (((2, 4), ("data", "model")), ((2, 2), ("replica", "data")))
        ),
    ],
)
def test_further_axes_repeat_the_work_and_change_no_bit(
    sizes: tuple[int, ...], names: tuple[str, ...], kind: AxisType, wanted: np.ndarray
) -> None:
    mesh = mesh_of(sizes, names, kind)
    np.testing.assert_array_equal(features_of(mesh), wanted)


def test_a_mesh_that_is_set_for_all_changes_nothing(wanted: np.ndarray) -> None:
    everywhere = mesh_of((4, 2), ("data", "model"), AxisType.Explicit)
    with jax.set_mesh(everywhere):
        shape = WindowShape(4, 4, 9)  # compiled within
        features = encode(encoder_of(), ROWS, mesh=mesh_of((2,), ("data",)), window_shape=shape, kernel="xla")
        assert isinstance(features, np.ndarray)
        np.testing.assert_array_equal(features.view(np.uint32), wanted)


@pytest.mark.parametrize("kind", [pytest.param(AxisType.Auto, marks=pytest.mark.soak), AxisType.Explicit])
def test_a_mesh_that_is_set_for_all_changes_nothing_in_windows_as_of_accelerators(
    kind: AxisType, wanted: np.ndarray
) -> None:
    mesh, probed = mesh_of((2,), ("data",), kind), []

    def taken(usual: CompiledWindow, smaller: CompiledWindow) -> bool:
        """Whatever the probe says, which is up to the version of XLA here."""
        probed.append(gives_same_bits(usual, smaller))
        return True

    with jax.set_mesh(mesh_of((4, 2), ("data", "model"), AxisType.Explicit)):
        engine = CompiledWindow(encoder_of(), mesh, WindowShape(4, 4, 9), is_static=True)
        features = np.empty((len(ROWS), H), np.float32)
        with closing(Run(engine)) as run:
            run._smaller = SmallerPrograms(engine, Worth(0, 0, 0), taken)
            run.submit(Ragged.from_sequences(ROWS), out=features)
            run.results()
        assert run.engine.shape == WindowShape(4, 4, 1) and probed
    np.testing.assert_allclose(features, wanted.view(np.float32), rtol=0, atol=0 if all(probed) else 1e-6)


@pytest.mark.soak
def test_weights_may_be_sharded_over_the_other_axis(wanted: np.ndarray) -> None:
    from flax import nnx

    mesh = mesh_of((2, 2), ("data", "model"))
    encoder = encoder_of()
    over_model = NamedSharding(mesh, P(None, "model"))
    weights = nnx.state(encoder, nnx.Param)
    nnx.update(encoder, jax.tree.map(lambda w: jax.device_put(w, over_model) if w.ndim == 2 else w, weights))
    np.testing.assert_array_equal(features_of(mesh, encoder), wanted)


@pytest.mark.soak
def test_a_job_gives_the_same_parts_on_a_mesh_of_two_axes(tmp_path: Path) -> None:
    column = pa.array([row.tolist() for row in ROWS], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet")
    for name, mesh in (("one", mesh_of((8,), ("data",))), ("two", mesh_of((2, 4), ("data", "model")))):
        featurize(
            encoder_of(),
            tmp_path / "in.parquet",
            tmp_path / name,
            mesh=mesh,
            window_shape=SHAPE,
            kernel="xla",
        )
    one, two = ((tmp_path / name / "part-00000.parquet").read_bytes() for name in ("one", "two"))
    assert one == two
