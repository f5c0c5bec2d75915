"""Coverage-guided fuzzing, by atheris, of what reads files that others wrote.

    python tests/fuzz/fuzz.py spec_loading|shard_reading SECONDS DIRECTORY

Inputs that found something new are kept in DIRECTORY/TARGET, one that crashed or took more than 20 s in
DIRECTORY/TARGET.found. Exits otherwise than with 0 when there is such a one.
"""

import importlib
import sys
import warnings
from pathlib import Path

import atheris

SECONDS_FOR_ONE = 20


def main(target: str, seconds: int, directory: Path) -> None:
    with atheris.instrument_imports(include=["gnflow", "ruamel", "numpy.lib"]):
        module = importlib.import_module(target)
    corpus, found = directory / target, directory / f"{target}.found"
    for path in (corpus, found):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(module.seeds()):
        (corpus / f"seed_{number:03d}").write_bytes(seed)
    words = directory / f"{target}.words"
    quoted = ("".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")) for word in module.words())
    words.write_text("".join(f'"{word}"\n' for word in quoted))
    warnings.simplefilter("ignore")
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_FOR_ONE}",
        f"-dict={words}",
        f"-artifact_prefix={found}/",
        "-max_len=16384",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]

    def once(content: bytes) -> None:
        module.check(content)

    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
