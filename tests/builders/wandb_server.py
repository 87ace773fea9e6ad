"""A server on loopback that stands in for W&B: it answers, fails, or never answers."""

import base64
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY, PROJECT = "someone", "prunesid"


@dataclass
class Server:
    """`requests` are the paths asked for, `operations` the GraphQL ones with their variables."""

    url: str
    requests: list[str] = field(default_factory=list)
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """The variables of every call of an operation."""
        return [variables for name, variables in self.operations if name == operation]


@contextmanager
def serve(behavior: str) -> Iterator[Server]:
    """A running server; behavior: answer, error or hang.

    An answer is enough of the protocol for `wandb sync` to finish (the run, its files, its tables),
    for artifacts to be logged and used (it says that it has their files), and for workspaces and
    reports to be saved and loaded.
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
                answer = _graphql(json.loads(body), described)
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


def _graphql(request: dict[str, Any], server: Server) -> dict[str, Any]:
    operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
    given = request.get("variables") or {}
    name = operation[1] if operation else ""
    server.operations.append((name, given))
    answer = ANSWERS.get(name)
    return {"data": answer(given, server) if answer else {}}


def _run(given: dict[str, Any], server: Server) -> dict[str, Any]:
    bucket = {
        "id": f"B{given['name']}",
        "name": given["name"],
        "displayName": given["displayName"],
        "config": "{}",
        "historyLineCount": 0,
        "project": {
            "id": "P",
            "name": given["project"],
            "entity": {"id": "E", "name": given["entity"] or ENTITY},
        },
    }
    return {"upsertBucket": {"bucket": bucket, "inserted": True}}


def _files(given: dict[str, Any], server: Server) -> dict[str, Any]:
    files = [{"name": name, "uploadUrl": f"{server.url}/upload/{name}"} for name in given["files"]]
    return {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": files}}


def _new_artifact(given: dict[str, Any], server: Server) -> dict[str, Any]:
    wanted = given["input"]
    key = f"A-{wanted['artifactCollectionName']}-{wanted['digest']}"
    server.artifacts[key] = wanted
    sequence = {"latestArtifact": {"id": key, "versionIndex": 0}}
    artifact = {"id": key, "state": "COMMITTED", "artifactSequence": sequence}
    return {"createArtifact": {"artifact": artifact}}


def _artifact(given: dict[str, Any], server: Server) -> dict[str, Any]:
    wanted = server.artifacts[given["id"]]
    project = {
        "id": "P",
        "internalId": "P",
        "name": wanted["projectName"],
        "entity": {"name": wanted["entityName"]},
    }
    empty = (
        "description", "metadata", "historyStep", "commitHash", "updatedAt", "digestAlgorithm",
        "aliases",
    )  # fmt: skip
    artifact = {
        "__typename": "Artifact",
        "id": given["id"],
        "artifactSequence": {
            "__typename": "ArtifactSequence",
            "name": wanted["artifactCollectionName"],
            "project": project,
        },
        "versionIndex": 0,
        "artifactType": {"name": wanted["artifactTypeName"]},
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
        "tags": [],
        "state": "COMMITTED",
        "size": 0,
        "digest": wanted["digest"],
        "fileCount": 0,
        "createdAt": "2026-01-01T00:00:00",
    }
    return {"artifact": dict.fromkeys(empty) | artifact}


def _artifact_type(given: dict[str, Any], server: Server) -> dict[str, Any]:
    return {"project": None}


def _projects(given: dict[str, Any], server: Server) -> dict[str, Any]:
    project = {
        "id": "P", "name": PROJECT, "entityName": ENTITY, "createdAt": "2026-01-01T00:00:00",
        "isBenchmark": False, "user": None,
    }  # fmt: skip
    page = {"endCursor": None, "hasNextPage": False}
    return {"models": {"edges": [{"node": project}], "pageInfo": page}}


def _project(given: dict[str, Any], server: Server) -> dict[str, Any]:
    return {"project": {"id": "P", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="}}


def _viewer(given: dict[str, Any], server: Server) -> dict[str, Any]:
    return {"viewer": {"id": "U", "entity": ENTITY, "username": ENTITY, "flags": "{}",
                       "teams": {"edges": []}}}  # fmt: skip


def _saved_view(given: dict[str, Any], server: Server) -> dict[str, Any]:
    # Addresses of reports hold ids as base64 without padding.
    key = given.get("id") or base64.b64encode(f"View:{len(server.views):04}".encode()).decode()
    server.views[key] = {
        "id": key,
        "type": given["type"],
        "name": given["name"],
        "displayName": given["displayName"],
        "description": given["description"],
        "spec": given["spec"],
        "createdAt": "2026-01-01T00:00:00",
        "updatedAt": "2026-01-01T00:00:00",
        "project": {"id": "P", "name": given["projectName"], "entityName": given["entityName"]},
    }
    return {"upsertView": {"view": server.views[key], "inserted": not given.get("id")}}


def _workspace(given: dict[str, Any], server: Server) -> dict[str, Any]:
    found = [v for v in server.views.values() if v["name"] == given["viewName"]]
    return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}


def _report(given: dict[str, Any], server: Server) -> dict[str, Any]:
    return {"view": server.views.get(given["reportId"])}


ANSWERS = {
    "UpsertBucket": _run,
    "CreateRunFiles": _files,
    "CreateArtifact": _new_artifact,
    "ArtifactByID": _artifact,
    "ArtifactType": _artifact_type,
    "Viewer": _viewer,
    "GetDefaultEntity": _viewer,
    "GetProjects": _projects,
    "ProjectInternalId": _project,
    "UpsertView2": _saved_view,
    "upsertView": _saved_view,
    "View": _workspace,
    "SpecificReport": _report,
}
