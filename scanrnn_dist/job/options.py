"""The options of a job, each checked where it is made: what it does, how a command goes about it, who shares it.

An option of what a job does is one field of `JobOptions`: the command line has a flag for it (`cli/options.py`), the
records keep it, a command that differs in it is refused by its name, and it acts where it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from scanrnn_dist.errors import ConfigError, flag_of, some_of
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.job.memory import Memory
from scanrnn_dist.kinds import check_kind, check_kinds
from scanrnn_dist.plain import take_plain
from scanrnn_dist.records import DEFAULT_OUTPUT, EXPIRY_SECONDS, Output, Share
from scanrnn_dist.source import (
    Asked,
    BadRows,
    Filter,
    Layout,
    Lengths,
    ReadOptions,
    filter_text,
    layout_of,
    parsed_filter,
)

_MOST_SECONDS = 1e6


@dataclass(frozen=True)
class JobOptions:
    """What a job does: all that its output depends on besides the source, the encoder and the devices.

    Where names of columns are taken, one name may be given alone.

    Args:
        layout, column, features, in_features, group_by, order_by: which layout the sequences have, as `Asked` tells it;
            None where the source allows only one.
        sort: whether to read a copy of the source that is sorted by `group_by` and `order_by`, made first.
        keep: the columns to carry along, each once; None keeps all but those of the sequences.
        rows_per_part: rows of a part, about; None for 65,536, or fewer that take 512 MiB of the source.
        max_steps: of a longer sequence only so many steps count; None for all.
        truncate: which ones, the first of its "head" or the last of its "tail".
        min_steps: a sequence of fewer steps is too short, and set aside unless `bad_rows` says otherwise.
        initial_carry: a kept column with each row's own initial carry; None for the encoder's.
        lossy_cast: whether float64 and wide integers may be rounded to float32.
        bad_rows: what is done with rows that are not what they should be.
        ids: kept columns that tell whose sequence a row is, for `update`; None where that is not said yet.
        keep_state: whether each row's final state is written beside its features, for `update` to go on from.
        output: how the features are written.
        filter: which rows are read, as text, or as an expression of pyarrow that such a text stands for; None for all.
        limit: of the source the first so many rows are there, before any filter; None for all.

    Raises:
        ConfigError: `sort` without `group_by`, `unreadable_file="skip"` with it, a number that is too small, or a
            choice that nothing it is about was given for, and a feature that is named twice.

    Example:
        >>> JobOptions(keep=["id", "id"]).keep, JobOptions.from_json(JobOptions(max_steps=7).to_json()).max_steps
        (('id',), 7)
    """

    layout: str | None = None
    column: str | None = None
    features: Sequence[str] | None = None
    in_features: int | None = None
    group_by: Sequence[str] | None = None
    order_by: Sequence[str] | None = None
    sort: bool = False
    keep: Sequence[str] | None = None
    rows_per_part: int | None = None
    max_steps: float | None = None
    truncate: Literal["head", "tail"] = "head"
    min_steps: int = 0
    initial_carry: str | None = None
    lossy_cast: bool = False
    bad_rows: BadRows = field(default_factory=BadRows)
    ids: Sequence[str] | None = None
    keep_state: bool = False
    output: Output = DEFAULT_OUTPUT
    filter: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_kind(
            "initial_carry", self.initial_carry, str | None, "the name of a column, or None; encode takes arrays"
        )
        take_plain(self)
        if self.filter is not None:
            object.__setattr__(self, "filter", filter_text(self.filter))
        check_kinds(self)
        for name in ("keep", "features", "group_by", "order_by", "ids"):
            if (columns := getattr(self, name)) is None:
                continue
            names = names_of(columns)
            if name == "features" and len(set(names)) < len(names):
                twice = [repr(each) for each, count in Counter(names).items() if count > 1]
                raise ConfigError(f"features names {some_of(twice, 4)} more than once; expected each once.")
            object.__setattr__(self, name, tuple(dict.fromkeys(names)))
        object.__setattr__(self, "max_steps", self.lengths.max_steps)
        if self.sort and not self.group_by:
            raise ConfigError("--sort needs --group-by: the columns that say which sequence a row belongs to.")
        if self.keep_state:
            self._check_can_go_on()
        if self.rows_per_part is not None and self.rows_per_part < 1:
            raise ConfigError(f"rows_per_part is {self.rows_per_part}; expected 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected 1 or more.")
        if self.group_by and (self.limit is not None or self.filter is not None):
            what = "--filter" if self.limit is None else "--limit"
            raise ConfigError(
                f"{what} is about rows, and with --group-by these are steps: leave one of them out. To read fewer "
                "sequences, name fewer files or folders ('in/country=D*/*.parquet'), or write those that you want with "
                "a query first (docs/data.md, 'Recipes')."
            )
        if self.group_by and self.bad_rows.skips_files:
            raise ConfigError(
                "--unreadable-file skip leaves out files, and with --group-by a sequence may go on in the next one: "
                "leave out one of the two flags."
            )
        if self.max_steps is None and (self.truncate, self.bad_rows.too_long) != ("head", "truncate"):
            raise ConfigError("--truncate and --too-long are about sequences of more than --max-steps; give that too.")
        if not self.min_steps and self.bad_rows.too_short != "skip":
            raise ConfigError("--too-short is about sequences of fewer than --min-steps; give that too.")

    def _check_can_go_on(self) -> None:
        """Refuse what would have later steps go on from another state than all steps at once come to."""
        names = ("initial_carry", "max_steps", "min_steps", "limit", "filter")
        excluded = [name for name in names if getattr(self, name) not in (None, 0)]
        choices = asdict(self.bad_rows).items()
        excluded += [f"{name} {choice}" for name, choice in choices if choice in ("null", "forward-fill")]
        if excluded:
            raise ConfigError(
                f"{excluded[0]} and keep_state exclude one another: leave out one of the two ({flag_of(excluded[0])}, "
                "--keep-state)."
            )

    @property
    def lengths(self) -> Lengths:
        """How many steps of a sequence count."""
        return Lengths(self.min_steps, self.max_steps, self.truncate)

    @property
    def matching(self) -> Filter | None:
        """Which rows are read; None for all."""
        return None if self.filter is None else parsed_filter(self.filter)

    @property
    def has_own_carries(self) -> bool:
        """Whether every row brings its own initial carry."""
        return self.initial_carry is not None

    @property
    def asked(self) -> Asked:
        """What is said of the layout."""
        return Asked(**{each.name: getattr(self, each.name) for each in fields(Asked)})

    def settled(self, layout: Layout, keep: Sequence[str], rows_per_part: int | None) -> JobOptions:
        """The options of a job that was planned: nothing is left to be found."""
        return replace(self, **vars(layout.asked), keep=keep, rows_per_part=rows_per_part)

    def reading(self, in_features: int, input: InputSpec | None, **more: Any) -> ReadOptions:
        """What of a source is read for the job, of settled options, for an encoder that takes such steps."""
        layout, keep = layout_of(self.asked), self.keep or ()
        how = (self.lossy_cast, self.bad_rows, self.lengths)
        return ReadOptions(layout, keep, in_features, input, *how, filter=self.matching, **more)

    def changed(self) -> dict[str, Any]:
        """The options that are not the default, in order; field `f` of a field `o` that is a dataclass as `o.f`.

        Example:
            >>> JobOptions(max_steps=7, bad_rows=BadRows(bad_value="zero")).changed()
            {'max_steps': 7, 'bad_rows.bad_value': 'zero'}
        """
        return dict(_changed(JobOptions(), self))

    def to_json(self) -> dict[str, Any]:
        """The options as JSON can hold them."""
        told = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> JobOptions:
        """The options that `to_json` gave; what else is told is passed over, and what is not told is the default."""
        options: JobOptions = _from_json(cls(), told)
        return options


def names_of(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Names of columns, of which one may be given alone."""
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _changed(default: Any, told: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields in which a dataclass differs from another one, by their names."""
    for each in fields(told):
        usual, value, name = getattr(default, each.name), getattr(told, each.name), prefix + each.name
        if is_dataclass(value):
            yield from _changed(usual, value, f"{name}.")
        elif value != usual:
            yield name, value


def _from_json(default: Any, told: Mapping[str, Any]) -> Any:
    """A dataclass like this one with what is told of its fields, some of which may be dataclasses themselves."""
    values = {field.name: getattr(default, field.name) for field in fields(default)}
    known = {name: (value, told[name]) for name, value in values.items() if name in told}
    return replace(
        default, **{name: _from_json(value, it) if is_dataclass(value) else it for name, (value, it) in known.items()}
    )


@dataclass(frozen=True)
class Sharing:
    """How several processes share a job.

    Args:
        share: `(k, n)`, the k-th of n shares, counted from 1.
        steal: whether to take over the shares of processes that stopped, once this process has done its own.
        expiry_seconds: a process counts as dead after this many seconds of silence.
        retry: whether to retry rows that crashed the process twice.
        owns_process: whether the process does nothing but this job, as that of the command line. A crash then leaves a
            trace among the records, by Python's fault handler.

    Raises:
        ConfigError: a share that does not exist, or an expiry that is not above 0.
    """

    share: Share = (1, 1)
    steal: bool = False
    expiry_seconds: float = EXPIRY_SECONDS
    retry: bool = False
    owns_process: bool = False

    def __post_init__(self) -> None:
        take_plain(self)
        check_kinds(self)
        object.__setattr__(self, "share", tuple(self.share))
        if len(self.share) != 2 or not all(isinstance(number, int) for number in self.share):
            raise ConfigError(f"share is {self.share}; expected two whole numbers, such as (1, 16): the first of 16.")
        index, count = self.share
        if not 1 <= index <= count:
            raise ConfigError(f"Share {index} of {count} does not exist; expected (1, {count}) to ({count}, {count}).")
        if not 0 < self.expiry_seconds <= _MOST_SECONDS:
            raise ConfigError(
                f"expiry_seconds is {self.expiry_seconds}; expected more than 0, at most {_MOST_SECONDS:g}."
            )


@dataclass(frozen=True)
class Handling:
    """What a command may do with a job that its destination holds already, and with whom it shares the work.

    Args:
        allow_mixed: whether to go on with a job that was begun in another environment, which may give other bits.
        restart: whether to begin anew; the old output stands until the new one is complete.
        accept_changes: whether files of the source may have changed, come or gone since the job began.
        discard: names of parts that are not what they should be, to be removed and made again.
        sharing: which units are this process's.
        max_bad_rows: of how many rows that were set aside, by all processes, the job goes on; None for any number.
        memory_bytes: the budget of what each process holds of rows, of `memory.py`; None for the usual one. It changes
            no output.

    Raises:
        ConfigError: a restart together with what it excludes, a number below 0, or a budget that is too small.
    """

    allow_mixed: bool = False
    restart: bool = False
    accept_changes: bool = False
    discard: tuple[str, ...] = ()
    sharing: Sharing = Sharing()
    max_bad_rows: int | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        take_plain(self)
        check_kinds(self)
        if self.restart and self.accept_changes:
            raise ConfigError("--restart begins anew, and --accept-changes keeps what is done: leave one of them out.")
        if self.restart and (self.sharing.share != (1, 1) or self.sharing.steal):
            raise ConfigError("A restart is made by one command: leave out --restart, or --shard and --steal.")
        _ = self.memory  # which may refuse
        if self.max_bad_rows is not None and self.max_bad_rows < 0:
            raise ConfigError(f"max_bad_rows is {self.max_bad_rows}; expected 0 or more, or None for any number.")

    @property
    def memory(self) -> Memory:
        """The budget, in this process."""
        return Memory(self.memory_bytes)
