"""TODO storage."""

from scanrnn_dist.storage.bucket import ObjectStore
from scanrnn_dist.storage.filesystems import is_uri, looking_at, open_input_file, resolve
from scanrnn_dist.storage.local import ASIDE, LocalStore
from scanrnn_dist.storage.open import new_attempt, open_store, this_host
from scanrnn_dist.storage.protocol import Check, Part, Store, staged, stopped, stopping, unstaged
