"""Promises of server.engines.engine and of what an ensemble does at its end."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from server.arrays import Array
from server.backends.fake import FakeBackend, FakeGraph
from server.backends.interface import Batch, GraphSpec, Precision
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.engines.engine import Engine, load_engine
from server.engines.ensemble import Ensemble
from server.errors import DamagedPackage, ProofFailed
from server.repository.package import open_package
from tests.packages import write_manifest, write_package


class Stuck(FakeGraph):
    """A graph that cannot be closed."""

    def __init__(self, reason: str) -> None:
        super().__init__(_nothing)
        self.reason = reason

    def close(self) -> None:
        """Fail."""
        raise OSError(self.reason)


def _nothing(_feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    return {}


def engine(name: str, *graphs: FakeGraph) -> Engine:
    """An engine of these graphs."""
    return Engine(name, Precision.FP32, {f"{number}.onnx": graph for number, graph in enumerate(graphs)})


def ensemble(engines: Sequence[Engine], folder: Path) -> Ensemble:
    """All of them, of a version."""
    write_package(folder / "m" / "1")
    made = Ensemble(open_package("m", 1, folder / "m" / "1").manifest, engines[0])
    for other in engines[1:]:
        assert made.add(other)
    return made


def test_one_that_cannot_be_closed_keeps_no_other_open(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every graph of every engine is closed; the first error is raised, and the log has the others."""
    sound = [FakeGraph(_nothing) for _ in range(3)]
    engines = [
        engine("first", Stuck("one"), sound[0], Stuck("two")),
        engine("second", sound[1]),
        engine("third", Stuck("three"), sound[2]),
    ]
    caplog.set_level(logging.ERROR, "server")
    with pytest.raises(OSError, match="one"):
        ensemble(engines, tmp_path).close()
    assert all(graph.closed for graph in sound)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["two", "three"]


def test_why_an_engine_is_given_up_is_not_lost_at_its_end(tmp_path: Path) -> None:
    """A graph that cannot be closed after a failed proof does not hide that the proof has failed."""
    write_package(tmp_path / "m" / "1")

    class Wrong(FakeBackend):
        def load(self, graph: GraphSpec) -> FakeGraph:
            assert graph.outputs
            return WrongAndStuck("it does not end")

    class WrongAndStuck(Stuck):
        def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
            return [inputs["x_in"] for _ in outputs]

    with pytest.raises(ProofFailed):
        load_engine(open_package("m", 1, tmp_path / "m" / "1"), Wrong(_nothing))


def test_what_has_nothing_to_prove_it_by_does_not_serve(tmp_path: Path) -> None:
    """A signature without golden cases, or with one of no rows where rows are joined, is damage, and is named."""
    manifest = write_package(tmp_path / "1")
    for damage in (lambda case: case.ClearField("batch"), lambda _: manifest.signatures[0].ClearField("golden")):
        damage(manifest.signatures[0].golden[0])
        write_manifest(tmp_path / "1", manifest)
        with pytest.raises(DamagedPackage, match="nothing proves signature 'serving_default'"):
            load_engine(open_package("m", 1, tmp_path / "1"), OnnxRuntimeBackend("cpu"))


class Choosing(FakeGraph):
    """A graph that can choose how it runs, and may answer wrongly then."""

    def __init__(self, factor: float) -> None:
        super().__init__(self._answer)
        self.sizes: list[int] = []
        self.processors: set[int] = set()
        self.runs_before = 0
        self.runs = 0
        self._factor = factor

    def tune(self, batches: Iterable[Batch]) -> bool:
        """Remember what there was to try it with, and on how many processors."""
        self.processors, self.runs_before = os.sched_getaffinity(0), self.runs
        self.sizes = [len(inputs["x_in"]) for inputs, _ in batches]
        return self._factor != 0.0

    def _answer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        self.runs += 1
        y = 2 * feeds["x_in"] + 1 + feeds["bias_in"]
        y *= self._factor if self.sizes and self._factor else 1.0
        return {"y_out": y, "z_out": -y}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be told where to run here")
def test_what_chooses_how_it_runs_is_proved_again(tmp_path: Path) -> None:
    """It tries the sizes that will come, smaller ones first, on every core; a choice that is wrong is refused."""
    write_package(tmp_path / "m" / "1")
    package = open_package("m", 1, tmp_path / "m" / "1")

    class Backend(FakeBackend):
        def load(self, graph: GraphSpec) -> FakeGraph:
            assert graph.outputs
            return choosing

    choosing = Choosing(1.0)
    load_engine(package, Backend(_nothing), (8, 2)).close()
    assert choosing.sizes == [1, 2, 3, 8]
    assert choosing.processors == os.sched_getaffinity(0)
    assert choosing.runs == 2 * choosing.runs_before > 0
    choosing = Choosing(0.0)
    load_engine(package, Backend(_nothing)).close()
    assert choosing.runs == choosing.runs_before > 0
    choosing = Choosing(1.5)
    with pytest.raises(ProofFailed):
        load_engine(package, Backend(_nothing))
    assert choosing.closed
