"""Which store a destination is, and how an attempt at a job is named."""

from __future__ import annotations

import os
import re
import socket
import uuid
from pathlib import Path
from urllib.parse import quote

from scanrnn_dist.disk import is_within
from scanrnn_dist.errors import ConfigError
from scanrnn_dist.kinds import check_kind
from scanrnn_dist.storage.arrow_objects import ArrowObjects
from scanrnn_dist.storage.bucket import ObjectStore
from scanrnn_dist.storage.filesystems import is_uri, resolve
from scanrnn_dist.storage.local import LocalStore
from scanrnn_dist.storage.protocol import RECORDS, Store
from scanrnn_dist.storage.remote_objects import RemoteObjects
from scanrnn_dist.storage.remote_options import remote_options

_NOT_IN_URIS = r"""[\x00- "#%<>?\\^`{|}]"""


def this_host() -> str:
    """This machine's name in letters, digits and hyphens."""
    return "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname()) or "host"


def new_attempt() -> str:
    """A name for what this process does from now on, unlike any other: host, process, eight random digits."""
    return f"{this_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def open_store(destination: str | os.PathLike[str]) -> Store:
    """The store of a destination, which need not exist yet, for an attempt of its own.

    Args:
        destination: a folder of this machine, also as `file://`, or a URI that pyarrow understands; or a store, which
            is given back as it is.

    Raises:
        ConfigError: a name that is no text, a URI that cannot be opened, or something that is no folder.
    """
    if isinstance(destination, Store):
        return destination
    check_kind("destination", destination, str | os.PathLike, "a folder or a URI")
    if not os.fspath(destination):
        raise ConfigError("The destination has no name; expected a folder or a URI. Is a variable empty?")
    filesystem, uri, path = resolve(os.fspath(destination))
    if RECORDS in path.split("/"):
        raise ConfigError(
            f"{os.fspath(destination)} lies among the records of a job ({RECORDS}); name the folder that they are in."
        )
    if uri is None:
        folder = Path(path if is_uri(os.fspath(destination)) else os.path.expanduser(destination))
        for above in (folder, *folder.parents):
            if os.path.lexists(above) and not os.path.isdir(above):
                below = "" if above == folder else f" {folder} lies below it."
                raise ConfigError(f"{above} is a file; the destination must be a folder.{below}")
        return LocalStore(str(folder), new_attempt())
    scheme = uri.partition("://")[0]
    # Named without what else a URI may hold: an access key, a secret, an endpoint.
    prefix = path.rstrip("/")
    if {"", ".", ".."} & set(prefix.lstrip("/").split("/")):
        raise ConfigError(f"{os.fspath(destination)!r} has a part without a name, or '.' or '..', between its slashes.")
    shown = re.sub(_NOT_IN_URIS, lambda letter: quote(letter[0]), prefix)  # so that it can be given again
    root, options = f"{scheme}://{shown}", remote_options(uri, filesystem, path)
    if options is None:
        return ObjectStore(root, new_attempt(), ArrowObjects(filesystem, uri), prefix, uri=uri)
    return ObjectStore(root, new_attempt(), RemoteObjects(options), prefix.partition("/")[2], uri=uri)


def check_is_outside(path: str | os.PathLike[str], root: str) -> None:
    """Refuse to write a file within a destination, named by the root of its store or of a restart's; `ConfigError`."""
    if not is_uri(root) and is_within(path, root.partition(f"/{RECORDS}/")[0]):
        raise ConfigError(
            f"The file {path} lies within {root}, where readers take it for a part; choose another place."
        )
