import fcntl
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from bertkit.errors import DataError
from bertkit.squad.dataset import Dataset
from bertkit.squad.feature_cache import cached_features, default_cache_folder
from bertkit.squad.features import Features, make_features
from bertkit.squad.tokenization import load_tokenizer

SETTINGS = {"max_seq_length": 32, "doc_stride": 8, "max_query_length": 8, "training": False}
DATASET = Dataset.from_examples({str(i): (f"a b c {i} d " * 9, "who won") for i in range(20)})
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "won", "a", "b", "c", "d"]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


@pytest.fixture
def tokenizer(vocab):
    return load_tokenizer(vocab, lowercase=True)


def same(one: Features, other: Features) -> bool:
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name))
        and getattr(one, f.name).dtype == getattr(other, f.name).dtype
        for f in fields(Features)
    )


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def test_second_time_reads_what_the_first_made(tmp_path, tokenizer):
    calls: list[int] = []

    def get():
        return cached_features(
            DATASET, tokenizer, cache_folder=tmp_path / "c",
            on_progress=lambda done, _: calls.append(done), **SETTINGS,
        )  # fmt: skip

    first = get()
    made = len(calls)
    second = get()
    assert made
    assert len(calls) == made
    assert same(first, second)
    assert same(first, make_features(DATASET, tokenizer, **SETTINGS))
    assert isinstance(second.input_ids, np.memmap)
    assert not second.input_ids.flags.writeable
    (entry,) = entries(tmp_path / "c")
    assert {path.suffix for path in entry.iterdir()} == {".npy", ".json"}


def test_an_entry_for_each_thing_that_decides(tmp_path, tokenizer, vocab):
    (tmp_path / "other.txt").write_text("\n".join([*WORDS, "e"]) + "\n")
    other_tokenizers = [
        load_tokenizer(tmp_path / "other.txt", lowercase=True),
        load_tokenizer(vocab, lowercase=False),
    ]
    asked = [(DATASET, tokenizer, SETTINGS), (DATASET.subset([0, 1]), tokenizer, SETTINGS)]
    asked += [(DATASET, other, SETTINGS) for other in other_tokenizers]
    changes = {"max_seq_length": 24, "doc_stride": 4, "max_query_length": 1, "training": True}
    asked += [(DATASET, tokenizer, {**SETTINGS, k: v}) for k, v in changes.items()]
    for dataset, made_by, settings in asked:
        cached_features(dataset, made_by, cache_folder=tmp_path / "c", **settings)
    assert len(entries(tmp_path / "c")) == len(asked)
    renamed = replace(DATASET, name="the same by another name")
    cached_features(renamed, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    assert len(entries(tmp_path / "c")) == len(asked)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


DAMAGE = {"missing": Path.unlink, "cut": truncate, "flipped": flip, "empty": empty}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["input_ids.npy", "is_max_context.npy", "manifest.json"])
def test_a_damaged_entry_is_made_anew(tmp_path, tokenizer, damage, name):
    first = cached_features(DATASET, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    right = Features(*(np.array(getattr(first, f.name)) for f in fields(Features)))
    (entry,) = entries(tmp_path / "c")
    damage(entry / name)
    again = cached_features(DATASET, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    assert same(again, right)
    assert isinstance(again.input_ids, np.memmap)
    assert entries(tmp_path / "c") == [entry]


def test_pickled_arrays_are_not_read(tmp_path, tokenizer):
    cached_features(DATASET, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    (entry,) = entries(tmp_path / "c")
    np.save(entry / "input_ids.npy", np.array([print], dtype=object), allow_pickle=True)
    again = cached_features(DATASET, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    assert again.input_ids.dtype == np.int32


def test_remains_of_a_killed_process_are_cleared(tmp_path, tokenizer):
    cached_features(DATASET, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    (entry,) = entries(tmp_path / "c")
    remains = tmp_path / "c" / f"{entry.name}.abc.new"
    entry.rename(remains)
    cached_features(DATASET, tokenizer, cache_folder=tmp_path / "c", **SETTINGS)
    assert entries(tmp_path / "c") == [entry]


RANK = """
import sys
from pathlib import Path
from bertkit.squad.dataset import Dataset
from bertkit.squad.feature_cache import cached_features
from bertkit.squad.tokenization import load_tokenizer
made = []
features = cached_features(
    Dataset.from_examples({str(i): ("a b c d " * i, "who won") for i in range(300)}),
    load_tokenizer(Path(sys.argv[1]), lowercase=True), cache_folder=sys.argv[2],
    max_seq_length=64, doc_stride=32, max_query_length=8, training=False,
    on_progress=lambda done, total: made.append(done))
print(len(features), "made" if made else "read")
"""


def test_of_several_ranks_one_makes_and_the_others_read(tmp_path, vocab):
    command = [sys.executable, "-c", RANK, str(vocab), str(tmp_path / "c")]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        lines = [rank.communicate(timeout=120)[0].split() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * 4
    assert sorted(line[1] for line in lines) == ["made", "read", "read", "read"]
    assert len({line[0] for line in lines}) == 1


def test_waiting_ends_with_an_error(tmp_path, tokenizer):
    cached_features(DATASET, tokenizer, cache_folder=tmp_path, **SETTINGS)
    (lock,) = tmp_path.glob("*.lock")
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        begin = time.monotonic()
        with pytest.raises(DataError, match="another process has been making these features"):
            cached_features(DATASET, tokenizer, cache_folder=tmp_path, lock_timeout=0.2, **SETTINGS)
    assert time.monotonic() - begin < 5


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, tokenizer):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="features are not kept in"):
        made = cached_features(DATASET, tokenizer, cache_folder=tmp_path / "file", **SETTINGS)
    assert same(made, make_features(DATASET, tokenizer, **SETTINGS))


def test_default_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_folder() == Path("/somewhere/bertkit/features")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache/bertkit/features"
