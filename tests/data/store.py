"""An object store on this machine: versitygw, and a way to it that answers 503 now and then."""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.cluster.testbed import build
from tests.serving import free_port

ACCESS, SECRET = "tabserve", "tabserve-secret"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
START_SECONDS = 30.0


class Store:
    """versitygw on a folder, whose subfolders are buckets."""

    def __init__(self, folder: Path) -> None:
        build.VERSITYGW.make()
        self._folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = build.VERSITYGW.folder / "versitygw"
        environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
        address = f"127.0.0.1:{self.port}"
        sidecar = self._folder.with_name("metadata")  # not every file system has attributes
        sidecar.mkdir(exist_ok=True)
        options: list[str | Path] = ["--port", address, "--quiet", "posix", "--sidecar", sidecar]
        command = [program, *options, self._folder]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < end, "versitygw does not answer"
            assert self._process.poll() is None, f"versitygw ended with {self._process.returncode}"

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def uri(self, path: str, port: int | None = None) -> str:
        """The URI of a path in the store, through another port if one is given."""
        return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{port or self.port}&region=us-east-1"

    def _answers(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        return False


class _Unreliable(ThreadingHTTPServer):
    daemon_threads = True
    target, count, refused = 0, 0, 0


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on, and answers every fifth with 503."""

    protocol_version = "HTTP/1.1"
    server: _Unreliable

    def _pass_on(self) -> None:
        body = self._body()
        self.server.count += 1
        if self.server.count % 5 == 0:
            self.server.refused += 1
            self._answer(503, [], b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() != "transfer-encoding"]
        self._answer(answer.status, headers, content)
        connection.close()

    def _body(self) -> bytes:
        """The body as it came, with the sizes of its chunks if it has any."""
        if "Transfer-Encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found, size = b"", -1
        while size != 0:
            line = self.rfile.readline()
            size = int(line, 16)
            found += line + self.rfile.read(size + 2)
        return found

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def unreliable(store: Store) -> Generator[_Unreliable]:
    """A port by way of which every fifth request to the store is answered with 503."""
    with _Unreliable(("127.0.0.1", 0), _Handler) as server:
        server.target = store.port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
