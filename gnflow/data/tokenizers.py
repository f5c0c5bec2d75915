"""Turn text into token ids, by a byte-level BPE trained here, by plain bytes, or by a ready `tokenizer.json`."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from gnflow.data.sources.corpus import Json, Piece, join_pieces
from gnflow.data.sources.paths import guard_read
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import BPE, Bytes, PretrainedTokenizer

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
# In the order of preference, where no tokenizer_config.json names one.
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>", "[SEP]")
CHARACTERS = 1 << 22

Ids = NDArray[np.uint32]
Spec = BPE | PretrainedTokenizer | Bytes
AddedTokens = Literal["match", "text"]
MATCH: AddedTokens = "match"


class Tokenizer(NamedTuple):
    """Two functions: `encode` gives the ids of each text, without marks at its ends; `decode` inverts it for one."""

    encode: Callable[[list[str]], list[Ids]]
    decode: Callable[[Ids], str]
    end_of_text: int
    whole_documents: bool
    """Pieces of a document must be joined before they are encoded."""
    file: str | None = None
    """What belongs into `tokenizer.json`."""


def identify(spec: Spec | None, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Return the digests of a ready tokenizer; None for others, which the spec describes completely."""
    if not isinstance(spec, PretrainedTokenizer):
        return None
    file = find_pretrained(root / spec.path)
    return [sha256(path) for path in (file, file.with_name("tokenizer_config.json")) if path.is_file()]


def make_tokenizer(
    spec: Spec, texts: Callable[[], Iterable[str]], root: Path, report: Callable[[str], None]
) -> Tokenizer:
    """Make the tokenizer that `spec` asks for, and train it on `texts` if needed. Raises DataError."""
    match spec:
        case BPE(vocabulary=vocabulary):
            report(f"training a BPE of {vocabulary} entries")
            return train_bpe(texts(), vocabulary)
        case PretrainedTokenizer():
            return open_pretrained(root / spec.path, spec.vocabulary, spec.added_tokens)
        case Bytes():
            return make_bytes()
        case _:
            assert_never(spec)


def open_tokenizer(spec: Spec, directory: Path) -> Tokenizer:
    """Open the tokenizer with which the shards in `directory` were made."""
    if isinstance(spec, Bytes):
        return make_bytes()
    return open_pretrained(
        directory, spec.vocabulary, spec.added_tokens if isinstance(spec, PretrainedTokenizer) else MATCH
    )


def make_bytes() -> Tokenizer:
    """Make the tokenizer whose ids are bytes; 256 ends a text."""

    def encode(texts: list[str]) -> list[Ids]:
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32) for text in texts]

    def decode(ids: Ids) -> str:
        return ids[ids < 256].astype(np.uint8).tobytes().decode(errors="replace")

    return Tokenizer(encode, decode, end_of_text=256, whole_documents=False)


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE with exactly `vocabulary` entries. Raises DataError if the text has too few pairs."""
    _require_package()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    size = model.get_vocab_size()
    if size != vocabulary:
        raise DataError(
            f"data.tokenizer.vocabulary is {vocabulary}, but the training text has pairs for {size} entries only\n"
            f"set it to {size} or less, or give more text"
        )
    return _wrap(model, model.to_str(), model.get_vocab()[END_OF_TEXT], whole_documents=False)


def find_pretrained(path: Path) -> Path:
    """Find the `tokenizer.json` that a path means. Raises DataError if there is none."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"data.tokenizer.path: there is no file {file}\nexpected a tokenizer.json or its directory")
    return file


def open_pretrained(path: Path, vocabulary: int, added_tokens: AddedTokens = MATCH) -> Tokenizer:
    """Open a ready tokenizer. Raises DataError if it cannot be read or has more than `vocabulary` entries."""
    _require_package()
    from tokenizers import Tokenizer

    file = find_pretrained(path)
    try:
        with guard_read(file):
            model = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except DataError:
        raise
    except Exception as error:
        # The package raises plain Exception for whatever it cannot parse.
        raise DataError(f"{file} is not a tokenizer.json: {error}\nsave the tokenizer again") from None
    size = max(model.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if size > vocabulary:
        raise DataError(
            f"{file} has {size} entries, but data.tokenizer.vocabulary is {vocabulary}\nset it to {size} or more"
        )
    end_of_text, original = _find_end_of_text(model, file), model.to_str()
    if added_tokens != MATCH:
        model = Tokenizer.from_str(_mark_all_special(original))
    return _wrap(model, original, end_of_text, whole_documents=True)


def _mark_all_special(tokenizer: str) -> str:
    """Mark every added token of a tokenizer as special, so that documents cannot spell it."""
    found = json.loads(tokenizer)
    for token in found["added_tokens"]:
        token["special"] = True
    return json.dumps(found)


def encode_pieces(pieces: Iterator[Piece], tokenizer: Tokenizer) -> Iterator[tuple[Ids, int]]:
    """Encode pieces, with an end-of-text id after each document. Yield ids and their number of UTF-8 bytes."""
    end = np.array([tokenizer.end_of_text], dtype=np.uint32)
    for batch in _batch(join_pieces(pieces) if tokenizer.whole_documents else pieces):
        for piece, ids in zip(batch, tokenizer.encode([piece.text for piece in batch]), strict=True):
            yield ids, len(piece.text.encode())
            if piece.ends:
                yield end, 0


def _batch(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text)
        if size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _wrap(model: "tokenizers.Tokenizer", file: str, end_of_text: int, whole_documents: bool) -> Tokenizer:
    # A document that spells a special token is text like any other, and is never cut or padded. The package still
    # gives an added token that is not special its one id, as it does for runs of spaces in GPT-NeoX's tokenizer.
    model.encode_special_tokens = True
    model.no_truncation()
    model.no_padding()

    def encode(texts: list[str]) -> list[Ids]:
        encodings = model.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(ids: Ids) -> str:
        return str(model.decode(ids.tolist(), skip_special_tokens=True))

    return Tokenizer(encode, decode, end_of_text, whole_documents, file)


def _find_end_of_text(model: "tokenizers.Tokenizer", file: Path) -> int:
    config = file.with_name("tokenizer_config.json")
    named = None
    if config.is_file():
        try:
            named = json.loads(config.read_bytes()).get("eos_token")
        except (ValueError, RecursionError, AttributeError, OSError) as error:
            raise DataError(f"{config} is not a JSON object: {error}") from None
    named = named.get("content") if isinstance(named, dict) else named
    for token in (named,) if named else ENDS_OF_TEXT:
        if (found := model.token_to_id(token)) is not None:
            return found
    raise DataError(
        f"{file} has no end-of-text token; gnflow looked for {named or ', '.join(ENDS_OF_TEXT)}\n"
        f'put "eos_token": "..." into {config}'
    )


def _require_package() -> None:
    try:
        import tokenizers  # noqa: F401
    except ModuleNotFoundError:
        raise EnvironmentProblem(
            "this corpus is not prepared yet, and its tokenizer needs the package tokenizers\n"
            "run: pip install tokenizers, or copy the prepared directory under data/ from another machine"
        ) from None
