"""What a URI and the environment say of a bucket, and that obstore asks the server that they name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3_server import S3Server

from scanrnn_dist.errors import ConfigError
from scanrnn_dist.storage import LocalStore, ObjectStore, open_store, remote_options, resolve
from scanrnn_dist.storage.remote_objects import RemoteObjects
from scanrnn_dist.storage.remote_options import RemoteOptions, boto3_client, obstore_client

ENDPOINTS = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
"""Each goes before those behind it."""
NAMES = ("AWS_REGION", "AWS_DEFAULT_REGION", *ENDPOINTS)
DEAD = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("obstore")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    obstore_client.cache_clear()  # it was made in another environment
    boto3_client.cache_clear()
    yield
    obstore_client.cache_clear()
    boto3_client.cache_clear()


def options_of(uri: str) -> RemoteOptions:
    store = open_store(uri)
    assert isinstance(store, ObjectStore) and isinstance(store.objects, RemoteObjects)
    return store.objects.options


@pytest.mark.parametrize(
    ("uri", "environment", "kind", "bucket", "region", "endpoint", "prefix"),
    [
        ("s3://b/a/c?region=eu-west-1", {}, "s3", "b", "eu-west-1", "", "a/c"),
        ("s3://b", {"AWS_REGION": "eu-west-1"}, "s3", "b", "eu-west-1", "", ""),
        ("s3://b/a/", {"AWS_DEFAULT_REGION": "eu-west-1"}, "s3", "b", "eu-west-1", "", "a"),
        ("s3://b/a?region=us-east-2", {"AWS_REGION": "eu-west-1"}, "s3", "b", "us-east-2", "", "a"),
        ("s3://b/a?endpoint_override=minio:9000&scheme=http&region=x", {}, "s3", "b", "x", "http://minio:9000", "a"),
        ("s3://b/a?endpoint_override=minio:9000&region=x", {}, "s3", "b", "x", "https://minio:9000", "a"),
        ("s3://b/a", {"AWS_ENDPOINT_URL": "http://minio:9000"}, "s3", "b", "us-east-1", "", "a"),
        ("gs://b/a/c", {}, "gcs", "b", "", "", "a/c"),
        ("gs://anonymous@b/a?scheme=http&endpoint_override=x:1", {}, "gcs", "b", "", "http://x:1", "a"),
        ("abfss://container@account.dfs.core.windows.net/a/c", {}, "azure", "container", "", "", "a/c"),
    ],
)
def test_where_a_bucket_is(
    uri: str, environment: dict[str, str], kind: str, bucket: str, region: str, endpoint: str, prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options, store = options_of(uri), open_store(uri)
    assert (options.kind, options.bucket, options.region, options.endpoint) == (kind, bucket, region, endpoint)
    assert isinstance(store, ObjectStore) and store.prefix == prefix
    assert options.account == ("account" if kind == "azure" else "")
    assert "?" not in store.root


def check_is_asked(uri: str) -> None:
    """obstore and boto3 write to the server, and pyarrow reads from it."""
    store = open_store(uri)
    assert store.create("x", b"1") and not store.create("x", b"2")
    store.remove("x", store.version("x") or "")
    store.write("y", b"2")
    assert store.below() == {"y": 1}
    filesystem, _, path = resolve(uri)
    with filesystem.open_input_stream(f"{path}/y") as stream:
        assert stream.read() == b"2"


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_server_that_the_environment_names_is_asked_by_both_readers_and_writers(
    name: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for behind in ENDPOINTS[ENDPOINTS.index(name) :]:
        monkeypatch.setenv(behind, DEAD)
    monkeypatch.setenv(name, f"http://127.0.0.1:{s3.port}")
    check_is_asked("s3://bucket/out")


def test_a_server_that_the_uri_names_goes_before_the_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.setenv(name, DEAD)
    check_is_asked(s3.uri("bucket/out"))


@pytest.mark.parametrize(("told", "verify"), [("false", False), ("true", "/ca.pem")])
def test_certificates_are_verified_as_the_uri_says(told: str, verify: bool | str) -> None:
    query = f"region=x&tls_ca_file_path=/ca.pem&tls_verify_certificates={told}"
    client = boto3_client(options_of(f"s3://b/a?endpoint_override=minio:9000&{query}"))
    assert client._endpoint.http_session._verify == verify


def test_keys_of_a_profile_are_asked_for_again_before_they_can_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    for name in remote_options._KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    keys = remote_options._profile()()
    assert keys["access_key_id"] == "a"
    assert keys["expires_at"] - datetime.now(UTC) < timedelta(minutes=15), "from then on botocore renews them"


def test_a_file_uri_is_a_folder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = open_store(f"file://{tmp_path}/out")
    assert isinstance(store, LocalStore) and store.root == f"{tmp_path}/out"


def test_a_secret_in_a_uri_is_refused() -> None:
    azure = "abfs://c@acct.dfs.core.windows.net/out"
    for uri in ("s3://key:secret@bucket/out?region=x", f"{azure}?sv=1&sig=secret", f"{azure}?client_secret=secret"):
        with pytest.raises(ConfigError, match="holds a secret") as error:
            open_store(uri)
        assert "=secret" not in str(error.value) and ":secret" not in str(error.value)


def test_without_obstore_pyarrow_writes_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, s3: S3Server
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    module = sys.modules["scanrnn_dist.storage.remote_options"]
    module._is_installed.cache_clear()
    try:
        for _ in range(2):
            store = open_store(s3.uri("bucket/out"))
            assert isinstance(store, ObjectStore) and not isinstance(store.objects, RemoteObjects)
            store.write("x", b"1")
        (record,) = caplog.records
        assert "obstore is not installed" in record.message and "'.[remote]'" in record.message
    finally:
        module._is_installed.cache_clear()
    assert not store.is_exact("x", b"1")
