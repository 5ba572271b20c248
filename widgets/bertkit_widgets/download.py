"""Downloads the official SQuAD files: with progress, checked, and going on where it broke off."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkit.errors import DataError

SQUAD_ADDRESS = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
TIMEOUT_SECONDS = 30.0
BLOCK = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web.

    Args:
        name: Its name, here and there.
        size: Its length in bytes.
        sha256: Hash of its content.
    """

    name: str
    size: int
    sha256: str


SQUAD = {
    "v1.1": (
        RemoteFile(
            "train-v1.1.json",
            30_288_272,
            "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
        ),
        RemoteFile(
            "dev-v1.1.json",
            4_854_279,
            "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
        ),
    ),
    "v2.0": (
        RemoteFile(
            "train-v2.0.json",
            42_123_633,
            "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
        ),
        RemoteFile(
            "dev-v2.0.json",
            4_370_528,
            "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
        ),
    ),
}

OnProgress = Callable[[str, int, int], None]
"""Called with the file's name, the bytes that are here and the bytes in all."""


def download_squad(
    version: str, folder: str | Path, on_progress: OnProgress, address: str = SQUAD_ADDRESS
) -> Path:
    """Download the training and validation file of one version.

    Args:
        version: ``"v1.1"`` or ``"v2.0"``.
        folder: Where to put them; files that are complete there are not fetched again.
        on_progress: Told how far it is.
        address: Where the files are.

    Returns:
        The folder, ready for ``Config(data=...)``.

    Raises:
        DataError: If a file cannot be fetched, or is not the official one.
    """
    target = Path(folder).expanduser()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {target}: {error.strerror}") from None
    for file in SQUAD[version]:
        download(file, target, on_progress, address)
    return target


def download(file: RemoteFile, folder: Path, on_progress: OnProgress, address: str) -> Path:
    """Download one file, going on where an earlier attempt broke off.

    Raises:
        DataError: If it cannot be fetched, or its content is not the expected one.
    """
    path, part = folder / file.name, folder / (file.name + ".part")
    if path.is_file() and _hash(path) == file.sha256:
        on_progress(file.name, file.size, file.size)
        return path
    try:
        _fetch(file, part, on_progress, address)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{address}{file.name} could not be fetched ({reason}); check the network and press "
            f"the button again, it goes on where it broke off"
        ) from None
    found = _hash(part)
    if found != file.sha256:
        part.unlink()
        raise DataError(
            f"{address}{file.name} has the SHA-256 {found[:12]}…; expected {file.sha256[:12]}…; "
            f"it was not kept, try again"
        )
    part.replace(path)
    return path


def _fetch(file: RemoteFile, part: Path, on_progress: OnProgress, address: str) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= file.size:
        return  # complete; its hash decides whether it is right
    request = urllib.request.Request(  # noqa: S310 - the address is ours or the caller's
        address + file.name, headers={"Range": f"bytes={have}-"} if have else {}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        goes_on = answer.status == 206  # a server that knows no ranges sends all of it again
        have = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as output:
            while block := answer.read(BLOCK):
                output.write(block)
                have += len(block)
                on_progress(file.name, have, file.size)
    if have < file.size:
        raise OSError(f"the connection ended after {have:,} of {file.size:,} bytes")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
