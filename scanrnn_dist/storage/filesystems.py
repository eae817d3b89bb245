"""Filesystems by name, for sources and destinations, and files of theirs that survive a server's bad moments.

The AWS SDK retries what it recognises as passing; here it is told for how long, and what it does not recognise is
retried (`open_input_file`). The child of `footers.py` imports this module too, so it has to stay a light one.

Measured against a server that fails to order, with pyarrow 26: a filesystem straight from a URI gives an operation up
after 6 s of errors, and after 3 s without a byte it takes a slow answer for a lost one, 31 times over, for 99 s in all.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import ConfigError, StoppedError, check_is_text, one_line
from scanrnn_dist.storage.asking import AT_ONCE
from scanrnn_dist.storage.fetched import FetchedFile

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:\ is a drive
_PACKAGES = {"hf": "huggingface_hub"}  # what pyarrow asks for, where it is not fsspec itself
RETRIES = 10
"""Of one request. The waits between them double from 0.025 s on, so the last error comes after 26 s of them."""
REQUEST_SECONDS = 30.0
"""Without a byte in either direction a request is given up and tried again. pyarrow says that Linux ignores it; it
does not."""
CONNECT_SECONDS = 5.0
RETRY_SECONDS = 20
"""Of one request to Google Cloud Storage. pyarrow makes two to look at a name; that should end within a minute."""
_FIRST_WAIT_SECONDS = 0.025
_LOOK_AT_RETRY = 2
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What says that there is no file, rather than that the way to it is blocked."""
_SECRETS = {"sig", "client_secret"}  # of Azure, in the query of a URI
_NOT_KEPT = {"smart_defaults", "tls_verify_certificates", "tls_ca_dir_path"}  # options that Python cannot pass on


def is_uri(name: str) -> bool:
    """Whether a name is a URI rather than a path of this machine."""
    return _SCHEME.match(name) is not None


def split_query(name: str) -> tuple[str, str]:
    """A name without slashes at its end, and what follows the path of a URI; so that names can be added to the path.

    Example:
        >>> split_query("s3://bucket/x/?scheme=http"), split_query("a/what?/")
        (('s3://bucket/x', '?scheme=http'), ('a/what?', ''))
    """
    where, mark, query = name.partition("?") if is_uri(name) else (name, "", "")
    return where.rstrip("/"), mark + query


def resolve(name: str) -> tuple[fs.FileSystem, str | None, str]:
    """Filesystem, the URI to reach it by (None for this machine), and the path in it.

    `file://` URIs are paths of this machine.

    Raises:
        ConfigError: a name that is no text, a URI that pyarrow does not understand, or one that holds a secret, which
            would end in the records.
    """
    if not name:
        raise ConfigError("A source or destination has no name; expected a path or a URI. Is a variable empty?")
    check_is_text(name)
    if not is_uri(name):
        return fs.LocalFileSystem(), None, _absolute(os.path.expanduser(name))
    scheme, _, rest = name.partition("://")
    has_password = "@" in rest and urlsplit(name.replace("[", "%5B").replace("]", "%5D")).password is not None
    if scheme.lower() == "s3":  # a secret of AWS may hold a slash, with which the user would end; and no bucket a colon
        has_password = "@" in rest and ":" in rest.partition("/")[0]
    if has_password or _SECRETS & parse_qs(rest.partition("?")[2], keep_blank_values=True).keys():
        raise ConfigError(
            f"A {scheme}:// URI holds a secret, which would be written to the records of the job; "
            "expected one without. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store reads, instead."
        )
    filesystem, path = _from_uri(name)
    if filesystem.type_name == "local":
        return filesystem, None, _absolute(path)
    return filesystem, name, path


def _reason(error: BaseException) -> str:
    """What an error says, in one line without a full stop, and without the details that Google's library repeats."""
    return one_line(str(error)).partition(" error_info=")[0].rstrip(" .:")


@contextmanager
def looking_at(name: str, filesystem: fs.FileSystem) -> Iterator[None]:
    """Whatever a filesystem refuses inside becomes a `StoppedError`: access or the network, which may come back."""
    try:
        yield
    except _refusals(filesystem) as error:
        raise StoppedError(
            f"{name!r} cannot be looked at: {_reason(error)}. Check the address, the network, the credentials and the "
            "access rights, then run again."
        ) from error


def _refusals(filesystem: fs.FileSystem) -> tuple[type[Exception], ...]:
    """What a filesystem raises. One that Python implements, behind hf:// say, raises what its packages do."""
    return (Exception,) if isinstance(filesystem, fs.PyFileSystem) else (pa.ArrowException, OSError)


def _absolute(path: str) -> str:
    path = os.path.abspath(path).replace(os.sep, "/")
    check_is_text(path)
    return path


