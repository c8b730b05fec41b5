"""The report in Weights & Biases, against a server on this machine that speaks as much of its protocol as is needed."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.conftest import ROOT, environment
from tests.sweep.made import add_scored, new_study

pytest.importorskip("wandb_workspaces", reason="an extra: make test-browser installs it")
pytestmark = pytest.mark.browser

PROJECT = {"id": "P", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==", "name": "stylesweep", "entityName": "me"}
PROJECT |= {"createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None}
ANSWERS = {
    "viewer": {"id": "U", "username": "me", "email": "", "admin": False, "flags": "{}", "entity": "me"}
    | {"teams": {"edges": []}, "apiKeys": {"edges": []}},
    "project": PROJECT,
    "models": {"pageInfo": {"hasNextPage": False, "endCursor": None}, "edges": [{"node": PROJECT, "cursor": ""}]},
    "upsertView": {
        "view": {"id": "Vmlldzox", "type": "runs", "name": "n", "displayName": "made", "description": "", "spec": "{}"}
        | {"project": PROJECT, "updatedAt": "2026-01-01T00:00:00"},
        "inserted": True,
    },
}


@pytest.fixture
def asked() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of the server, and what it was asked for."""
    seen: list[dict[str, Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.path.startswith("/graphql"):
                seen.append(json.loads(body))
            content = json.dumps({"data": ANSWERS}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def publish(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    made = {name: value for name, value in environment().items() if name != "WANDB_MODE"}
    return subprocess.run(
        [sys.executable, "-m", "sweep.report", "wandb", f"study.name={folder.name}", f"study.folder={folder.parent}"],
        cwd=ROOT,
        env={**made, "WANDB_SILENT": "true", **variables},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_a_report_reaches_the_server_with_text_and_panels(
    tmp_path: Path, asked: tuple[str, list[dict[str, Any]]]
) -> None:
    folder = tmp_path / "made"
    study = new_study(folder, on_disk=True)
    add_scored(study, folder, 0.7)
    address, seen = asked
    done = publish(folder, WANDB_BASE_URL=address, WANDB_API_KEY="k" * 40)
    assert done.returncode == 0, done.stderr
    assert "report: http" in done.stdout
    [saved] = [request["variables"] for request in seen if "upsertView" in request["query"]]
    spec = saved["spec"]
    for expected in ("What is best?", "Scatter Plot", "Parallel Coordinates Plot", "Media Browser", "Run Comparer"):
        assert expected in spec, expected
    assert "contact_sheet" in spec and '"made"' in spec
    assert str(tmp_path) not in spec


def test_without_a_login_it_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    add_scored(new_study(folder, on_disk=True), folder, 0.7)
    done = publish(folder, WANDB_MODE="offline")
    assert done.returncode == 2
    assert "wandb login" in done.stderr and "Traceback" not in done.stderr
