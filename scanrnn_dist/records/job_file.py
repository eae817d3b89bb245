"""The record of a job: what is to be done, and that all of it is done.

Where it stands says `names.py`, what it holds of files and units `plan_file.py`, what attempts write `attempt_log.py`.

The protocol. A part is written aside, synced and named, then a commit record is appended. Whatever dies in between is
done again: a part of a unit has the same bytes whenever it is made in one environment, so a second one changes nothing,
and a record that is missing costs the work of one unit. Of several records of a unit the latest counts. Records are
only added to, by one attempt each, so no lease guards them; the lease of `lease.py` saves double work. Before a part is
named, `check_is` sees that the job is still the same, and `check_named` does so afterwards.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from scanrnn_dist.errors import ConfigError, DataError, StoppedError
from scanrnn_dist.records.names import ENCODER, JOB, PARTS, RECORDS, SUCCESS, UNITS, plan_name, unit_of_part
from scanrnn_dist.records.plan_file import hashes_of, read_weights
from scanrnn_dist.storage import Check, Store, is_uri

logger = logging.getLogger("scanrnn_dist")

JOB_FORMAT = "scanrnn_dist.job/4"
_JOB_FIELDS = {"id", "format", "encoder", "options", "window", "environment", "plan"}


@dataclass(frozen=True)
class JobRecords:
    """The records under one destination; `guard` raises once what they are of may not be worked on any more."""

    store: Store
    guard: Check | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the job was finished."""
        return self.store.exists(SUCCESS)

    @property
    def has_encoder(self) -> bool:
        """Whether the encoder is with the records."""
        return self.store.exists(ENCODER)

    def beside(self) -> Iterator[str]:
        """The names of what stands at the destination beside the records."""
        return (name for name, _ in self.store.entries() if name != f"{RECORDS}/")

    def check_is_free(self) -> None:
        """Raise `ConfigError` if the destination holds anything but records without a job."""
        held = sorted(self.beside())
        if held:
            raise ConfigError(
                f"The destination {self.store.root} holds {len(held)} entries, such as {held[0]!r}, and no job; "
                "nothing is ever overwritten. Choose another, or remove it."
            )

    def create_job(self, job: dict[str, Any], plan: Mapping[str, bytes], replaces: str = "") -> dict[str, Any]:
        """Record what is to be done, the plan first; returns the job that stands, which another may have recorded.

        Processes that begin the same write the same, id and all, in whatever order: so they are of one job. Of two that
        differ only one finds its own in `job.json`.

        Args:
            job: all of it but its id and its plan. An amended one tells as "accepted" which changes of its source were.
            plan: the records of its plan.
            replaces: the id of the job whose place it is to take, which it must be told from even where it is the same.
        """
        self.store.prepare()
        hashes = hashes_of(plan)
        told = {**job, "plan": hashes}
        id = hashlib.sha256(json.dumps([told, replaces], sort_keys=True).encode()).hexdigest()[:32]
        for name, content in plan.items():
            self.store.write(plan_name(name, hashes), content)
        content = json.dumps({"id": id, **told}, indent=1).encode()
        if self.store.create(JOB, content) and not self.store.is_exact(JOB, content):
            logger.warning(
                "%s is written without conditions, which its server passes over, or pyarrow does not know: two "
                "different jobs that begin there in the same second may mix. Begin one, then the others.",
                self.store.root,
            )
        stands = self.find_job()
        if stands is None:
            path = self.store.path(JOB)
            raise StoppedError(f"{path} was removed as soon as it was written. Start the command again.")
        return stands

    def read_job(self) -> dict[str, Any]:
        """What is to be done; raises `ConfigError` where no job was ever started."""
        job = self.find_job()
        if job is None:
            root, path = self.store.root, self.store.path(JOB)
            nor = "" if is_uri(root) or os.path.lexists(root) else "; the folder does not exist"
            raise ConfigError(f"{root} is no output of a job: there is no {path}{nor}.")
        return job

    def find_job(self) -> dict[str, Any] | None:
        """What is to be done; None where no job was ever started.

        Raises `DataError` if the record is damaged, or of another format.
        """
        try:
            content = self.store.read(JOB)
        except (FileNotFoundError, NotADirectoryError):
            return None
        job = self._checked_object(JOB, content, {"format"})
        if job["format"] != JOB_FORMAT:
            raise DataError(
                f"{self.store.path(JOB)} is of format {job['format']!r}; expected {JOB_FORMAT!r}. Finish or verify it "
                "with the version that began it."
            )
        return self._with_fields(JOB, content, job, _JOB_FIELDS)

    def read_plan(self, job: dict[str, Any], *names: str) -> dict[str, bytes]:
        """Records of the plan, all if none is named, held against their hashes."""
        records = {}
        for name in names or tuple(job["plan"]):
            path = plan_name(name, job["plan"])
            try:
                records[name] = self.store.read(path)
            except FileNotFoundError as error:
                raise DataError(
                    f"{self.store.path(path)} is missing; expected the plan of the job. Bring it back, or begin anew "
                    "with --restart."
                ) from error
            if hashlib.sha256(records[name]).hexdigest() != job["plan"][name]:
                raise DataError(
                    f"{self.store.path(path)} is damaged: its SHA-256 is not that of {JOB}. Bring it back as it was, "
                    "or begin anew with --restart."
                )
        return records

    def write_success(self, parts: bytes, totals: dict[str, Any], check: Check | None = None) -> None:
        """Say that the job is finished; the last thing that is written."""
        self.store.write(PARTS, parts, check=check)
        self.write_totals({"parts_sha256": hashlib.sha256(parts).hexdigest(), **totals}, check)

    def write_totals(self, totals: dict[str, Any], check: Check | None = None) -> None:
        """The last step of `write_success`: the totals, which are taken back if the job was another one by then.

        Whoever stands still between the check and the writing may find that another job took the place: of that one
        the success would be a lie. The totals name who wrote them, so that what is taken back is its own.
        """
        job = self.find_job()
        content = json.dumps({**totals, "written_by": self.store.attempt}, indent=1).encode()
        self.store.write(SUCCESS, content, check=check)
        if job is None or not self._is(job):
            with suppress(FileNotFoundError):
                stands, version = self.store.read_version(SUCCESS)
                if stands == content:
                    self.store.remove(SUCCESS, version)
            self.check_is(job or {"id": ""})

    def read_totals(self) -> dict[str, Any]:
        """What a finished job says of itself; `DataError` if it was not finished."""
        try:
            content = self.store.read(SUCCESS)
        except FileNotFoundError as error:
            raise DataError(f"{self.store.root} is not finished: there is no {SUCCESS}.") from error
        return self._checked_object(SUCCESS, content, {"parts_sha256", "rows", "parts"})

    def read_success(self) -> tuple[dict[str, Any], bytes]:
        """The totals, and the list of parts; `DataError` if the job was not finished or the list changed since."""
        totals = self.read_totals()
        try:
            parts = self.store.read(PARTS)
        except FileNotFoundError:
            parts = b""
        if totals["parts_sha256"] != hashlib.sha256(parts).hexdigest():
            raise DataError(f"The list of parts {self.store.path(PARTS)} changed after the job.")
        return totals, parts

    def check_is(self, job: Mapping[str, Any]) -> None:
        """Raise `StoppedError` unless the job that stands is still this one.

        Another takes its place where a restart is published.
        """
        if self.guard is not None:
            self.guard()
        if not self._is(job):
            raise StoppedError(
                f"{self.store.root} does not hold the job any more that this process began with: another one took its "
                "place, or it was removed. Nothing more is done. `scanrnn status` shows what is there."
            )

    def check_named(self, job: Mapping[str, Any], part: str) -> None:
        """The same, just after a part was named, which is taken back where the job that stands has none of its name.

        In a bucket, whoever stands still between `check_is` and the upload may put a part where another job ended.
        """
        if self._is(job):
            return
        version = self.store.version(part)  # before it is looked which job stands: what that one puts there later stays
        with suppress(DataError):  # of records that cannot be understood: then it stays too
            if (now := self.find_job()) is not None and version is not None:
                rows, _ = read_weights(self.read_plan(now, UNITS))
                if unit_of_part(part, len(rows)) is None:
                    self.store.remove(part, version)
        self.check_is(job)

    def _is(self, job: Mapping[str, Any]) -> bool:
        """Whether this job is the one that stands."""
        now = self.find_job()
        return now is not None and now["id"] == job["id"]

    def _checked_object(self, name: str, content: bytes, fields: set[str]) -> dict[str, Any]:
        """A JSON object with at least these fields, or a `DataError` that names the file."""
        try:
            read = json.loads(content)
        except ValueError as error:
            raise DataError(f"{self.store.path(name)} is damaged: {error}") from error
        return self._with_fields(name, content, read, fields)

    def _with_fields(self, name: str, content: bytes, read: Any, fields: set[str]) -> dict[str, Any]:
        if not isinstance(read, dict) or not fields <= read.keys():
            path = self.store.path(name)
            raise DataError(f"{path} is damaged: it holds {content[:80]!r}; expected an object with {sorted(fields)}.")
        return read
