"""Hub ids, fetched through ``huggingface_hub`` from a local server that speaks the hub's HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "someone/tiny-bert-uncased"
PROGRAM = """
import sys
from bertkit.bert.pretrained import load_pretrained
from bertkit.errors import ModelError
try:
    found = load_pretrained(sys.argv[1])
    print(found.architecture.hidden_size, len(found.tensors), found.lowercase)
except ModelError as error:
    print("ModelError:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """One repository, with a file that no model needs."""

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        owner, _, rest = self.path.partition("?")[0].removeprefix("/api/models").partition("/")
        if self.path.startswith(f"/api/models/{MODEL}"):
            self.answer_about_files()
        elif owner == "" and rest.startswith(f"{MODEL}/resolve/"):
            self.answer_with_file(rest.rpartition("/")[2])
        else:
            self.send_error_of_hub("RepoNotFound", 404)

    do_HEAD = do_GET  # noqa: N815

    def answer_about_files(self):
        files = sorted(self.server.folder.iterdir())
        if "/tree/" in self.path:
            body = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": tag(f)[:40]}
                for f in files
            ]
        else:
            body = {"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": f.name} for f in files]}
        self.send(json.dumps(body).encode(), "application/json")

    def answer_with_file(self, name):
        path = self.server.folder / name
        if not path.is_file():
            self.send_error_of_hub("EntryNotFound", 404)
            return
        self.send(path.read_bytes(), "application/octet-stream", etag=tag(path))

    def send(self, body, kind, etag=None):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_error_of_hub(self, code, status):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args):
        pass


def tag(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = tiny.write_model(tmp_path / "served"), []
    (server.folder / "tf_model.h5").write_bytes(b"0" * 100_000)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def load(model, endpoint, home, program=PROGRAM):
    """Load a model in a process of its own: the client reads its settings when imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, model], capture_output=True, text=True, timeout=240,
        env=os.environ | settings, cwd=home.parent, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_hub_id_is_fetched_once_and_then_found(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    assert load(MODEL, endpoint, tmp_path / "home") == "32 37 True"
    assert any("model.safetensors" in line for line in hub.asked)
    assert not any("tf_model.h5" in line for line in hub.asked)  # no more than needed

    hub.shutdown()
    hub.server_close()
    assert load(MODEL, endpoint, tmp_path / "home") == "32 37 True"  # from the cache, offline


def test_a_fetch_tells_how_far_it_is(hub, tmp_path):
    program = (
        "import sys\n"
        "from bertkit.bert.hub import fetch\n"
        "told = []\n"
        "fetch(sys.argv[1], lambda done, total: told.append((done, total)))\n"
        "assert all(done <= total for done, total in told), told\n"
        "print(*told[-1])\n"
    )
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    wanted = [path for path in hub.folder.iterdir() if path.suffix != ".h5"]
    size = sum(path.stat().st_size for path in wanted)
    assert load(MODEL, endpoint, tmp_path / "home", program) == f"{size} {size}"


def test_an_unknown_hub_id_is_said_to_be_unknown(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    said = load("someone/no-such-bert", endpoint, tmp_path / "home")
    assert said.startswith("ModelError: model 'someone/no-such-bert' is neither a folder or zip")


def test_no_network_is_said(tmp_path):
    said = load(MODEL, "http://127.0.0.1:9", tmp_path / "home")
    assert "could not be fetched from the Hugging Face hub" in said
    assert "or use 'minilm'" in said
