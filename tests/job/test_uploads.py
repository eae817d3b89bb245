"""Uploads that a process began and never completed: nobody sees them, `clean` names and aborts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import WITHOUT_OBSTORE
from s3_server import S3Server
from sources import featurize, random_rows, write_source

from scanrnn_dist.job.cleaning import clean

pytestmark = pytest.mark.skipif(WITHOUT_OBSTORE, reason="pyarrow cannot list uploads.")


def began(s3: S3Server, key: str) -> None:
    """An upload of a piece, left alone."""
    upload = s3.client.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
    s3.client.upload_part(Bucket="bucket", Key=key, PartNumber=1, UploadId=upload, Body=b"x" * 1000)


def test_unfinished_uploads_of_a_destination_are_named_and_aborted(s3: S3Server, tmp_path: Path) -> None:
    source, uri = write_source(tmp_path / "in.parquet", random_rows([3])), s3.uri("bucket/out")
    featurize(source, uri)
    for key in ("out/part-00000.parquet", "out/part-00001.parquet", "outside/part-00000.parquet"):
        began(s3, key)
    named = [name for name in clean(uri, dry_run=True).names if "unfinished upload" in name]
    assert [name.partition(" ")[0] for name in named] == ["part-00000.parquet", "part-00001.parquet"]
    assert len(s3.uploads("bucket")) == 3
    assert [name for name in clean(uri).names if "unfinished upload" in name] == named
    assert s3.uploads("bucket") == ["outside/part-00000.parquet"]
    assert s3.get("bucket", "out/part-00000.parquet"), "the part itself stays"


@pytest.mark.parametrize("status", [403, pytest.param(501, marks=pytest.mark.sweep)])  # tried again for 20 s
def test_where_uploads_may_not_be_listed_the_rest_is_cleaned(s3: S3Server, tmp_path: Path, status: int) -> None:
    source, uri = write_source(tmp_path / "in.parquet", random_rows([3])), s3.uri("bucket/out")
    featurize(source, uri)
    s3.inject("refuse", methods=("GET",), match="uploads", status=status)
    assert any(name.startswith("__scanrnn/workers/1-of-1.") for name in clean(uri).names)
