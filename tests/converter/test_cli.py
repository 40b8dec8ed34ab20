"""Tests of `converter.cli` that need no TensorFlow; whole conversions are in tests/e2e."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from converter import errors
from converter.cli import _with_subcommand
from converter.exits import EXIT_CODES, ExitCode
from tests.e2e.processes import convert


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["./model", "--name", "m"], ["convert", "./model", "--name", "m"]),
        (["model"], ["convert", "model"]),
        (["convert", "model"], ["convert", "model"]),
        (["./convert"], ["convert", "./convert"]),
        (["--name", "m", "model"], ["convert", "--name", "m", "model"]),
        (["--help"], ["--help"]),
        ([], ["--help"]),
    ],
)
def test_convert_is_meant_unless_another_command_is_named(words: list[str], meant: list[str]) -> None:
    """The first word is a subcommand if it is one; `./status` is always a path."""
    assert _with_subcommand(words) == meant


def test_every_error_has_an_exit_code() -> None:
    """A script can tell the user's situation from the exit code."""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.ConversionError)]
    codes = {kind: next(EXIT_CODES[ancestor] for ancestor in kind.__mro__ if ancestor in EXIT_CODES) for kind in kinds}
    assert codes[errors.NotAModel] is ExitCode.SOURCE
    assert codes[errors.UnsupportedOperator] is ExitCode.CONVERSION
    assert not {ExitCode.DONE, ExitCode.BUG, ExitCode.USAGE} & set(codes.values())


def test_the_help_documents_every_exit_code() -> None:
    """`convert-and-deploy convert --help` is where a script's author looks."""
    command = [sys.executable, "-m", "converter.cli", "convert", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    listed = {int(number) for number in re.findall(r"\b(\d+) ", done.stdout.partition("Exit codes:")[2])}
    assert {code.value for code in ExitCode} <= listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing option '--name'"),
        (["--name", "../up"], "cannot be a model's name"),
        (["--name", "m", "--atol", "-1"], "cannot be negative"),
        (["--name", "m", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    """Wrong usage is told from everything else, and touches nothing."""
    done = convert("model", *arguments, "--repository", tmp_path / "models")
    assert done.returncode == ExitCode.USAGE
    assert words in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())
    assert not (tmp_path / "models").exists()
