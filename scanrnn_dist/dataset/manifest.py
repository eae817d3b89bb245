"""The records of a job, `DST/_scanrnn/`: what was to be done, which parts stand, and that all of them do.

    DST/_scanrnn/job.json               configuration, versions, source
    DST/_scanrnn/files.parquet          the files of the source
    DST/_scanrnn/units.parquet          the units; with the files, the plan
    DST/_scanrnn/parts.jsonl            one line per finished part: unit, name, rows, size, hash
    DST/_scanrnn/encoder.safetensors    the encoder, where its cell can be written to a file
    DST/_SUCCESS                        appears last: totals, and the hash of parts.jsonl

Readers of Parquet data sets skip names that begin with `_`. What a part is stands in `writer.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanrnn_dist.dataset.plan_records import FILES, UNITS
from scanrnn_dist.dataset.writer import PartRecord, write_file
from scanrnn_dist.errors import ConfigError, DataError, StoppedError

RECORDS = "_scanrnn"
SUCCESS = "_SUCCESS"
JOB_FIELDS = {"format", "encoder", "options", "source"}


@dataclass(frozen=True)
class Manifest:
    """The records under one destination.

    Args:
        destination: the folder of the output data set.
    """

    destination: Path

    @property
    def encoder_path(self) -> Path:
        """Where the job's encoder is kept."""
        return self.destination / RECORDS / "encoder.safetensors"

    @property
    def is_complete(self) -> bool:
        """Whether the job was finished."""
        return (self.destination / SUCCESS).exists()

    def create(self) -> None:
        """Make the folders; raises `ConfigError` if the destination is a file or holds anything at all."""
        if self.destination.exists() and not self.destination.is_dir():
            raise ConfigError(f"The destination {self.destination} is a file; expected a folder that is new or empty.")
        held = sorted(entry.name for entry in self.destination.iterdir()) if self.destination.exists() else []
        if held:
            state = "" if RECORDS not in held else " (a finished run)" if SUCCESS in held else " (an unfinished run)"
            raise ConfigError(
                f"The destination {self.destination} holds {len(held)} entries{state}, such as {held[0]!r}, "
                "and nothing is ever overwritten. Choose another, or remove it."
            )
        try:
            (self.destination / RECORDS).mkdir(parents=True)
        except OSError as error:
            raise ConfigError(f"The destination {self.destination} cannot be made: {error.strerror}.") from error

    def write_job(self, job: dict[str, Any]) -> None:
        """Record what is to be done."""
        write_file(self.destination / RECORDS / "job.json", json.dumps(job, indent=1).encode())

    def read_job(self) -> dict[str, Any]:
        """What was to be done; raises `ConfigError` where no job was ever started."""
        path = self.destination / RECORDS / "job.json"
        try:
            return _checked_object(path, path.read_bytes(), JOB_FIELDS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(f"{self.destination} is no output of a job: there is no {path}.") from error

    def write_plan(self, records: Mapping[str, bytes]) -> None:
        """Record the plan: content by names of files."""
        for name, content in records.items():
            write_file(self.destination / RECORDS / name, content)

    def read_plan(self) -> dict[str, bytes]:
        """The records of the plan that are there."""
        paths = (self.destination / RECORDS / name for name in (FILES, UNITS))
        return {path.name: path.read_bytes() for path in paths if path.exists()}

    def append_part(self, unit: int, part: PartRecord) -> None:
        """Record that the part of a unit stands."""
        line = json.dumps({"unit": unit, **dataclasses.asdict(part)}) + "\n"
        path = self.destination / RECORDS / "parts.jsonl"
        try:
            with open(path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoppedError(f"{path} could not be written: {error.strerror}.") from error

    def read_parts(self) -> dict[int, PartRecord]:
        """The parts that stand, by the number of their unit."""
        path = self.destination / RECORDS / "parts.jsonl"
        parts = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            record = _checked_object(path, line, {"unit", *PartRecord.__dataclass_fields__})
            unit = record.pop("unit")
            parts[unit] = PartRecord(**record)
        return parts

    def parts_sha256(self) -> str:
        """SHA-256 of the list of parts, in hexadecimal."""
        path = self.destination / RECORDS / "parts.jsonl"
        return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()

    def write_success(self, totals: dict[str, Any]) -> None:
        """Say that the job is finished; the last thing that is written."""
        content = {"parts_sha256": self.parts_sha256(), **totals}
        write_file(self.destination / SUCCESS, json.dumps(content, indent=1).encode())

    def read_success(self) -> dict[str, Any]:
        """The totals; raises `DataError` if the job was not finished or the list of parts changed since."""
        path = self.destination / SUCCESS
        try:
            totals = _checked_object(path, path.read_bytes(), {"parts_sha256", "rows"})
        except FileNotFoundError as error:
            raise DataError(f"{self.destination} is not finished: there is no {path.name}.") from error
        if totals.get("parts_sha256") != self.parts_sha256():
            raise DataError(f"The list of parts {self.destination / RECORDS / 'parts.jsonl'} changed after the job.")
        return totals


def _checked_object(path: Path, content: bytes, fields: set[str]) -> dict[str, Any]:
    """A JSON object with at least these fields, or a `DataError` that names the file."""
    try:
        read = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(read, dict) or not fields <= read.keys():
        raise DataError(f"{path} is damaged: it holds {content[:80]!r}; expected an object with {sorted(fields)}.")
    return read
