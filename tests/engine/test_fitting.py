"""Lanes are halved until the devices have room for them: before a job begins, once, and it is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jax.sharding import AxisType, Mesh

from scanrnn_dist.api.data_sets import featurize
from scanrnn_dist.encoder import Encoder
from scanrnn_dist.engine import fitting
from scanrnn_dist.engine.compiled import CompiledWindow
from scanrnn_dist.engine.fitting import fitting_shape
from scanrnn_dist.engine.shapes import default_window_shape
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.protocols import WindowShape

D, H = 2, 5
FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2147483648 bytes.\nand more of it"


def mesh_of(devices: int = 2) -> Mesh:
    return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """CPU devices pass for accelerators whose programs run out of memory above so many lanes; all that were tried."""

    def lay(most_lanes: int, says: str = FULL) -> list[int]:
        tried: list[int] = []
        compile_it = CompiledWindow._compile

        def compiled(window: CompiledWindow) -> None:
            def too_large(*given: Any) -> Any:
                raise jax.errors.JaxRuntimeError(says)

            if window.shape.lanes <= most_lanes:
                compile_it(window)
            run_it = window.program if window.shape.lanes <= most_lanes else too_large

            def program(*given: Any) -> Any:
                tried.append(window.shape.lanes)
                return run_it(*given)

            window.program = program

        monkeypatch.setattr(CompiledWindow, "_compile", compiled)
        monkeypatch.setattr(fitting, "device_kind", lambda mesh: "gpu")
        return tried

    return lay


def test_lanes_are_halved_until_they_fit(small_memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    tried = small_memory(100)
    with caplog.at_level(logging.WARNING, "scanrnn_dist"):
        shape = fitting_shape(Encoder.from_seed(0, D, H), mesh_of(), WindowShape(256, 4, 3))
    assert shape == WindowShape(64, 4, 3) and tried == [256, 128, 64]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "256 lanes a device do not fit its memory; trying 128. (RESOURCE_EXHAUSTED" in said[0]
    assert "and more of it" not in said[0]


@pytest.mark.soak
def test_what_fits_is_tried_once_in_all_programs(small_memory: Any) -> None:
    tried = small_memory(128)
    both = Encoder.from_seed(0, D, H, bidirectional=True)
    assert fitting_shape(both, mesh_of(), WindowShape(128, 4, 3)) == WindowShape(128, 4, 3)
    assert tried == [128, 128]


def test_devices_without_room_for_the_least_are_told_of(small_memory: Any) -> None:
    small_memory(8)
    with pytest.raises(ConfigError, match=r"no memory for windows of 64 lanes.*2147483648 bytes.*--window-blocks"):
        fitting_shape(Encoder.from_seed(0, D, H), mesh_of(), WindowShape(128, 4, 3))


@pytest.mark.soak
def test_other_errors_are_not_taken_for_a_lack_of_memory(small_memory: Any) -> None:
    tried = small_memory(8, "INTERNAL: the device is lost")
    with pytest.raises(jax.errors.JaxRuntimeError, match="the device is lost"):
        fitting_shape(Encoder.from_seed(0, D, H), mesh_of(), WindowShape(128, 4, 3))
    assert tried == [128]


def test_a_cpu_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fitting, "_try_out")
    assert fitting_shape(Encoder.from_seed(0, D, H), mesh_of(), WindowShape(1 << 40, 4, 3)).lanes == 1 << 40


def test_a_job_keeps_the_lanes_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [np.random.default_rng(i).normal(size=(n, D)).tolist() for i, n in enumerate([3, 0, 20, 7])]
    column = pa.array(rows, pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet", row_group_size=1)
    encoder = Encoder.from_seed(0, D, H)
    sizes = []

    def halved(encoder: Encoder, mesh: Mesh, shape: WindowShape) -> WindowShape:
        sizes.append(shape.lanes)
        return WindowShape(shape.lanes // 2, shape.block_steps, shape.window_blocks)

    def began_with(out: str, **kwargs: Any) -> int:
        featurize(encoder, str(tmp_path / "in.parquet"), str(tmp_path / out), mesh=mesh_of(), rows_per_part=2, **kwargs)
        return int(json.loads((tmp_path / out / "__scanrnn/job.json").read_text())["window"]["lanes"])

    monkeypatch.setattr("scanrnn_dist.api.computation.fitting_shape", halved)
    assert began_with("halved") == sizes[0] // 2
    (tmp_path / "halved/_SUCCESS").unlink()
    (tmp_path / "halved/part-00001.parquet").unlink()
    assert began_with("halved") == sizes[0] // 2 and len(sizes) == 1, "it is not tried out again"
    shape = default_window_shape(mesh_of(), D, H)
    assert began_with("told", window_shape=shape) == shape.lanes and len(sizes) == 1, "what was chosen is not tried out"
    with pytest.raises(ConfigError, match="lanes"):
        began_with("halved", window_shape=shape)


@pytest.mark.parametrize("gib", [0.9, 15.75, 31.24, 94.74, 105.75])
@pytest.mark.parametrize(("kind", "most_lanes"), [("gpu", 4096), ("tpu", 2048)])
def test_windows_follow_from_the_memory(
    kind: str, most_lanes: int, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanrnn_dist.engine.shapes.device_kind", lambda mesh: kind)
    memory = int(gib * 2**30)
    for in_features, hidden in ((1, 8), (16, 512), (4096, 4096), (16, 65536)):  # a lane's bytes are a power of two
        shape = default_window_shape(mesh_of(), in_features, hidden, memory_bytes=memory)
        window_bytes = 4 * shape.lanes * shape.window_blocks * max(4 * in_features, hidden)
        assert window_bytes <= memory // 16 or (shape.lanes, shape.window_blocks) == (64, 8)
        assert 2 * window_bytes > memory // 16 or (shape.lanes, shape.window_blocks) == (most_lanes, 64)
        assert shape.lanes == most_lanes or shape.window_blocks == 8, "fewer blocks come before fewer lanes"
        assert shape == default_window_shape(mesh_of(), in_features, hidden, memory_bytes=memory - 2**20)
