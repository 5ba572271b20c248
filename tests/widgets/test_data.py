"""The data panel tells what is in the files, and downloads are complete, checked and resumed."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bertkit_widgets import download
from bertkit_widgets.data import DataPanel
from bertkit_widgets.download import RemoteFile, download_squad

from bertkit.errors import DataError
from tests import tiny


def checked(panel):
    panel.check()
    assert panel.wait(60)
    return panel


def test_check_shows_counts_examples_lengths_and_model(tiny_model, tiny_squad):
    panel = checked(DataPanel({"data": str(tiny_squad), "model": str(tiny_model)}))
    assert "Data and model can be used." in panel._state.value
    assert ">800<" in panel._found.value
    assert ">40<" in panel._found.value
    assert "2 layers of width 32" in panel._found.value
    assert "<mark>" in panel._found.value
    assert 'alt="Histogram of the lengths of 800 questions' in panel._found.value


def test_a_wrong_folder_is_marked_at_its_field(tmp_path, tiny_model):
    panel = checked(DataPanel({"data": str(tmp_path / "nowhere"), "model": str(tiny_model)}))
    assert "there is no folder" in panel._state.value
    assert "bk-wrong" in panel.form.fields["data"].widget._dom_classes
    panel.form.fields["data"].input.value = "sample"
    assert "bk-wrong" not in panel.form.fields["data"].widget._dom_classes


def test_a_wrong_model_is_marked_at_its_field(tmp_path, tiny_squad):
    panel = checked(DataPanel({"data": str(tiny_squad), "model": str(tmp_path)}))
    assert "holds no BERT model" in panel._state.value
    assert "bk-wrong" in panel.form.fields["model"].widget._dom_classes


def test_problems_are_listed_with_their_question(tmp_path, tiny_model):
    folder = tiny.write_questions(tmp_path / "data")
    path = folder / "train-v1.1.json"
    data = json.loads(path.read_text())
    data["data"][0]["paragraphs"][7]["qas"][0]["answers"][0]["answer_start"] = 1
    path.write_text(json.dumps(data))
    panel = checked(DataPanel({"data": str(folder), "model": str(tiny_model)}))
    assert "Usable, with problems." in panel._state.value
    assert "train-7" in panel._found.value


def test_truncated_json_is_one_sentence(tmp_path, tiny_model):
    folder = tiny.write_questions(tmp_path / "data")
    path = folder / "dev-v1.1.json"
    path.write_text(path.read_text()[:1000])
    panel = checked(DataPanel({"data": str(folder), "model": str(tiny_model)}))
    assert "dev-v1.1.json" in panel._state.value
    assert "Traceback" not in panel._state.value


# Downloads -----------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serves two real question files with ranges; may break off, ignore ranges or send garbage."""
    folder = tiny.write_questions(tmp_path / "remote")
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    behaviour = {"break_after": None, "ranges": True, "garbage": False, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = content[self.path.strip("/")]
            start = 0
            asked = self.headers.get("Range")
            behaviour["asked"].append(asked)
            if asked and behaviour["ranges"]:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            part = body[start:]
            if behaviour["garbage"]:
                part = bytes(len(part))
            if behaviour["break_after"]:
                part = part[: behaviour["break_after"]]
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files = tuple(
        RemoteFile(name, len(body), hashlib.sha256(body).hexdigest())
        for name, body in content.items()
    )
    monkeypatch.setitem(download.SQUAD, "v1.1", files)
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    yield address, behaviour, content
    server.shutdown()
    server.server_close()


def test_download_brings_the_files_and_tells_how_far_it_is(served, tmp_path):
    address, _, content = served
    told = []
    folder = download_squad("v1.1", tmp_path / "here", lambda *far: told.append(far), address)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert all(done <= total for _, done, total in told)
    assert told[-1][1] == told[-1][2]


def test_what_is_here_is_not_fetched_again(served, tmp_path):
    address, behaviour, _ = served
    download_squad("v1.1", tmp_path / "here", lambda *_: None, address)
    before = len(behaviour["asked"])
    download_squad("v1.1", tmp_path / "here", lambda *_: None, address)
    assert len(behaviour["asked"]) == before


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_broke_off(served, tmp_path, ranges):
    address, behaviour, content = served
    behaviour["break_after"] = 5000
    with pytest.raises(DataError, match="goes on where it broke off"):
        download_squad("v1.1", tmp_path / "here", lambda *_: None, address)
    behaviour.update(break_after=None, ranges=ranges)
    folder = download_squad("v1.1", tmp_path / "here", lambda *_: None, address)
    assert "bytes=5000-" in behaviour["asked"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_a_wrong_file_is_not_kept(served, tmp_path):
    address, behaviour, _ = served
    behaviour["garbage"] = True
    with pytest.raises(DataError, match="SHA-256"):
        download_squad("v1.1", tmp_path / "here", lambda *_: None, address)
    assert list((tmp_path / "here").iterdir()) == []


def test_no_server(tmp_path):
    with pytest.raises(DataError, match="could not be fetched"):
        download_squad("v1.1", tmp_path, lambda *_: None, "http://127.0.0.1:9/")


def test_the_button_downloads_uses_and_checks(served, tmp_path, tiny_model):
    address, _, _ = served
    panel = DataPanel({"model": str(tiny_model)}, address=address)
    panel._target.value = str(tmp_path / "here")
    panel._download_button.click()
    assert panel.wait(60)
    assert panel.values["data"] == str(tmp_path / "here")
    assert "Data and model can be used." in panel._state.value
