"""Which filesystem a name means: this machine's, or the one that a URI tells pyarrow of."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from scanrnn_dist.errors import ConfigError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:\ is a drive


def is_uri(name: str) -> bool:
    """Whether a name is a URI rather than a path of this machine.

    Example:
        >>> is_uri("s3://bucket/x"), is_uri("C:/x"), is_uri("x")
        (True, False, False)
    """
    return _SCHEME.match(name) is not None


def resolve(name: str) -> tuple[fs.FileSystem, str | None, str]:
    """Filesystem, the URI to reach it by (None for this machine), and the path in it.

    Raises:
        ConfigError: a URI that pyarrow does not understand, or that holds a secret, which would end in the records.
    """
    if not is_uri(name):
        path = os.path.abspath(os.path.expanduser(name)).replace(os.sep, "/")
        return fs.LocalFileSystem(), None, path
    if urlsplit(name).password is not None:
        raise ConfigError(
            f"A {name.partition('://')[0]}:// URI holds a secret, which would be written to the records of the job; "
            "expected one without. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store reads, instead."
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(name)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{name!r} cannot be opened: {error}. Expected a path or a URI that pyarrow understands."
        ) from error
    return filesystem, name, path
