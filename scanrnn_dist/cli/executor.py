"""Who does the work of a command, as its flags say: this process, processes of this machine, or a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanrnn_dist.errors import ConfigError, flag_of

if TYPE_CHECKING:
    from scanrnn_dist.job import Executor


def executor_of(
    engine: str, processes: int | None, devices: int | None, ray: dict[str, Any], is_traced: bool = False
) -> Executor | None:
    """The executor; None for this process.

    Args:
        engine: "local" or "ray".
        processes: of this machine; one per GPU when None.
        devices: CPU devices of each process.
        ray: the options of `RayExecutor` that were given.
        is_traced: whether this process is to be traced, so that it does the work.

    Raises:
        ConfigError: an engine that there is none of, flags of another one, or a trace where others work.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine is {engine!r}; expected local or ray.")
    if is_traced and (engine == "ray" or processes is not None):
        raise ConfigError(
            "--profile traces this process, but with --processes or --engine ray others compute; leave one out."
        )
    if engine == "ray":
        if processes is not None or devices is not None:
            raise ConfigError("--processes and --devices are for this machine; with --engine ray say --workers.")
        from scanrnn_dist.launch import RayExecutor

        return RayExecutor(**ray)
    if ray:
        names = ", ".join(map(flag_of, ray))
        raise ConfigError(f"{names} is for --engine ray, which was not given.")
    from scanrnn_dist.launch import ProcessExecutor, visible_gpus

    if processes is None and (is_traced or len(visible_gpus()) < 2):
        return None
    return ProcessExecutor(processes, devices)
