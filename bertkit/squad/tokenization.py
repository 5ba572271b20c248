"""BERT's WordPiece tokenizer, from a vocabulary file.

The algorithm is google-research/bert's ``tokenization.py`` (Devlin et al., 2018), run by the
`tokenizers` library. A text that spells a special token, such as ``[SEP]``, is split like any
other text; the ids of special tokens are put in where features are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bertkit.errors import ModelError

UNKNOWN = "[UNK]"
SPECIAL_TOKENS = ("[CLS]", "[SEP]", UNKNOWN, "[PAD]")
LONGEST_WORD = 200  # characters; a longer one becomes [UNK], as in google-research/bert


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that frame a feature.

    Args:
        cls: ``[CLS]``, before the question.
        sep: ``[SEP]``, after the question and after the paragraph.
        pad: ``[PAD]``, after a feature that is shorter than its row.
    """

    cls: int
    sep: int
    pad: int


def load_tokenizer(vocab_file: Path, *, lowercase: bool) -> Tokenizer:
    """Make the tokenizer of a pretrained BERT.

    Args:
        vocab_file: Its ``vocab.txt``: one token a line; a line's number is the token's id.
        lowercase: Whether the model is uncased: text is lower-cased and accents are stripped.

    Returns:
        A tokenizer without truncation, padding and special tokens, with character offsets.

    Raises:
        ModelError: If the file cannot be read or a special token is missing.

    Example:
        >>> tokenizer = load_tokenizer(Path("vocab.txt"), lowercase=True)   # doctest: +SKIP
        >>> tokenizer.encode("unaffable").tokens                            # doctest: +SKIP
        ['una', '##ffa', '##ble']
    """
    model = models.WordPiece(
        _read_vocabulary(Path(vocab_file)),
        unk_token=UNKNOWN,
        max_input_chars_per_word=LONGEST_WORD,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Find the ids of the special tokens by their names.

    Raises:
        ModelError: If one is missing.
    """
    return SpecialIds(
        cls=_id_of(tokenizer, "[CLS]"),
        sep=_id_of(tokenizer, "[SEP]"),
        pad=_id_of(tokenizer, "[PAD]"),
    )


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    index = tokenizer.token_to_id(token)
    if index is None:
        raise ModelError(f"the vocabulary holds no {token}; expected the vocabulary of a BERT")
    return index


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); expected a BERT's vocab.txt"
        ) from None
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path}: byte {error.start} is not UTF-8 text; expected a BERT's vocab.txt"
        ) from None
    lines = text.removesuffix("\n").split("\n")  # not splitlines: U+2028 is a token of some
    vocabulary = {line.strip(): index for index, line in enumerate(lines)}
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise ModelError(f"{path}: holds no {', '.join(missing)}; expected a BERT's vocab.txt")
    return vocabulary
