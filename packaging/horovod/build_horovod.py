"""PEP 517 backend that compiles the unmodified Horovod 0.28.1 source archive.

The archive declares no build requirements, yet needs TensorFlow while it
builds; ``pyproject.toml`` beside this file declares them. Its last release also
predates TensorFlow 2.21: ``xla_mpi_ops.cc`` includes XLA headers that the
TensorFlow wheel no longer ships. Everything behind those includes is for GPUs,
so a CPU build only needs files of those names to exist: empty ones are put
first on the include path.

The wheel is kept in ``~/.cache/bertkit/horovod``, because pip rebuilds a local
folder at every install and the compilation takes minutes.

``python build_horovod.py`` says in one sentence what this machine lacks.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distributions
from pathlib import Path

SOURCE = (
    "horovod==0.28.1 --hash=sha256:"
    "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0\n"
)
GPU_ONLY_HEADERS = (
    "tf2xla/xla_op_kernel.h",
    "tf2xla/xla_op_registry.h",
    "xla/client/xla_builder.h",
    "xla/service/custom_call_target_registry.h",
    "xla/service/hlo.pb.h",
    "xla/shape.h",
    "xla/xla_data.pb.h",
)
BUILD_SETTINGS = ("HOROVOD_", "CCL_")


def missing_on_this_machine() -> str | None:
    """One sentence naming what the compilation needs and does not find, or None."""
    packages = []
    if not shutil.which(os.environ.get("CXX", "g++")) or not shutil.which("make"):
        packages.append(("a C++ compiler and make", "build-essential"))
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        packages.append((f"the headers of Python {version}", f"python{version}-dev"))
    if not packages:
        return None
    wanted = " and ".join(what for what, _ in packages)
    names = " ".join(name for _, name in packages)
    return (
        f"Horovod is compiled on this machine and needs {wanted}, "
        f"which is missing: run 'sudo apt-get install {names}' and try again."
    )


def get_requires_for_build_wheel(config_settings=None):
    """Stop before gigabytes are fetched if the machine cannot compile."""
    _stop_if_unable()
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Compile, or take the wheel of an earlier compilation."""
    cache = _cache_folder()
    if not list(cache.glob("*.whl")):
        _stop_if_unable()
        _compile(cache)
    (wheel,) = cache.glob("*.whl")
    shutil.copy(wheel, wheel_directory)
    return wheel.name


def build_sdist(sdist_directory, config_settings=None):
    """Refuse: the source archive is Horovod's own, on PyPI."""
    raise NotImplementedError("get the Horovod source archive from PyPI")


def _stop_if_unable():
    sentence = missing_on_this_machine()
    if sentence:
        raise SystemExit(sentence)


def _cache_folder():
    """A folder for this backend, this TensorFlow, this Python and these settings."""
    identity = [
        Path(__file__).read_text(),
        sys.implementation.cache_tag,
        sorted({d.version for d in distributions() if d.name.startswith("tensorflow")}),
        sorted(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith(BUILD_SETTINGS) or name in ("CXX", "CXXFLAGS", "LDFLAGS")
        ),
    ]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bertkit" / "horovod" / hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def _compile(wheel_directory):
    wheel_directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="horovod-") as scratch:
        for header in GPU_ONLY_HEADERS:
            stand_in = Path(scratch, "include/tensorflow/compiler", header)
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.touch()
        Path(scratch, "requirements.txt").write_text(SOURCE)
        subprocess.run(
            # --no-cache-dir: pip would cache the wheel whatever TensorFlow it is for.
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir",
             "--no-build-isolation", "--no-binary=horovod", "--use-pep517",
             "--wheel-dir", scratch, "--requirement", f"{scratch}/requirements.txt"],
            env=_compiler_environment(scratch), check=True,
        )  # fmt: skip
        (wheel,) = Path(scratch).glob("*.whl")
        partial = wheel_directory / f"{os.getpid()}.part"
        shutil.copy(wheel, partial)
        partial.replace(wheel_directory / wheel.name)


def _compiler_environment(scratch):
    # The calling pip names this backend in these; the pip called here must not see them.
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PEP517_", "_PYPROJECT_HOOKS_"))
    }
    env["CXXFLAGS"] = f"-I{scratch}/include {env.get('CXXFLAGS', '')}"
    env["LDFLAGS"] = f"-Wl,--strip-debug {env.get('LDFLAGS', '')}"
    env.setdefault("MAKEFLAGS", f"-j{min(4, os.cpu_count() or 1)}")  # 0.8 GB a job
    env["HOROVOD_WITH_TENSORFLOW"] = "1"
    env["HOROVOD_WITHOUT_PYTORCH"] = "1"
    env["HOROVOD_WITHOUT_MXNET"] = "1"
    env["HOROVOD_WITH_GLOO"] = "1"
    if env.get("HOROVOD_WITH_MPI") != "1":
        env["HOROVOD_WITHOUT_MPI"] = "1"
    return env


if __name__ == "__main__":
    _stop_if_unable()
