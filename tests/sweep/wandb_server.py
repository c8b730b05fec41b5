"""A server on this machine that speaks as much of Weights & Biases' protocol as runs, artifacts and reports need."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "P", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==", "name": "stylesweep", "entityName": "me"}
PROJECT |= {"createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None, "entity": {"id": "E", "name": "me"}}
VIEW = {"id": "Vmlldzox", "type": "runs", "name": "n", "displayName": "made", "description": "", "spec": "{}"}


@dataclass
class Seen:
    """What the server was asked for and given."""

    address: str = ""
    queries: list[dict[str, Any]] = field(default_factory=list)  # GraphQL, as it came
    uploads: dict[str, bytes] = field(default_factory=dict)  # file name -> content
    streamed: str = ""  # history, summary and measurements of all runs, as text

    def variables(self, query: str) -> list[dict[str, Any]]:
        """The variables of every query of this name."""
        return [q["variables"] for q in self.queries if re.search(rf"(query|mutation)\s+{query}\b", q["query"])]


@contextmanager
def wandb_server() -> Iterator[Seen]:
    """Serves until the block ends."""
    seen = Seen()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if not self.path.startswith("/graphql"):
                seen.streamed += body.decode(errors="replace") if "file_stream" in self.path else ""
                return self._send({})
            query = json.loads(body)
            seen.queries.append(query)
            self._send({"data": answers(query.get("variables") or {}, seen.address)})

        def do_PUT(self) -> None:
            seen.uploads[self.path.removeprefix("/storage/")] = self._body()
            self._send({})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

        def _send(self, found: dict[str, Any]) -> None:
            content = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        seen.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield seen
        server.shutdown()


def answers(asked: dict[str, Any], address: str) -> dict[str, Any]:
    """One answer to every query: wandb takes the part that it asked for."""

    def place(name: str) -> dict[str, Any]:
        url = {"uploadUrl": f"{address}/storage/{name}", "uploadHeaders": [], "uploadMultipartUrls": None}
        return {"id": "F", "name": name, "displayName": name, "storagePath": name, "artifact": {"id": "A"}} | url

    bucket = {"id": "R", "name": asked.get("name"), "displayName": asked.get("displayName"), "project": PROJECT}
    manifest = {"artifactManifest": {"id": "M", "file": place("manifest.json")}}
    kind = "run_table" if str(asked.get("name", "")).startswith("run-") else "lora"
    files = [file["name"] for file in (asked.get("input") or {}).get("artifactFiles", [])]
    return {
        "viewer": {"id": "U", "username": "me", "email": "", "admin": False, "flags": "{}", "entity": "me"}
        | {"teams": {"edges": []}, "apiKeys": {"edges": []}},
        "project": PROJECT | {"artifact": {"artifactType": {"name": kind}}},
        "models": {"pageInfo": {"hasNextPage": False, "endCursor": None}, "edges": [{"node": PROJECT, "cursor": ""}]},
        "upsertView": {"view": VIEW | {"project": PROJECT, "updatedAt": "2026-01-01T00:00:00"}, "inserted": True},
        "upsertBucket": {"bucket": bucket | {"sweepName": None, "historyLineCount": 0}, "inserted": True},
        "model": PROJECT | {"bucket": None},
        "createRunFiles": {
            "runID": "R",
            "uploadHeaders": [],
            "files": [place(name) for name in asked.get("files", [])],
        },
        "createArtifact": {
            "artifact": {"id": "A", "state": "PENDING", "artifactSequence": {"id": "S", "latestArtifact": None}}
        },
        "createArtifactManifest": manifest,
        "updateArtifactManifest": manifest,
        "createArtifactFiles": {"files": {"edges": [{"node": place(name)} for name in files]}},
        "commitArtifact": {"artifact": {"id": "A", "digest": "d"}},
    }
