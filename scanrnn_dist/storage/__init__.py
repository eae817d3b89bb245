"""Bytes that must not be lost: a destination, be it a folder or a prefix of a bucket, and the filesystems of sources.

`Store` says what a job may ask of a destination; `open_store` tells which of the two a name means.
"""

from scanrnn_dist.storage.arrow_objects import ArrowObjects
from scanrnn_dist.storage.asking import at_once
from scanrnn_dist.storage.bucket import ObjectStore
from scanrnn_dist.storage.fetched import FetchedFile, Span
from scanrnn_dist.storage.filesystems import SteadyFile, is_uri, looking_at, open_input_file, resolve, split_query
from scanrnn_dist.storage.local import LocalStore
from scanrnn_dist.storage.open import check_is_outside, new_attempt, open_store, this_host
from scanrnn_dist.storage.protocol import ASIDE, RECORDS, Check, NewFile, Store, staged, stopping, unstaged
