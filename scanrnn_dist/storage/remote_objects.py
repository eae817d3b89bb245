"""Objects of S3, Google Cloud Storage and Azure, by obstore (the Rust crate object_store), with conditional writes.

What object_store does not offer on S3 (a conditional deletion, a copy of more than 5 GiB, the uploads that nobody
completed) is asked of boto3. Where a server is and who asks, says `remote_options.py`.

A request whose answer was lost is made again, and may then find what it did itself: so whoever writes under a condition
that was not met looks whether its own bytes stand there. object_store makes most requests again by itself; where an
answer is cut in its body, as that of a listing, and where boto3 gave up, `_asked` does.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeVar

import pyarrow as pa

from scanrnn_dist.errors import one_line
from scanrnn_dist.storage.filesystems import RETRIES
from scanrnn_dist.storage.objects import Objects
from scanrnn_dist.storage.remote_options import RETRY_SECONDS, RemoteOptions, boto3_client, obstore_client

logger = logging.getLogger("scanrnn_dist")

UPLOAD_BYTES = 8 << 20
"""What is larger goes up in pieces of so many bytes. Against moto's server 64 MiB took 0.4 s in one piece and in eight;
a piece that is lost on the way costs less than the whole."""
UPLOADS_AT_ONCE = 4
LISTED_AT_ONCE = 500
"""Names, of which a server gives 1,000 in a page."""
MOST_PIECES = 10_000
"""Of one upload, on S3."""
COPY_BYTES = 5 << 30
"""S3 copies no more in one request (docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html); more is copied by
ranges, which stay on the server too."""
UPLOAD_TRIES = 3
_ASKED_FOR_KEYS = ("169.254.169.254", "metadata.google.internal", "/latest/api/token")
_FIRST_WAIT_SECONDS = 0.025
_UNMET = ("412", "PreconditionFailed")
_TOLD = re.compile(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", re.DOTALL)


_T = TypeVar("_T")


@dataclass(frozen=True)
class RemoteObjects(Objects):
    """The objects of one bucket. It pickles without a connection and without keys: those are looked up where it is."""

    options: RemoteOptions

    def get(self, key: str) -> tuple[bytes, str]:
        def ask() -> tuple[bytes, str]:
            found = self._store.get(key)
            return bytes(found.bytes()), _version(found.meta)

        return _asked(key, ask)

    def open(self, key: str) -> pa.NativeFile:
        size = _asked(key, lambda: self._store.head(key))["size"]
        return pa.PythonFile(_ObjectFile(self._store, key, size), mode="r")

    def version(self, key: str) -> str | None:
        try:
            return _version(_asked(key, lambda: self._store.head(key)))
        except FileNotFoundError:
            return None

    def files(self, folder: str, is_deep: bool) -> Iterator[tuple[str, int]]:
        for path, size in self._below(folder) if is_deep else self._directly_in(folder):
            if path.endswith("/") or not _is_marker(path, size, folder):
                yield path, size

    def _directly_in(self, folder: str) -> list[tuple[str, int]]:
        listed = _asked(folder, lambda: self._store.list_with_delimiter(folder or None))
        found = [(item["path"], item["size"]) for item in listed["objects"]]
        return [*((f"{name}/", 0) for name in listed["common_prefixes"]), *found]

    def _below(self, folder: str) -> Iterator[tuple[str, int]]:
        """Page by page, as they are taken; after an answer that was cut, from the last one on."""
        batches: Any = None
        last: str | None = None

        def ask() -> Any:
            nonlocal batches
            try:
                batches = batches or iter(self._store.list(folder or None, offset=last, chunk_size=LISTED_AT_ONCE))
                return next(batches, ())
            except Exception:
                batches = None
                raise

        while batch := _asked(folder, ask):
            last = batch[-1]["path"]
            yield from ((item["path"], item["size"]) for item in batch)

    def put(self, key: str, content: bytes) -> None:
        _asked(key, lambda: self._store.put(key, content, use_multipart=False))

    def create(self, key: str, content: bytes) -> bool:
        return self._put_if(key, content, "create")

    def replace(self, key: str, content: bytes, version: str) -> bool:
        e_tag, _, number = version.partition("\n")
        return self._put_if(key, content, {"e_tag": e_tag, **({"version": number} if number else {})})

    def upload(self, key: str, file: IO[bytes], size: int) -> None:
        if size <= UPLOAD_BYTES:
            file.seek(0)
            return self.put(key, file.read())
        chunk_size = max(UPLOAD_BYTES, -(-size // MOST_PIECES))

        def send() -> None:
            file.seek(0)
            pieces = iter(lambda: file.read(chunk_size), b"")
            many = {"use_multipart": True, "chunk_size": chunk_size, "max_concurrency": UPLOADS_AT_ONCE}
            self._store.put(key, pieces, **many)

        for tries_left in reversed(range(UPLOAD_TRIES)):
            try:
                return _asked(key, send)
            except FileNotFoundError:  # completed, but the answer was lost: then there is no such upload any more
                if not tries_left:
                    raise
        return None

    def copy(self, old: str, new: str, version: str | None = None) -> bool:
        meta = _asked(old, lambda: self._store.head(old))
        if version is not None and _version(meta) != version:
            return False
        if self.options.kind != "s3" or (version is None and meta["size"] <= COPY_BYTES):
            _asked(old, lambda: self._store.copy(old, new))
            return True
        client, bucket = boto3_client(self.options, is_patient=True), self.options.bucket
        source, seen = {"Bucket": bucket, "Key": old}, {"CopySourceIfMatch": meta["e_tag"]}
        if meta["size"] > COPY_BYTES:
            return _is_met(old, lambda: client.copy(source, bucket, new, ExtraArgs=seen))
        return _is_met(old, lambda: client.copy_object(Bucket=bucket, Key=new, CopySource=source, **seen))

    def heeds_conditions(self, key: str, content: bytes) -> bool:
        return not self._was_put(key, content, "create")

    def delete(self, keys: list[str]) -> None:
        if self.options.kind == "s3":
            return _asked(keys[0], lambda: self._store.delete(keys))
        for key in keys:
            try:
                _asked(key, partial(self._store.delete, key))
            except FileNotFoundError:  # as Google and Azure say
                continue
        return None

    def remove(self, key: str, version: str) -> None:
        bucket, e_tag = self.options.bucket, version.partition("\n")[0]
        if self.options.kind != "s3":  # obstore can ask neither Google nor Azure for it
            return super().remove(key, version)
        client = boto3_client(self.options)
        try:
            _is_met(key, lambda: client.delete_object(Bucket=bucket, Key=key, IfMatch=e_tag))
        except FileNotFoundError:
            return None
        except NotImplementedError:
            return super().remove(key, version)

    def unfinished(self, folder: str) -> list[tuple[str, str]]:
        def ask() -> list[tuple[str, str]]:
            pages = boto3_client(self.options).get_paginator("list_multipart_uploads")
            found = pages.paginate(Bucket=self.options.bucket, Prefix=f"{folder}/".lstrip("/"))
            return [(it["Key"], it["UploadId"]) for page in found for it in page.get("Uploads", ())]

        try:
            return _asked(folder, ask) if self.options.kind == "s3" else []
        except OSError as error:  # a server that cannot, or who may not: it is no reason to clean nothing
            logger.warning("Unfinished uploads below %s cannot be listed: %s.", folder, error.strerror)
            return []

    def abort(self, key: str, upload: str) -> None:
        told = {"Bucket": self.options.bucket, "Key": key, "UploadId": upload}
        try:
            _asked(key, lambda: boto3_client(self.options).abort_multipart_upload(**told))
        except FileNotFoundError:
            return

    @property
    def _store(self) -> Any:
        return obstore_client(self.options)

    def _was_put(self, key: str, content: bytes, mode: Any) -> bool:
        """Whether the server wrote it."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def ask() -> bool:
            try:
                self._store.put(key, content, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                return False
            except FileNotFoundError:
                if mode == "create":  # the bucket is missing
                    raise
                return False
            return True

        return _asked(key, ask)

    def _put_if(self, key: str, content: bytes, mode: Any) -> bool:
        """The same, or whether these very bytes stand there."""
        if self._was_put(key, content, mode):
            return True
        try:
            return self.get(key)[0] == content
        except FileNotFoundError:  # removed just now
            return False


class _ObjectFile:
    """The calls that `pa.PythonFile` makes, each read a request."""

    def __init__(self, store: Any, key: str, size: int) -> None:
        self._store, self._key, self._size, self._place, self.closed = store, key, size, 0, False

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        size = left if size is None or size < 0 else min(size, left)
        if not size:
            return b""
        content = _asked(self._key, lambda: bytes(self._store.get_range(self._key, start=self._place, length=size)))
        self._place += len(content)
        return content

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self.closed = True


def _version(meta: Any) -> str:
    """Google tells a number of each version, others a hash or a mark of its own."""
    return f"{meta['e_tag'] or ''}\n{meta.get('version') or ''}".rstrip("\n")


def _is_marker(path: str, size: int, folder: str) -> bool:
    """Whether an object stands for a folder, as consoles and pyarrow make them.

    obstore tells them without the slash they end in. No file of ours is empty and has no ending.
    """
    return not size and (path == folder or "." not in path.rpartition("/")[2])


def _asked(key: str, ask: Callable[[], _T]) -> _T:
    """What a server answers; whatever obstore or boto3 raises is an `OSError` that says in a line what was wrong."""
    begin = time.monotonic()
    for retry in range(RETRIES + 1):
        try:
            return ask()
        except Exception as error:
            is_last = retry == RETRIES or time.monotonic() - begin >= RETRY_SECONDS
            if is_last or not (_is_cut(error) or _is_passing(error)):
                if _is_of_a_server(error):
                    raise _refusal(key, error) from error
                raise
        time.sleep(_FIRST_WAIT_SECONDS * 2**retry)
    raise AssertionError


def _is_met(key: str, ask: Callable[[], Any]) -> bool:
    """Whether the condition of a request was met; `NotImplementedError` if the server knows no such condition."""

    def asked() -> bool:
        try:
            ask()
        except Exception as error:
            if _code(error) in _UNMET:
                return False
            if _code(error) in ("501", "NotImplemented"):
                raise NotImplementedError from error
            raise
        return True

    return _asked(key, asked)


def _is_cut(error: Exception) -> bool:
    """Whether an answer broke off in its body, which object_store takes for the end."""
    return type(error).__module__.startswith("obstore") and "response body" in _told(error).partition("<")[0]


def _is_passing(error: Exception) -> bool:
    """Whether boto3 may get another answer later: it got none, or one of a server that is busy or broken."""
    from botocore.exceptions import ConnectionError, HTTPClientError

    status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return isinstance(error, ConnectionError | HTTPClientError) or status in (500, 502, 503, 504)


def _is_of_a_server(error: Exception) -> bool:
    """Whether obstore or boto3 raised it; not what a temporary file did, or a check."""
    is_theirs = type(error).__module__.startswith(("obstore", "botocore", "boto3", "s3transfer"))
    return is_theirs or isinstance(error, FileNotFoundError)


def _refusal(key: str, error: Exception) -> OSError:
    """What is raised in place of an error."""
    code = _code(error)
    if isinstance(error, FileNotFoundError) or code in ("404", "NoSuchKey", "NoSuchUpload"):
        return FileNotFoundError(errno.ENOENT, _reason(error), key)
    is_denied = type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError")
    is_denied = is_denied or "Denied" in f"{code} {_reason(error)}"
    return OSError(errno.EACCES if is_denied else errno.EIO, _reason(error))


def _code(error: Exception) -> str:
    """Of what boto3 raises, the code of the server's answer."""
    return str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    """What a server answered, or why it could not; not how often it was asked, nor what was sent."""
    text = str(error)
    if found := _TOLD.search(text):
        return f"{found[1]}: {one_line(found[2])}".rstrip(" .:")
    if any(name in text for name in _ASKED_FOR_KEYS):
        return "no keys were found in the environment, in ~/.aws or by asking this machine's cloud"
    return one_line(_told(error)).rstrip(" .:") or os.strerror(errno.EIO)


def _told(error: Exception) -> str:
    """An error of obstore without what only who debugs obstore reads."""
    return str(error).partition("\n\nDebug source")[0]
