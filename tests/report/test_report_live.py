"""A page that is served: to this machine alone, by its own name alone, and until Ctrl-C."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scanrnn_dist import cli
from scanrnn_dist.errors import ConfigError, DataError
from scanrnn_dist.report import LiveServer, read_numbers
from scanrnn_dist.report.live import FRESH_SECONDS


@contextmanager
def served(server: LiveServer) -> Iterator[LiveServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def answer(server: LiveServer, path: str = "/", *hosts: str, method: str = "GET") -> tuple[int, str]:
    """What the server says to who calls it by these names."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for host in hosts or (f"127.0.0.1:{server.server_port}",):
        connection.putheader("Host", host)
    connection.endheaders()
    told = connection.getresponse()
    text = told.read().decode()
    connection.close()
    return told.status, text


def test_the_page_is_served_to_this_machine_by_its_own_name(out: Path, needs_extra: None) -> None:
    with served(LiveServer(lambda before: before or read_numbers(out))) as server:
        assert server.server_address[0] == "127.0.0.1"
        code, page = answer(server)
        assert code == 200 and 'id="live"' in page and "connect-src &#39;self&#39;" in page
        for host in ("localhost:1", "localhost", "127.0.0.1"):
            assert answer(server, "/now.json", host)[0] == 200
        for hosts in (["evil.example"], [f"evil.example:{server.server_port}"], ["localhost", "evil.example"], [""]):
            code, text = answer(server, "/", *hosts)
            assert code == 403 and len(text) < 200
        assert answer(server, "/../etc/passwd")[0] == 404 and answer(server, method="HEAD") == (200, "")
        assert answer(server, method="POST")[0] == 501


def test_news_are_read_anew_but_not_too_often(out: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, looks, now = read_numbers(out), list[Any](), [0.0]

    def look(before: Any) -> Any:
        if len(looks) == 2:
            raise DataError("the records are damaged")
        looks.append(before)
        return numbers

    monkeypatch.setattr("scanrnn_dist.report.live.time", SimpleNamespace(monotonic=lambda: now[0]))
    with served(LiveServer(look)) as server:
        news = json.loads(answer(server, "/now.json")[1])
        assert (news["state"], sorted(news["plots"])) == ("complete", ["features", "lengths", "map", "throughput"])
        assert "60 rows" in news["body"] and "<i>" not in news["body"] and "<script" not in news["body"]
        answer(server, "/now.json")
        assert looks == [None]
        now[0] += FRESH_SECONDS + 1
        answer(server, "/now.json")
        assert looks == [None, numbers]
        now[0] += FRESH_SECONDS + 1
        assert answer(server, "/now.json") == (503, "the records are damaged\n")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 cannot be used: .*another --port"):
            LiveServer(lambda before: pytest.fail("nobody asked"), port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_the_page_is_and_ends_in_order(
    out: Path, needs_extra: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    seen: list[str] = []

    def serve(server: LiveServer, poll_interval: float) -> None:
        seen.append(capsys.readouterr().out)
        assert f":{server.server_port}/" in seen[0]
        signal.raise_signal(number)

    monkeypatch.setattr(LiveServer, "serve_forever", serve)
    assert cli.run(["report", str(out), "--live", "--json"]) == 0
    assert json.loads(seen[0])["url"].startswith("http://127.0.0.1:")
    assert "not served any more" in capsys.readouterr().err


def test_flags_of_a_file_and_of_a_server_exclude_one_another(
    out: Path, tmp_path: Path, needs_extra: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", str(out), "--live", "--output", str(tmp_path / "a.html")]) == 2
    assert "--live serves the page" in capsys.readouterr().err
    assert cli.run(["report", str(out), "--port", "8000"]) == 2 and "--live" in capsys.readouterr().err
    assert cli.run(["report", str(tmp_path), "--live"]) == 2 and "no output of a job" in capsys.readouterr().err
