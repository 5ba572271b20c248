import pytest

from bertkit.errors import ModelError
from bertkit.squad.tokenization import load_tokenizer, special_ids


def write(tmp_path, *tokens):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return path


SPECIAL = ("[UNK]", "[CLS]", "x", "[SEP]", "[PAD]")


def test_special_tokens_are_found_by_name(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, *SPECIAL), lowercase=True)
    ids = special_ids(tokenizer)
    assert (ids.cls, ids.sep, ids.pad) == (1, 3, 4)


@pytest.mark.parametrize("missing", ["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
def test_missing_special_token(tmp_path, missing):
    path = write(tmp_path, *(token for token in SPECIAL if token != missing))
    with pytest.raises(ModelError) as caught:
        load_tokenizer(path, lowercase=True)
    assert str(caught.value) == f"{path}: holds no {missing}; expected a BERT's vocab.txt"


def test_vocabulary_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokenizer(tmp_path / "none.txt", lowercase=True)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="byte 0 is not UTF-8"):
        load_tokenizer(tmp_path / "vocab.txt", lowercase=True)


def test_lines_are_ids_also_after_odd_tokens(tmp_path):
    path = write(tmp_path, *SPECIAL, "a\u2028b", "y\r", "", "z")
    tokenizer = load_tokenizer(path, lowercase=True)
    assert [tokenizer.token_to_id(token) for token in "yz"] == [6, 8]


def test_uncased_text(vocab_file):
    encoding = load_tokenizer(vocab_file, lowercase=True).encode("Unaffable caf\u00e9-goer, 1066!")
    assert " ".join(encoding.tokens) == "una ##ffa ##ble cafe - go ##er , 106 ##6 !"
    assert encoding.offsets[3:7] == [(10, 14), (14, 15), (15, 17), (17, 19)]


def test_cased_text_keeps_case_and_accents(tmp_path):
    path = write(tmp_path, *SPECIAL, "Caf\u00e9", "cafe")
    assert load_tokenizer(path, lowercase=False).encode("Caf\u00e9 cafe").ids == [5, 6]
    assert load_tokenizer(path, lowercase=True).encode("Caf\u00e9 cafe").ids == [6, 6]


def test_a_special_token_in_a_text_is_a_text(vocab_file):
    tokenizer = load_tokenizer(vocab_file, lowercase=True)
    assert tokenizer.encode("[SEP]").tokens == ["[", "sep", "]"]


def test_nothing_is_cut_padded_or_added(vocab_file):
    tokenizer = load_tokenizer(vocab_file, lowercase=True)
    assert len(tokenizer.encode("word " * 2000).ids) == 2000
    assert [len(e) for e in tokenizer.encode_batch(["a", "a b c"])] == [1, 3]
