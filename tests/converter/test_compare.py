"""`convert-and-deploy compare`, as typed, on real runtimes."""

import csv
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from converter.cli import app
from converter.commands import compare as commands
from converter.compare import Comparison, Timing, compare
from converter.exits import ExitCode
from server.arrays import Array
from server.backends.fake import FakeBackend
from server.backends.interface import Precision
from server.errors import LeftToOthers
from server.repository.package import open_package
from tests.packages import Affine, write_manifest, write_package
from tests.pages import right

pytest.importorskip("openvino")

run = CliRunner()


def typed(root: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and what was printed, on both streams."""
    words = ["compare", "m", "--repository", str(root), "--rounds", "3", *map(str, arguments)]
    done = run.invoke(app, words, env={"COLUMNS": "80", "SEGUE_CACHE": str(root / "cache")})
    return done.exit_code, done.output


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one version of "m"."""
    write_package(tmp_path / "m" / "1")
    return tmp_path


def test_every_backend_is_timed_at_every_size(repository: Path) -> None:
    """A table for people, a CSV for machines, a picture in two formats; the fastest is named."""
    out = repository / "out"
    code, text = typed(repository, "--backends", "onnxruntime,openvino", "--batches", "4,1", "--out", out)
    assert code == ExitCode.DONE, text
    assert [line for line in text.splitlines() if len(line) > 80 and "Wrote" not in line] == []
    assert "\u2026" not in text
    rows = [re.split(r" {2,}", line.strip())[:2] for line in text.splitlines() if re.match(r"\s+\d+ +\w+-cpu", line)]
    assert rows == [[str(n), name] for n in (1, 4) for name in ("onnxruntime-cpu", "openvino-cpu")]
    with (out / "compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["batch"], line["backend"], line["runs"]) for line in lines] == [(n, b, "3") for n, b in rows]
    for line in lines:
        assert float(line["p05_ms"]) <= float(line["median_ms"]) <= float(line["p95_ms"])
        assert float(line["max_abs_difference"]) <= 1e-5
    assert (out / "compare.svg").read_text().startswith("<?xml")
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_who_cannot_take_part_is_named_with_the_reason(repository: Path) -> None:
    """A backend that errs is no winner; and as JSON a script can read all of it."""
    folder = repository / "m" / "2"
    manifest = write_package(folder, Affine(claimed_scale=3.0))
    write_manifest(folder, manifest)
    code, text = typed(repository, "--backends", "onnxruntime", "--version", 2, "--batches", 1)
    assert code == ExitCode.DIFFERENT
    assert "does not reproduce TensorFlow's answer" in text
    code, text = typed(repository, "--backends", "onnxruntime", "--version", 1, "--batches", "1,3", "--json")
    assert code == ExitCode.DONE
    told = json.loads(text)
    assert told["fastest"] == {"1": "onnxruntime-cpu", "3": "onnxruntime-cpu"}
    assert [timing["runs"] for timing in told["timings"]] == [3, 3]


def test_inputs_of_ones_own_are_repeated_to_each_size(repository: Path) -> None:
    """An .npz that lacks an input, or none at all, is refused with what to do."""
    own = repository / "own.npz"
    np.savez(own, x=np.ones((2, 4), np.float32), bias=np.zeros((2, 4), np.float32))
    options = ("--backends", "onnxruntime", "--batches", "1,5", "--inputs", own)
    assert typed(repository, *options)[0] == ExitCode.DONE
    np.savez(own, x=np.ones((2, 4), np.float32))
    code, text = typed(repository, *options)
    assert code == ExitCode.INPUTS
    assert "lacks bias" in text


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--version", "7"], ExitCode.REPOSITORY, "has versions 1 of 'm'"),
        (["--signature", "other"], ExitCode.SOURCE, "no signature 'other'; it has serving_default"),
        (["--batches", "0,x"], ExitCode.USAGE, "positive and separated by commas"),
        (["--device", "tpu"], ExitCode.USAGE, "cpu or cuda"),
        (["--backends", "tensorflow"], ExitCode.CONVERSION, "no backend 'tensorflow'"),
    ],
)
def test_wrong_usage_says_what_there_is(repository: Path, arguments: list[str], code: ExitCode, text: str) -> None:
    """An exit code and a sentence."""
    got, said = typed(repository, *arguments)
    assert got == code
    assert text in " ".join(said.replace("│", " ").split())


