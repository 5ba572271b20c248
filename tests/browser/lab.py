"""A JupyterLab for the tests: loopback only, its own settings, nothing of the user's touched."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 90.0
STOP_SECONDS = 20.0

SETTINGS = {
    # every cell stays in the page, also those out of sight
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
THEME = "@jupyterlab/apputils-extension/themes"


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab.

    Args:
        url: Its address.
        token: What lets one in.
        root: Folder of its notebooks.
    """

    url: str
    token: str
    root: Path

    def page(self, notebook: str) -> str:
        """Address of one notebook, in a fresh workspace."""
        return f"{self.url}/lab/tree/{notebook}?token={self.token}&reset"


@contextlib.contextmanager
def running_lab(root: Path, private: Path, theme: str = "JupyterLab Light") -> Iterator[Lab]:
    """Start a JupyterLab and end it with its kernels.

    Args:
        root: Folder of its notebooks.
        private: Folder for its own settings and logs.
        theme: Name of its theme.
    """
    token, port = secrets.token_hex(16), _free_port()
    settings = {**SETTINGS, THEME: {"theme": theme}}
    for name, values in settings.items():
        path = private / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    log = private / "lab.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(root, token, port), env=_environment(private),
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        lab = Lab(f"http://127.0.0.1:{port}", token, root)
        _wait_until_up(lab, process, log)
        yield lab
    finally:
        _end(process)


def _command(root: Path, token: str, port: int) -> list[str]:
    return [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--allow-root", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip


def _environment(private: Path) -> dict[str, str]:
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {**os.environ, **{name: str(private / folder) for name, folder in folders.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(lab: Lab, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=2).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(
                    f"JupyterLab did not start:\n{log.read_text()[-3000:]}"
                ) from None
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)  # it then ends its kernels too
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)
