"""Where a bucket is and who asks for it: from a URI and the environment to a client of obstore, or of boto3.

A URI and its query mean what they mean to pyarrow, which reads sources by them, and writes where obstore is not
installed; keys come from the environment, from `~/.aws`, or from the machine. Nothing secret is held here: each process
looks its keys up for itself.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pyarrow import fs

from scanrnn_dist.storage.filesystems import CONNECT_SECONDS, RETRIES, endpoint_of_environment

logger = logging.getLogger("scanrnn_dist")

KEYS_ASKED_AGAIN = timedelta(minutes=10)
"""Keys of `~/.aws` count as good for so long, and obstore asks for them again five minutes before. botocore renews
those that have less than 15 minutes left, so none is used beyond its end. With obstore's half an hour some were."""
REQUEST_SECONDS = 60
"""A request is given up after so long, and made again. A piece of an upload is one: 8 MiB, four at once, in a minute
are 5 Mbit/s."""
RETRY_SECONDS = 60
"""No request is made again later than that."""
BOTO3_TRIES = 3
"""boto3 waits for so many answers, all in all as long; what refuses at once is asked again by `remote_objects.py`."""
_KINDS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_KEYS = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip
"""Where one of these is set, object_store finds its keys by itself."""


@dataclass(frozen=True)
class RemoteOptions:
    """A bucket: its kind ("s3", "gcs", "azure"), name and region, and what the query of its URI says."""

    kind: str
    bucket: str
    region: str = ""
    account: str = ""
    query: tuple[tuple[str, str], ...] = ()

    @property
    def endpoint(self) -> str:
        """Of a server that is not the cloud's own; empty if it is."""
        told = dict(self.query)
        host = told.get("endpoint_override") or told.get("blob_storage_authority", "")
        if not host or "://" in host:
            return host
        return f"{told.get('scheme') or told.get('blob_storage_scheme') or 'https'}://{host}"

    @property
    def verifies(self) -> bool:
        """Whether certificates of the server are verified."""
        return dict(self.query).get("tls_verify_certificates", "true").lower() in ("1", "true")


def remote_options(uri: str, filesystem: fs.FileSystem, path: str) -> RemoteOptions | None:
    """What a URI that pyarrow understands says of its bucket; None where it is pyarrow that has to speak to it.

    That is where obstore does not know such stores, or is not installed, of which is warned once.
    """
    scheme, _, rest = uri.partition("://")
    kind = _KINDS.get(scheme.lower())
    if kind is None or not _is_installed(scheme.lower()):
        return None
    bucket = path.partition("/")[0]
    query = tuple(sorted(parse_qsl(rest.partition("?")[2])))
    if kind == "s3":
        region = filesystem.region
        return RemoteOptions(kind, bucket, region, query=query)
    if kind == "gcs":
        if rest.startswith("anonymous@"):
            query = (*query, ("anonymous", "true"))
        return RemoteOptions(kind, bucket, query=query)
    account = filesystem.__reduce__()[1][0]["account_name"]
    return RemoteOptions(kind, bucket, account=account, query=query)


@lru_cache
def _is_installed(scheme: str) -> bool:
    """Whether what speaks to a bucket under conditions is there."""
    try:
        import boto3  # noqa: F401
        import obstore  # noqa: F401
    except ImportError as error:
        logger.warning(
            "%s is not installed, so %s:// is written by pyarrow, which knows no conditional writes. "
            "`pip install -e '.[remote]'` brings it.",
            error.name,
            scheme,
        )
        return False
    return True


@lru_cache(maxsize=8)
def obstore_client(options: RemoteOptions) -> Any:
    """What asks the server, for all that obstore offers."""
    from obstore.store import AzureStore, GCSStore, S3Store

    endpoint, told = options.endpoint, dict(options.query)
    common: dict[str, Any] = {"client_options": _client_options(options), "retry_config": _retries()}
    if options.kind == "gcs":
        common |= {"base_url": endpoint} if endpoint else {}
        common |= {"skip_signature": True} if "anonymous" in told else {}
        return GCSStore(options.bucket, **common)
    if options.kind == "azure":
        common |= {"endpoint": f"{endpoint}/{options.account}"} if endpoint else {}
        return AzureStore(options.bucket, account_name=options.account, **common)
    endpoint = endpoint or endpoint_of_environment()
    is_virtual = not endpoint and "." not in options.bucket
    if endpoint:
        common["aws_endpoint_url_s3"] = endpoint  # goes before all that obstore finds in the environment itself
    if provider := _profile():
        common["credential_provider"] = provider
    elif not _has_keys() and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        common["skip_signature"] = True  # which object_store does not heed, and asks a network that is not there
    return S3Store(options.bucket, region=options.region, virtual_hosted_style_request=is_virtual, **common)


@lru_cache(maxsize=8)
def boto3_client(options: RemoteOptions, is_patient: bool = False) -> Any:
    """What asks an S3 server for what obstore does not offer; for copies, which take long, a patient one."""
    import boto3
    from botocore.config import Config

    told = dict(options.query)
    tries, seconds = (RETRIES + 1, REQUEST_SECONDS) if is_patient else (BOTO3_TRIES, REQUEST_SECONDS / BOTO3_TRIES)
    config = Config(
        retries={"total_max_attempts": tries, "mode": "standard"}, connect_timeout=CONNECT_SECONDS, read_timeout=seconds
    )
    verify = options.verifies and (told.get("tls_ca_file_path") or True)
    return boto3.Session().client(
        "s3", region_name=options.region, endpoint_url=options.endpoint or endpoint_of_environment() or None,
        config=config,
        verify=None if verify is True else verify,
    )  # fmt: skip


def _client_options(options: RemoteOptions) -> dict[str, Any]:
    told = dict(options.query)
    is_plain = (options.endpoint or endpoint_of_environment()).startswith("http://")
    chosen: dict[str, Any] = {
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
    }
    if is_plain:
        chosen["allow_http"] = True
    if not options.verifies:
        chosen["allow_invalid_certificates"] = True
    if path := told.get("tls_ca_file_path"):
        with open(path, "rb") as file:
            chosen["root_certificate"] = file.read()
    return chosen


def _retries() -> dict[str, Any]:
    """Each wait is drawn between the first and six times the one before: ten come to 27 s, of 100 requests 5 give 9."""
    waits = {"init_backoff": timedelta(milliseconds=25), "base": 6, "max_backoff": timedelta(seconds=6)}
    return {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS), "backoff": waits}


def _has_keys() -> bool:
    return any(name in os.environ for name in _KEYS)


def _profile() -> Any:
    """What finds keys in `~/.aws`, also such as expire; None if there is no such file, or the environment has keys."""
    if _has_keys():
        return None
    files = [
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    ]
    if not any(os.path.exists(os.path.expanduser(path)) for path in files):
        return None
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session()
    return None if session.get_credentials() is None else Boto3CredentialProvider(session, ttl=KEYS_ASKED_AGAIN)
