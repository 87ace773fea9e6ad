"""A server on loopback that stands in for W&B: it answers, fails, or never answers."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Server:
    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(behavior: str) -> Iterator[Server]:
    """A running server whose `requests` are the paths asked for; behavior: answer, error or hang.

    An answer is enough of the protocol for `wandb sync` to finish: the run, its files, its tables.
    """
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            # wandb reports its own performance without being asked to; that is no run.
            if "/otel/" not in self.path:
                described.requests.append(self.path)
            if behavior == "hang":
                closing.wait()
                return
            answer = {}
            if behavior == "answer" and self.path == "/graphql":
                answer = _graphql(json.loads(body), described.url)
            text = json.dumps(answer).encode()
            self.send_response(200 if behavior == "answer" else 500)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST

        def log_message(self, format: str, *args: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            # A client that is ended resets its connection; anything else is worth a word.
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    server = Quiet(("127.0.0.1", 0), Handler)
    described = Server(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield described
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.socket.close()


def _graphql(request: dict[str, Any], url: str) -> dict[str, Any]:
    operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
    given = request.get("variables") or {}
    if operation is None:
        return {"data": {}}
    if operation[1] == "UpsertBucket":
        entity = {"id": "E", "name": "someone"}
        bucket = {
            "id": f"B{given['name']}",
            "name": given["name"],
            "displayName": given["displayName"],
            "config": "{}",
            "historyLineCount": 0,
            "project": {"id": "P", "name": given["project"], "entity": entity},
        }
        return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
    if operation[1] == "CreateArtifact":
        sequence = {"latestArtifact": {"id": "A"}}
        artifact = {"id": "A", "state": "COMMITTED", "artifactSequence": sequence}
        return {"data": {"createArtifact": {"artifact": artifact}}}
    if operation[1] == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in given["files"]]
        return {"data": {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": files}}}
    return {"data": {}}
