"""An S3 server for tests, on this machine, that fails to order.

moto keeps the objects; before it stands a proxy, which passes requests on, notes them, and does to them what
`S3Server.inject` says. Both run in a process of their own, this file run as a script: pyarrow completes an upload that
nobody closed while it holds the GIL, and waits for an answer that a thread of the same process could never give. The
process ends with the one that began it, killed or not. They speak JSON lines: `[command, arguments]`, then the answer.

What the tests themselves put and list (`put`, `objects`, ...) goes past the proxy, so no fault hits it and no count
holds it. Requests that arrive at the same time are counted in the order of their arrival; one client with one request
at a time gets the same faults in every run. Signatures and checksums of requests are not verified.

In place of moto stands another server of S3 where `SCANRNN_TEST_S3` is the command that starts it, its port written as
`{port}` (`s3_localstack.py` is one): all tests of buckets run on that one then.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast
from urllib.parse import urlencode

Kind = Literal["refuse", "drop", "lose", "cut", "delay"]

_HOST = "127.0.0.1"
_SECONDS_TO_START = 60
_KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
_CODES = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 500: "InternalError", 503: "SlowDown"}
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length", "server", "date"}


@dataclass(eq=False)
class Fault:
    """What is done to some of the requests; `seen` counts those that it could have hit, `injected` those it did.

    Args:
        kind: "refuse" answers with `status` and "drop" closes the connection, both without passing the request on;
            "lose" passes it on and closes the connection without an answer; "cut" closes it in the middle of the
            answer's body, and hits only requests whose answer has one; "delay" waits `seconds` before passing on.
        every: hits each such request, or every second one, ...
        after: lets so many pass at first.
        times: hits no more than this, None for no end.
        methods: hits these alone; none for all.
        match: a regular expression that must be found in the path with its query ("/bucket/key?uploads").
    """

    kind: Kind
    every: int = 1
    after: int = 0
    times: int | None = None
    methods: tuple[str, ...] = ()
    match: str = ""
    status: int = 500
    seconds: float = 0.0
    seen: int = 0
    injected: int = 0

    def hits(self, method: str, path: str) -> bool:
        """Whether the next such request is hit; counts it."""
        if (self.methods and method not in self.methods) or not re.search(self.match, path):
            return False
        self.seen += 1
        hit = self.seen > self.after and (self.seen - self.after) % self.every == 0
        hit = hit and (self.times is None or self.injected < self.times)
        self.injected += hit
        return hit


@dataclass(frozen=True)
class Request:
    """A request that arrived at the proxy, and what became of it: a status, or the kind of a fault."""

    method: str
    path: str
    outcome: int | str


class S3Server:
    """The server as tests hold it, from `running()`; buckets are made by `create_bucket`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self.port, self._moto_port = self._ask("ports")

    def uri(self, path: str, **options: str) -> str:
        """The URI of "bucket/key" as pyarrow understands it; `options` go to its query."""
        return _uri(self.port, path, **options)

    def inject(self, kind: Kind, **options: Any) -> int:
        """Begin with a fault and give its number; for the options see `Fault`.

        Of several that hit a request the first one is done, and all delays.
        """
        return cast(int, self._ask("inject", kind=kind, **options))

    def injected(self, number: int) -> int:
        """How many requests the fault of this number has hit; none once it was calmed."""
        return cast(int, self._ask("injected", number=number))

    def calm(self) -> None:
        """End all faults, delays that wait too, and forget the noted requests."""
        self._ask("calm")

    @property
    def requests(self) -> list[Request]:
        """What arrived at the proxy since `calm`, in the order in which it was answered."""
        return [Request(*item) for item in self._ask("requests")]

    def count(self, method: str = "", match: str = "") -> int:
        """How many requests were noted, of all or of one method, with a path that matches."""
        return sum(method in ("", item.method) and bool(re.search(match, item.path)) for item in self.requests)

    def create_bucket(self, bucket: str) -> None:
        """A bucket without objects; one that is there is emptied."""
        try:
            self.empty(bucket)
        except self.client.exceptions.NoSuchBucket:
            self.client.create_bucket(Bucket=bucket)

    def empty(self, bucket: str) -> None:
        """Delete the objects of a bucket and abort its unfinished uploads."""
        for key in self.objects(bucket):
            self.client.delete_object(Bucket=bucket, Key=key)
        for upload in self._uploads(bucket):
            self.client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object."""
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket: str, key: str) -> bytes:
        """The content of an object."""
        with self.client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            return cast(bytes, body.read())

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """The keys of a bucket in their order, with sizes in bytes; markers of folders ("a/") too."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}

    def uploads(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that are neither completed nor aborted."""
        return sorted(upload["Key"] for upload in self._uploads(bucket))

    @cached_property
    def client(self) -> Any:
        """A boto3 client that goes past the proxy."""
        import boto3

        return boto3.client("s3", endpoint_url=f"http://{_HOST}:{self._moto_port}", **_KEYS)

    def _uploads(self, bucket: str) -> list[dict[str, str]]:
        return list(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))

    def _ask(self, command: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """A server, until the block ends."""
    child = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a line per request
        encoding="utf-8",
    )
    with child:  # leaving closes its input and waits
        server = S3Server(child)
        yield server
        if "client" in vars(server):
            server.client.close()


@contextlib.contextmanager
def refused_uri(path: str) -> Iterator[str]:
    """A URI of a server that is gone: in the block nobody listens at its port, nor can begin to."""
    with socket.socket() as held:
        held.bind((_HOST, 0))
        yield _uri(held.getsockname()[1], path)


def _uri(port: int, path: str, **options: str) -> str:
    query = {"endpoint_override": f"{_HOST}:{port}", "scheme": "http", "region": "us-east-1", **options}
    return f"s3://{path}?{urlencode(query)}"


@dataclass
class _Proxied:
    """What the proxy's threads share: faults by number, and what arrived."""

    moto_port: int
    faults: dict[int, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: int = 0

    def do(self, command: str, arguments: dict[str, Any]) -> Any:
        """What `S3Server` asks for."""
        with self.lock:
            if command == "inject":
                self.numbers += 1
                self.faults[self.numbers] = Fault(**arguments)
                return self.numbers
            if command == "injected":
                fault = self.faults.get(arguments["number"])
                return fault.injected if fault else 0
            if command == "requests":
                return [[item.method, item.path, item.outcome] for item in self.requests]
            assert command == "calm", command
            self.faults.clear()
            return self.requests.clear()


class _Proxy(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, shared: _Proxied) -> None:
        super().__init__((_HOST, 0), _Handler)
        self.shared = shared


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Proxy

    def do_GET(self) -> None:
        shared = self.server.shared
        content = self._content()
        with shared.lock:
            hits = [fault for fault in shared.faults.values() if fault.hits(self.command, self.path)]
        for fault in hits:
            if fault.kind == "delay":
                self._wait(fault)
        fault = next((fault for fault in hits if fault.kind != "delay"), Fault("delay"))
        if fault.kind == "refuse":
            return self._refuse(fault.status)
        if fault.kind == "drop":
            return self._close("drop")
        with contextlib.closing(HTTPConnection(_HOST, shared.moto_port)) as moto:
            if not self._copies_what_it_saw(moto):
                return self._refuse(412)
            moto.request(self.command, self.path, content, self._passed_on(content))
            with moto.getresponse() as answer:
                self._answer(fault, answer, answer.read())
        return None

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _copies_what_it_saw(self, moto: HTTPConnection) -> bool:
        """Whether the source of a copy is the one that is asked for, which moto does not look at."""
        wanted, source = self.headers.get("x-amz-copy-source-if-match"), self.headers.get("x-amz-copy-source", "")
        if wanted is None:
            return True
        headers = {name: value for name, value in self._passed_on(b"").items() if name.lower() == "authorization"}
        moto.request("HEAD", f"/{source.lstrip('/')}", headers=headers)
        with moto.getresponse() as answer:
            answer.read()
            return answer.status == 404 or answer.headers["ETag"].strip('"') == wanted.strip('"')

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def handle_expect_100(self) -> bool:
        """Tell the client to go on, now: it waits a second for it."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _content(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self._exactly(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self._line().split(b";")[0], 16):
            chunks.append(self._exactly(size))
            self._line()
        while self._line().strip():  # trailers
            pass
        return b"".join(chunks)

    def _exactly(self, size: int) -> bytes:
        """What a client that is killed has sent by then is no request: half an object must not be passed on."""
        content = self.rfile.read(size)
        if len(content) != size:
            raise ConnectionResetError(f"{len(content)} bytes of {size}")
        return content

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the end instead of a line")
        return line

    def _passed_on(self, content: bytes) -> dict[str, str]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        return headers if self.command in ("GET", "HEAD") else {**headers, "Content-Length": str(len(content))}

    def _wait(self, fault: Fault) -> None:
        end = time.monotonic() + fault.seconds
        while time.monotonic() < end and fault in list(self.server.shared.faults.values()):
            time.sleep(min(0.05, fault.seconds))

    def _answer(self, fault: Fault, answer: HTTPResponse, body: bytes) -> None:
        if fault.kind == "lose":
            return self._close("lose")
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        length = str(len(body)) if has_body else answer.headers.get("Content-Length")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        if fault.kind == "cut" and body:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            return self._close("cut")
        self.wfile.write(body)
        return self._note(answer.status)

    def _refuse(self, status: int) -> None:
        code = _CODES[status]
        # As long as the real ones: a client may have no room for it.
        ids = f"<RequestId>{'0' * 16}</RequestId><HostId>{'0' * 76}</HostId>"
        error = f"<Error><Code>{code}</Code><Message>We failed to order. Please try again.</Message>{ids}</Error>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
        content = b"" if self.command == "HEAD" else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self._note(status)

    def _close(self, kind: str) -> None:
        self._note(kind)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _note(self, outcome: int | str) -> None:
        with self.server.shared.lock:
            self.server.shared.requests.append(Request(self.command, self.path, outcome))


def _begin_moto() -> int:
    """Serve, in a thread; the port."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import make_server

    moto = make_server(_HOST, 0, create_backend_app("s3"), threaded=True)
    threading.Thread(target=moto.serve_forever, daemon=True).start()
    return moto.port


def _begin_other(command: str) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a server and wait until it listens; the port, and the process."""
    with socket.create_server((_HOST, 0)) as listener:
        port = listener.getsockname()[1]
    die_with_this = ctypes.CDLL(None).prctl  # 1: PR_SET_PDEATHSIG
    process = subprocess.Popen(
        [part.format(port=port) for part in shlex.split(command)], stdin=subprocess.DEVNULL, stdout=sys.stderr,
        preexec_fn=lambda: die_with_this(1, signal.SIGKILL),
    )  # fmt: skip
    for _ in range(_SECONDS_TO_START * 10):
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port)):
            return port, process
        time.sleep(0.1)
    raise RuntimeError(f"Nobody listens at port {port} {_SECONDS_TO_START} s after {command!r}.")


def _serve() -> None:
    """The process: serve, and do what the input says, until it ends."""
    other = os.environ.get("SCANRNN_TEST_S3")
    port, process = _begin_other(other) if other else (_begin_moto(), None)
    shared = _Proxied(port)
    proxy = _Proxy(shared)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for line in sys.stdin:
        command, arguments = json.loads(line)
        ports = [proxy.server_address[1], port]
        print(json.dumps(ports if command == "ports" else shared.do(command, arguments)), flush=True)
    if process is not None:
        process.kill()
        process.wait()
    os._exit(0)  # threads may still answer


if __name__ == "__main__":
    _serve()