def _from_uri(name: str) -> tuple[fs.FileSystem, str]:
    scheme, _, rest = name.partition("://")
    scheme = scheme.lower()
    where, _, query = rest.partition("?")
    for letter, is_told in (("#", "#" in rest), ("?", scheme == "file" and "?" in rest)):
        if is_told:  # pyarrow would leave out what comes after it, and look at another place
            raise ConfigError(
                f"{name!r} holds a {letter!r}, which ends the path in a URI; write it as {quote(letter)}."
            )
    # Brackets are wildcards here, and no URI may hold them.
    uri = f"{scheme}://{where.replace('[', '%5B').replace(']', '%5D')}?{query}".rstrip("?")
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in parse_qs(query):
        # pyarrow goes on for a quarter of an hour, also where there are no credentials.
        uri += f"{'&' if query else '?'}retry_limit_seconds={RETRY_SECONDS}"
    if scheme == "s3" and (told := _of_environment(parse_qs(query))):
        uri += f"{'&' if query else '?'}{urlencode(told)}"
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except ImportError as error:
        raise ConfigError(
            f"{name!r} cannot be opened: {_reason(error)}. Install what {scheme}:// needs "
            f"(pip install {_PACKAGES.get(scheme, 'fsspec')}), or copy the files here first."
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        if "NETWORK_CONNECTION" in str(error):  # pyarrow asks AWS for the bucket's region
            raise StoppedError(
                f"{name!r} cannot be reached: {_reason(error)}. Check the address and the network, then run again."
            ) from error
        download = " Download the file first." if scheme in ("http", "https") else ""
        raise ConfigError(
            f"{name!r} cannot be opened: {_reason(error)}. Expected a path or a URI that pyarrow understands.{download}"
        ) from error
    if filesystem.type_name == "s3" and not _NOT_KEPT & parse_qs(query).keys():
        filesystem = _patient(filesystem)
    return filesystem, path


def _of_environment(query: Mapping[str, Any]) -> dict[str, str]:
    """What the environment says of an S3 server, where a URI does not: AWS's tools read it, pyarrow does not."""
    told: dict[str, str] = {}
    endpoint = "" if "endpoint_override" in query else endpoint_of_environment()
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        told |= {"endpoint_override": host.rstrip("/"), **({"scheme": scheme} if scheme else {})}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else "")
    if region and "region" not in query:  # else pyarrow asks AWS
        told["region"] = region
    return told


def endpoint_of_environment() -> str:
    """The S3 server that the first of three variables names, the last of which is obstore's; empty for AWS's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((told for name in names if (told := os.environ.get(name))), "")


def open_input_file(filesystem: fs.FileSystem, path: str, request_bytes: int | None = None) -> SteadyFile | FetchedFile:
    """A file to read from; a remote one, where `request_bytes` are told, one that fetches so many of them ahead.

    Raises:
        FileNotFoundError, IsADirectoryError, NotADirectoryError: there is none.
        StoppedError: it could not be opened, or, from its methods, read on, for a reason that says nothing about it.
    """
    file = SteadyFile(filesystem, path)
    if request_bytes is None or filesystem.type_name == "local":
        return file
    return FetchedFile(file, request_bytes)


def _patient(filesystem: fs.S3FileSystem) -> fs.S3FileSystem:
    """The same filesystem with our retries and timeouts, which a URI cannot ask for, and fewer requests.

    Its options are those that pickle would keep: pyarrow has no other way to tell them.
    """
    options = filesystem.__reduce__()[1][0]
    # Not the "standard" strategy: its first wait is 0.5 s on average and ten of its attempts took 75 s.
    retries = fs.AwsDefaultS3RetryStrategy(max_attempts=RETRIES)
    patience = {"retry_strategy": retries, "request_timeout": REQUEST_SECONDS, "connect_timeout": CONNECT_SECONDS}
    threads = pa.io_thread_count()
    pa.set_io_thread_count(max(threads, AT_ONCE))  # it gets as many connections; with 25, footers take twice as long
    try:
        # A small object that is opened with delay is one request, not three.
        return fs.S3FileSystem(**{**options, **patience, "allow_delayed_open": True})
    finally:
        pa.set_io_thread_count(threads)


class SteadyFile:
    """A file to read from. Trouble on the way, which says nothing about its content, is a `StoppedError`.

    Each read is retried where the SDK gives up at once. It does so when the text of a server's error (100 to 500 bytes)
    is longer than what was asked for: then it has nowhere to put that text, and forgets what it was. Small column
    chunks are read in such requests.
    """

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._path, self._filesystem = path, filesystem
        self._refused = (Exception,) if isinstance(filesystem, fs.PyFileSystem) else (OSError,)
        try:
            self._file = file = filesystem.open_input_file(path)
        except _NO_FILE:
            raise
        except _refusals(filesystem) as error:
            if filesystem.type_name == "local" and os.path.isdir(path):
                raise IsADirectoryError("it is a folder") from error
            raise self._stopped(error) from error
        self.seek, self.tell, self.size, self.close = file.seek, file.tell, file.size, file.close

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(self._file.closed)

    def read_buffer(self, size: int) -> pa.Buffer:
        """The next bytes, fewer at the end of the file."""
        start = self._file.tell()

        def read() -> pa.Buffer:
            self._file.seek(start)
            return self._file.read_buffer(size)

        return self._retried(read)

    read = read_buffer

    def read_at(self, begin: int, size: int) -> bytes:
        """The bytes from `begin` on, fewer at the end of the file; several threads may ask."""
        return bytes(self._retried(lambda: self._file.read_at(size, begin)))

    def _retried(self, read: Callable[[], Any]) -> Any:
        for retry in range(RETRIES + 1):
            try:
                return read()
            except _NO_FILE:
                raise
            except self._refused as error:
                if retry == RETRIES or "Failed to flush response stream" not in str(error):
                    raise self._stopped(error) from error
                if retry == _LOOK_AT_RETRY and self._is_gone():
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path) from error
            time.sleep(_FIRST_WAIT_SECONDS * 2**retry)
        raise AssertionError

    def _is_gone(self) -> bool:
        """Whether the error whose text was lost is that the object was removed since it was opened."""
        with suppress(OSError):
            return bool(self._filesystem.get_file_info(self._path).type == fs.FileType.NotFound)
        return False

    def _stopped(self, error: Exception) -> StoppedError:
        return StoppedError(
            f"{self._path} could not be read: {_reason(error)}. That says nothing about its content: check the access "
            "rights, the disk and the network, then run the same command again."
        )
