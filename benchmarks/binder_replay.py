"""Does binder/ really build? Its files are replayed as Binder would, in a clean environment.

The committed tree is copied out, what apt.txt names is looked up, a fresh virtual environment of
runtime.txt's Python gets requirements.txt by pip and nothing else, a notebook server starts in it,
and the demo notebook is executed in quick mode from top to bottom.

    python -m benchmarks.binder_replay --out benchmarks/results/binder_replay.json

Binder itself builds a container from the same files; that needs Docker, and this does not.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.report import show

CHECKOUT = Path(__file__).resolve().parents[1]
NOTEBOOK = "notebooks/bert_demo.ipynb"
INSTALL_SECONDS = 3600
NOTEBOOK_SECONDS = 1800
SERVER_SECONDS = 120


def run(command: list[str], *, cwd: Path, env: dict[str, str], timeout: float) -> str:
    """Run a command; its output, or an error that shows the end of it."""
    done = subprocess.run(
        command, cwd=cwd, env=env, timeout=timeout, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def clean_environment(home: Path, *, from_scratch: bool) -> dict[str, str]:
    """The environment without what belongs to other virtual environments.

    Args:
        home: An empty folder for everything that Jupyter and IPython keep.
        from_scratch: Whether pip's and bertkit's caches are empty, too; Horovod is compiled then.
    """
    left_out = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "IPYTHON", "BERTKIT", "PIP_TARGET")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    env |= {"BERTKIT_QUICK": "1", "IPYTHONDIR": str(home / "ipython")}
    env |= {f"JUPYTER_{part}_DIR": str(home / part) for part in ("CONFIG", "DATA", "RUNTIME")}
    return env | ({"XDG_CACHE_HOME": str(home / "cache")} if from_scratch else {})


def copy_out(target: Path) -> str:
    """Put the committed tree into a folder; gives its commit."""
    archive = target.with_suffix(".tar")
    git = ["git", "-C", str(CHECKOUT)]
    subprocess.run([*git, "archive", "--output", str(archive), "HEAD"], check=True)
    target.mkdir()
    shutil.unpack_archive(archive, target, filter="data")
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return str(commit)


def look_up_packages(binder: Path) -> dict[str, str]:
    """Version of each package of apt.txt that this machine has; a missing one is an error."""
    found = {}
    for name in (binder / "apt.txt").read_text().split():
        asked = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.returncode:
            raise SystemExit(f"apt.txt: {name} is not installed here; sudo apt install {name}")
        found[name] = asked.stdout
    return found


def find_python(binder: Path) -> str:
    """The interpreter that runtime.txt asks for."""
    name = (binder / "runtime.txt").read_text().strip().replace("-", "")
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        raise SystemExit(f"runtime.txt: there is no {name} on this machine; install it first")
    return found


@contextmanager
def notebook_server(bin_folder: Path, root: Path, env: dict[str, str]) -> Iterator[str]:
    """JupyterLab of the new environment, as Binder starts it; gives its address and token."""
    token = secrets.token_hex(16)
    command = [
        str(bin_folder / "jupyter"), "lab", "--no-browser", "--ip=127.0.0.1", "--port=0",
        "--allow-root", f"--IdentityProvider.token={token}",
    ]  # fmt: skip
    log = root.with_suffix(".log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=root, env=env, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield f"{_address(server, log)}{{}}?token={token}"
    finally:
        server.terminate()
        server.wait(60)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < end and server.poll() is None:
        lines = log.read_text().splitlines()
        found = [word for line in lines for word in line.split() if word.startswith("http://127.")]
        if found:
            return found[0].partition("/lab")[0]
        time.sleep(0.2)
    raise SystemExit(f"the notebook server did not start:\n{log.read_text()[-3000:]}")


def ask(address: str, path: str) -> Any:
    """What the notebook server answers."""
    with urllib.request.urlopen(address.format(path), timeout=60) as answer:
        body = answer.read()
        kind = answer.headers.get_content_type()
        return json.loads(body) if kind == "application/json" else body


def check_server(address: str) -> dict[str, Any]:
    """The page of the notebook, its content and its kernel, all from the running server."""
    page = ask(address, f"/lab/tree/{NOTEBOOK}")
    cells = ask(address, f"/api/contents/{NOTEBOOK}")["content"]["cells"]
    kernels = ask(address, "/api/kernelspecs")["kernelspecs"]
    return {"page_bytes": len(page), "notebook_cells": len(cells), "kernels": sorted(kernels)}


def replay(folder: Path, *, from_scratch: bool) -> dict[str, Any]:
    """Do all of it; gives what was found and how long each part took."""
    tree, seconds = folder / "checkout", {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        print(f"{name} …", flush=True)
        began = time.monotonic()
        done = work()
        seconds[name] = round(time.monotonic() - began, 1)
        return done

    env = clean_environment(folder / "home", from_scratch=from_scratch)
    commit = copy_out(tree)
    packages, python = look_up_packages(tree / "binder"), find_python(tree / "binder")
    bin_folder = folder / "venv" / "bin"
    version = run([python, "--version"], cwd=tree, env=env, timeout=60).split()[1]
    run([python, "-m", "venv", str(folder / "venv")], cwd=tree, env=env, timeout=300)
    pip = [str(bin_folder / "python"), "-m", "pip", "install", "--requirement"]
    timed(
        "pip install",
        lambda: run([*pip, "binder/requirements.txt"], cwd=tree, env=env, timeout=INSTALL_SECONDS),
    )
    run([str(bin_folder / "python"), "-m", "pip", "check"], cwd=tree, env=env, timeout=300)
    with notebook_server(bin_folder, tree, env) as address:
        served = timed("notebook server", lambda: check_server(address))
        execute = [
            str(bin_folder / "jupyter"), "execute", "--inplace", f"--timeout={NOTEBOOK_SECONDS}",
            NOTEBOOK,
        ]  # fmt: skip
        timed("notebook", lambda: run(execute, cwd=tree, env=env, timeout=NOTEBOOK_SECONDS))
    return {
        "commit": commit,
        "packages": packages,
        "python": version,
        "caches": "empty" if from_scratch else "pip's and the compiled Horovod's were there",
        "served": served,
        "executed": executed(tree / NOTEBOOK),
        "seconds": seconds,
    }


def executed(notebook: Path) -> dict[str, int]:
    """How many code cells ran, and how many pictures and errors they left."""
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    return {
        "code_cells": len(cells),
        "run": sum(cell["execution_count"] is not None for cell in cells),
        "pictures": sum("image/png" in output.get("data", {}) for output in outputs),
        "errors": sum(output["output_type"] == "error" for output in outputs),
    }


def main() -> None:
    """Replay, print and write."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--from-scratch", action="store_true", help="empty caches: compile Horovod")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="bertkit-binder-") as folder:
        found = {
            "machine": describe_machine(),
            **replay(Path(folder), from_scratch=options.from_scratch),
        }
    show(found, options.out)


if __name__ == "__main__":
    main()
