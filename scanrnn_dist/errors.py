"""The errors that users see, each kind with the exit code the command line ends with.

A message says what arrived, what was expected, where, and what to do. Every kind is also a `ValueError` where a
wrong argument or wrong data caused it, so that callers who do not know this package can catch it.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Self

_NAME = re.compile(r"""(?:^|,)(?:"((?:[^"]|"")*)"(?=,|\Z)|([^,]*))""")
"""A name among several, in quotes or as it is."""
SAVED = "What is done is saved; run the same command to continue."
"""What is said after "Stopped." where a job runs."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal acts on, what turns text around, and bytes that are no text, as in a name that is not UTF-8."""


class ScanRNNError(Exception):
    """Base of all errors of this package; on its own it means a defect of ours."""

    exit_code = 1


class ConfigError(ScanRNNError, ValueError):
    """Wrong usage or configuration: an argument, a flag, a destination that is in use."""

    exit_code = 2


class NothingFoundError(ConfigError):
    """Nothing is there of a source: it is named wrong, or not there yet or any more, as where a disk is not mounted."""


class DataError(ScanRNNError, ValueError):
    """The data is not what it should be: a null, a NaN, a corrupt file, a part that fails its check."""

    exit_code = 3
    policy = ""
    """The policy of `BadRows` under which it is an error and need not be; empty if there is none."""

    def under(self, policy: str) -> Self:
        """The same error, of a policy."""
        self.policy = policy
        return self


class UnreadableError(DataError):
    """What a file holds cannot be read: damaged pages, wrong counts, more memory than reading may take."""

    policy = "unreadable_file"


class LayoutError(DataError):
    """The sequences do not stand in the column in a way that can be read."""


class UndoneError(DataError):
    """Some parts of a job failed, all others are done. The message has several lines: one place a line."""


class StoppedError(ScanRNNError):
    """The run ended early for a reason from outside (signal, full disk); nothing committed was lost."""

    exit_code = 4


def check_platform() -> None:
    """Refuse Windows, which lacks signals, limits and ways to write files that this package needs.

    Raises:
        ConfigError: it is Windows, outside of WSL.
    """
    if sys.platform == "win32":
        raise ConfigError("scanrnn_dist runs on Linux and macOS; on Windows, install and run it in WSL.")


def stopped_by_machine(error: BaseException, rest: str) -> StoppedError | None:
    """What to say of an error where memory ran out or the system refused something; None of any other.

    Args:
        error: what nobody closer to it has put into words.
        rest: what is said after "Stopped.".
    """
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        return StoppedError(f"{error.strerror or error}{name}. Stopped. {rest}")
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    ):  # JAX's
        what = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = (
            "Find more memory, or choose a smaller --memory (or fewer --lanes with --restart) if the command takes it."
        )
        return StoppedError(f"Out of memory: {what}. {remedy} Stopped. {rest}")
    return None


def one_line(text: str) -> str:
    """A text of others as one line.

    Example:
        >>> one_line("bad\\n  page")
        'bad page'
    """
    return shown(" ".join(line.strip() for line in text.splitlines()))


def shown(text: str) -> str:
    """A text as a terminal or a log may get it: what acts on one, but for ends of lines, or is no text, as `\\x1b`.

    Example:
        >>> print(shown("a\\x1b[2J"))
        a\\x1b[2J
    """
    return _CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def not_text(name: str) -> ConfigError:
    """What to say of a name whose bytes are no UTF-8."""
    escaped = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ConfigError(f"The name '{escaped}' is not UTF-8; expected one that is. Rename it.")


def check_is_text(name: str) -> None:
    """Refuse a name whose bytes are no UTF-8, which neither pyarrow nor the records of a job could hold."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise not_text(name) from error


def option_name(field: str) -> str:
    """What Python calls the option of a field of `JobOptions`, or of a field of one of its fields.

    Example:
        >>> option_name("output.dtype"), option_name("bad_rows.too_long"), option_name("limit")
        ('output_dtype', 'too_long', 'limit')
    """
    is_of_two = field in ("output.layout", "output.dtype")  # sources have these, too
    return field.replace(".", "_") if is_of_two else field.rpartition(".")[2]


def flag_of(option: str) -> str:
    """The flag that gives an option.

    Example:
        >>> flag_of("null_sequence")
        '--null-sequence'
    """
    return f"--{option.replace('_', '-')}"


def joined_names(names: Iterable[str]) -> str:
    """Names as a flag takes them that takes several; those with a comma in quotes, as in CSV.

    Example:
        >>> joined_names(["a", "b,c"])
        'a,"b,c"'
    """
    return ",".join('"' + name.replace('"', '""') + '"' if set(name) & set(',"') else name for name in names)


def split_names(text: str) -> list[str]:
    """The names in such a text; empty ones are left out.

    Example:
        >>> split_names('a,"b,c",')
        ['a', 'b,c']
    """
    names = (quoted.replace('""', '"') or plain for quoted, plain in _NAME.findall(text))
    return [name for name in names if name]


def some_of(names: Sequence[str], most: int) -> str:
    """The first `most` names and how many more there are, for a message that says what there is.

    Example:
        >>> some_of(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"


def counted(number: int, noun: str) -> str:
    """A number of things, with its thousands set apart.

    Example:
        >>> counted(1, "row"), counted(2000, "row")
        ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def did_you_mean(told: str, known: Iterable[str]) -> str:
    """A question that names the nearest known name, to be put after a sentence; nothing if none is near.

    The dashes of flags make none near.

    Example:
        >>> did_you_mean("sequense", ["id", "sequence"]), did_you_mean("x", ["id", "sequence"])
        (" Did you mean 'sequence'?", '')
    """
    from difflib import get_close_matches  # only where something is wrong

    names = {name.lower().lstrip("-"): name for name in known}
    near = get_close_matches(told.lower().lstrip("-"), names, n=1, cutoff=0.65)
    return f" Did you mean {names[near[0]]!r}?" if near else ""
