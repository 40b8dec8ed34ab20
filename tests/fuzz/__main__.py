"""Fuzz one target: `python -m tests.fuzz TARGET [CORPUS ...] [-max_total_time=SECONDS] [libFuzzer's other options]`.

New input is kept in .cache/fuzz/TARGET. What breaks a promise is written to the folder of that name in
tests/corpus/fuzz, which the tests replay: keep the smallest form of it there, under a name that says what it shows.
"""

import sys
from pathlib import Path

import atheris

# Beside our own code the parsers in Python that it leaves files to: without them a fuzzer sees no way into a text.
with atheris.instrument_imports(include=["server", "google.protobuf.text_format", "numpy.lib._format_impl"]):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> None:
    """Fuzz until something is found or the time is over."""
    name, *options = arguments
    found = ROOT / "tests" / "corpus" / "fuzz" / name
    cache = ROOT / ".cache" / "fuzz" / name
    for folder in (found, cache):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (cache / f"seed-{number}").write_bytes(seed)
    words = [sys.argv[0], str(cache), str(found), f"-artifact_prefix={found}/", "-rss_limit_mb=4096", *options]
    atheris.Setup(words, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
