"""Write the tokenizer of a run as files that `AutoTokenizer.from_pretrained` loads."""

import shutil
from pathlib import Path
from typing import Any

from gnflow.data.dataset import TOKENIZER
from gnflow.data.tokenizers import END_OF_TEXT, find_pretrained, open_tokenizer
from gnflow.spec.data import Bytes, PretrainedTokenizer, Text

FILES = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


def find_end_of_text(data: Text, shards: Path) -> int | None:
    """Return the id that ends a text in prepared data; None if the ids of the data were ready."""
    return None if data.cut_by is None else open_tokenizer(data.cut_by, shards).end_of_text


def write_tokenizer(directory: Path, data: Text, root: Path, shards: Path) -> bool:
    """Write the tokenizer that made the `shards`. Return whether there is one: ready ids have none.

    Raises DataError if the files of a ready tokenizer are not there any more.
    """
    match data.cut_by:
        case None:
            return False
        case PretrainedTokenizer(path=path):
            file = find_pretrained(root / path)
            for found in (file.with_name(name) for name in FILES):
                if found.is_file():
                    shutil.copyfile(found, directory / found.name)
        case Bytes():
            _save(directory, make_byte_tokenizer(), data.context)
        case _:
            _save(directory, (shards / TOKENIZER).read_text(encoding="utf-8"), data.context)
    return True


def make_byte_tokenizer() -> str:
    """Return a `tokenizer.json` whose ids are bytes; 256 ends a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    model = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(list_letters())}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    return model.to_str()


def list_letters() -> list[str]:
    """List the letters that stand for the bytes 0 to 255 in byte-level tokenizers.

    A byte that prints in Latin-1 stands for itself; the others follow from code point 256 on.
    """
    printing = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printing else next(others)) for byte in range(256)]


def _save(directory: Path, content: str, context: int) -> None:
    import transformers
    from tokenizers import Tokenizer

    cls: Any = transformers.PreTrainedTokenizerFast
    made = cls(
        tokenizer_object=Tokenizer.from_str(content), eos_token=END_OF_TEXT, model_max_length=context,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.save_pretrained(directory)