def _a_file(out: Path) -> None:
    out.write_text("mine")


def _a_folder_in_the_way(out: Path) -> None:
    (out / "compare.svg").mkdir(parents=True)


@pytest.mark.parametrize("obstacle", [_a_file, _a_folder_in_the_way])
def test_a_place_that_cannot_be_written_to_is_named_before_anything_is_measured(
    repository: Path, obstacle: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for minutes to be told that the result has no place; the text names it and says what to do."""
    out = repository / "out"
    obstacle(out)

    def measured(*_arguments: object, **_options: object) -> None:
        pytest.fail("it was measured first")

    monkeypatch.setattr(commands, "compare", measured)
    code, text = typed(repository, "--backends", "onnxruntime", "--batches", "1", "--out", out)
    assert code == ExitCode.REPOSITORY
    said = " ".join(text.split())
    assert str(out) in said
    assert "cannot be written" in said
    assert "Give another folder with --out." in said


def test_a_place_that_is_lost_meanwhile_is_named_after_the_table(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured is shown all the same."""
    out = repository / "out"

    def compare_and_lose(*arguments: Any, **options: Any) -> Comparison:
        out.rmdir()
        return compare(*arguments, **options)

    monkeypatch.setattr(commands, "compare", compare_and_lose)
    code, text = typed(repository, "--backends", "onnxruntime", "--batches", "1", "--out", out)
    assert code == ExitCode.REPOSITORY
    assert "onnxruntime-cpu" in text
    assert f"{out / 'compare.csv'} cannot be written" in " ".join(text.split())


class Quiet:
    """Hears nothing."""

    def step(self, words: str) -> None:
        """See converter.compare.Listener."""


def test_a_backend_is_not_timed_on_what_it_leaves_to_others(repository: Path) -> None:
    """It takes part in the sizes that it takes, and is named with the reason in the others."""

    def small(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        if len(feeds["x_in"]) > 3:
            raise LeftToOthers("three rows at the most")
        return right(feeds)

    backends = [FakeBackend(small, "small"), FakeBackend(right, "other")]
    package = open_package("m", 1, repository / "m" / "1")
    run_all = partial(
        compare, package, signature="serving_default", batches=[1, 4], rounds=3, inputs=None, listener=Quiet()
    )
    compared = run_all(backends)
    assert [(t.batch, t.backend) for t in compared.timings] == [(1, "small"), (1, "other"), (4, "other")]
    assert compared.rejected == {"small with 4 rows": "three rows at the most"}
    assert compared.ratio(compared.timings[2]) == (1.0, 1.0, 1.0)
    with pytest.raises(LeftToOthers, match="at the most"):
        run_all(backends[:1])


def test_a_package_whose_rows_stay_apart_not_is_timed_at_its_golden_sizes(tmp_path: Path) -> None:
    """Nothing is measured on batches that a request could not have."""
    folder = tmp_path / "m" / "1"
    manifest = write_package(folder)
    manifest.signatures[0].batching.derived = False
    write_manifest(folder, manifest)
    code, text = typed(tmp_path, "--backends", "onnxruntime", "--batches", "4")
    assert code == ExitCode.INPUTS
    assert "there are some of 1, 3" in " ".join(text.split())
    assert typed(tmp_path, "--backends", "onnxruntime", "--batches", "3")[0] == ExitCode.DONE


def test_ratios_are_paired_by_round() -> None:
    """What strikes a whole round cancels out."""
    noise = np.linspace(1, 3, 21)
    slow = Timing("first", Precision.FP32, 1, tuple(2 * noise), 0.0)
    fast = Timing("second", Precision.FP32, 1, tuple(noise), 0.0)
    comparison = Comparison("s", (slow, fast), {})
    assert comparison.ratio(fast) == pytest.approx((2.0, 2.0, 2.0))
    assert comparison.fastest(1) is fast
