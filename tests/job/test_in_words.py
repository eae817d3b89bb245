"""What `status` says a job is, from its record."""

from __future__ import annotations

from typing import Any

import pytest

from scanrnn_dist.job import in_words
from scanrnn_dist.job.in_words import (
    command_that_continues,
    encoder_in_words,
    job_in_words,
    sequences_in_words,
    way_to_continue,
)
from scanrnn_dist.job.options import JobOptions
from scanrnn_dist.job.restart import restart_of
from scanrnn_dist.job.wanted import _differing
from scanrnn_dist.records import JobRecords
from scanrnn_dist.source import BadRows
from scanrnn_dist.storage import open_store

CELL = {"cell": "GRUCell", "hidden_features": 64}
LSTM = {"cell": "OptimizedLSTMCell", "hidden_features": 32}


def job(layers: list[Any], recipe: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    told = JobOptions(layout="nested-lists", column="x", **options).to_json()
    return {
        "options": {**told, "source": "in.parquet"},
        "encoder": {"architecture": {"layers": layers, "readout": "last"}},
        "environment": {"kernel": "native", "device_kind": "cpu", "versions": {"scanrnn_dist": "1.0", "jax": "0.10.2"}},
        "recipe": recipe or {},
    }


@pytest.mark.parametrize(
    ("layers", "recipe", "words"),
    [
        ([CELL], {"hidden_features": 64, "seed": 3}, "GRU, 64 hidden features, random weights of seed 3"),
        ([CELL, CELL], {}, "2 layers of GRU, 64 hidden features, weights of a file or of Python"),
        (
            [{"forward": LSTM, "backward": LSTM}],
            {},
            "bidirectional LSTM, 32 hidden features, weights of a file or of Python",
        ),
        ([{"cell": "my.Cell"}], {}, "my.Cell, ? hidden features, weights of a file or of Python"),
    ],
)
def test_an_encoder_in_words(layers: list[Any], recipe: dict[str, Any], words: str) -> None:
    assert encoder_in_words(job(layers, recipe)) == words


def test_only_options_that_were_chosen_are_told() -> None:
    assert "options" not in job_in_words(job([CELL]), [])
    told = job_in_words(job([CELL], max_steps=7, bad_rows=BadRows(bad_value="zero"), keep=["id"]), [])
    assert told["options"] == "max_steps 7, bad_value zero"
    assert told["source"] == "in.parquet"


def test_the_first_attempt_says_when_it_was_begun() -> None:
    told = job_in_words(job([CELL]), [{"started": 2e9}, {"started": 1e9}])
    assert told["begun"].startswith("2001-09-09 ")


def test_where_the_sequences_stand() -> None:
    assert sequences_in_words({"group_by": ["client"], "order_by": ["time"]}) == (
        "one step a row, grouped by client, in the order of time"
    )
    assert sequences_in_words({"features": ["a", "b"], "layout": "list-columns"}) == "columns a, b (list-columns)"


def test_the_command_is_one_that_a_shell_takes() -> None:
    assert command_that_continues("my features") == "scanrnn resume 'my features'"


def test_commands_for_a_bucket_name_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://bucket/x?endpoint_override=minio:9000&scheme=http&region=eu"
    records = JobRecords(open_store(uri))
    assert way_to_continue(records, {"options": {}}).startswith(f"scanrnn resume '{uri}', or ")
    assert f"scanrnn resume '{uri}';" in str(_differing(records.store, ["seed was 1 and is 2"]))
    monkeypatch.setattr(in_words, "source_of", lambda records, job: "new.parquet")
    command = way_to_continue(restart_of(records), {"options": {"applied": ["once"], "ids": ["id"]}})
    assert command == f"scanrnn update '{uri}' new.parquet --ids id"
