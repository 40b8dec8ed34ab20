"""Exports of well-known networks in small, made once per session."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from converter.export import run_export
from converter.exported import ExportResult
from tests.conftest import ROOT
from tests.converter.conftest import job_for

_SMALL = ("hidden_size=64", "num_hidden_layers=2", "num_attention_heads=4", "intermediate_size=128")
_PATCHES = ("image_size=32", "patch_size=8")
_COMMANDS = {
    "vit": ("tests.models.vit", "{}", "gelu_new", *_SMALL, *_PATCHES),
    "vit-exact": ("tests.models.vit", "{}", "gelu", *_SMALL, *_PATCHES),
    "bert": ("tests.models.networks", "bert", "{}", *_SMALL, "vocab_size=100"),
    "transformer.keras": ("tests.models.networks", "transformer", "{}"),
    "resnet.keras": ("tests.models.networks", "resnet", "{}", "size=64"),
    "efficientnet.keras": ("tests.models.networks", "efficientnet", "{}", "size=64"),
}

Networks = Callable[[str], ExportResult]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Networks]:
    """A function from a network's name to its export."""
    folder = tmp_path_factory.mktemp("networks")
    done: dict[str, ExportResult] = {}
    with ExitStack() as stack:

        def exported(name: str) -> ExportResult:
            if name not in done:
                arguments = [part.format(folder / name) for part in _COMMANDS[name]]
                made = subprocess.run(
                    [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
                )
                assert made.returncode == 0, made.stderr
                done[name] = stack.enter_context(run_export(job_for(folder / name), on_progress=lambda event: None))  # noqa: ARG005
            return done[name]

        yield exported
