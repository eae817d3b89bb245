"""The page of a job that runs, served to this machine alone; the page asks for news every few seconds.

Two paths are answered, `/` and `/now.json`, and only where the request names this machine as its host: a page of
another site whose name was made to point here (DNS rebinding) gets nothing. Nothing is read while nobody asks.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scanrnn_dist.errors import ConfigError, ScanRNNError
from scanrnn_dist.report.numbers import ReportNumbers
from scanrnn_dist.report.page import news_of, page_of

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""What a request may call this machine. Any port will do: it may come through a tunnel."""
FRESH_SECONDS = 2.0
"""Numbers that are younger are handed out again: many open pages cost no more than one."""


class LiveServer(ThreadingHTTPServer):
    """Serves the page of the numbers that `look` reads; `serve_forever` begins it, `shutdown` ends it.

    Args:
        look: reads the numbers of the job, given those that were read before, if any.
        port: of this machine; 0 for any that is free.

    Raises:
        ConfigError: the port is taken, or may not be used.

    Example:
        >>> with LiveServer(lambda before: read_numbers("out")) as server:  # doctest: +SKIP
        ...     print(server.url)
        ...     server.serve_forever()
        http://127.0.0.1:41233/
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, look: Callable[[ReportNumbers | None], ReportNumbers], port: int = 0) -> None:
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"Port {port} of {LOOPBACK} cannot be used: {reason}. Choose another --port.") from error
        self._look, self._lock = look, threading.Lock()
        self._read_at = float("-inf")
        self._numbers: ReportNumbers | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def numbers(self) -> ReportNumbers:
        """The numbers of the job, at most two seconds old."""
        with self._lock:
            if self._numbers is None or time.monotonic() - self._read_at > FRESH_SECONDS:
                self._numbers = self._look(self._numbers)
                self._read_at = time.monotonic()
            return self._numbers

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news; what else goes wrong is told as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version, sys_version = "scanrnn", ""

    def do_GET(self) -> None:
        """Answer one of the two paths."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].partition(":")[0] not in NAMES:
            self._answer(403, "text/plain", f"This server is {self.server.url} and answers to no other name.\n")
            return
        try:
            if self.path == "/":
                self._answer(200, "text/html", page_of(self.server.numbers(), live=True))
            elif self.path == "/now.json":
                self._answer(200, "application/json", json.dumps(news_of(self.server.numbers()), allow_nan=False))
            else:
                self._answer(404, "text/plain", "There is nothing here; see /.\n")
        except ScanRNNError as error:  # as while another job takes the place of this one
            self._answer(503, "text/plain", f"{error}\n")

    do_HEAD = do_GET

    def _answer(self, code: int, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(code)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content)), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are no news."""
