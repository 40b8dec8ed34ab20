"""The fuzzed promises, on what was ever found and on what the fuzzer starts from; the long form is `make fuzz`."""

import random
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS
from tests.mutations import mutated

CORPUS = Path(__file__).parents[1] / "corpus" / "fuzz"
FOUND = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_right_now(path: Path) -> None:
    """Each file broke a promise of the target that its folder is named after."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_good_input_and_its_like_keep_the_promise(name: str) -> None:
    """Good input, each prefix of it, and some hundred damaged forms of it."""
    rng = random.Random(3)  # noqa: S311 - chosen, not secret
    given = seeds(name)
    for seed in given:
        TARGETS[name](seed)
        for stop in range(0, len(seed), 1 + len(seed) // 40):
            TARGETS[name](seed[:stop])
    for _ in range(600):
        TARGETS[name](mutated(rng, rng.choice(given), rng.choice(given)))
