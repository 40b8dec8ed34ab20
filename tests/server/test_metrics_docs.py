"""docs/metrics.md lists what a server exposes: each name with its type and labels, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from server.histograms import RUN_SECONDS, SECONDS, STAGE_SECONDS
from server.request_metrics import STAGES
from tests.dashboards import alerts
from tests.loaded import Loaded, loaded

DOCS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
_ROW = re.compile(r"^\| `([a-z_:]+)` \| (counter|gauge|histogram) \| (.*?) \| ", re.MULTILINE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """A server to which everything has happened."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as monkeypatch, loaded(folder, monkeypatch) as server:
        server.make_everything_happen()
        server.server._metrics.examples("affine", 3)
        yield server


def exposed(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The type and labels of each metric on a page, by the name under which it is asked for."""
    found = {}
    for family in parse(text):
        labels = frozenset({label for sample in family.samples for label in sample.labels} - {"le"})
        total = family.type == "counter" and f"\n{family.name}_total" in text
        found[f"{family.name}_total" if total else family.name] = family.type, labels
    return found


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """The same of the document's tables."""
    rows = _ROW.findall(DOCS)
    return {name: (kind, frozenset(labels.split(", ")) - {"-"}) for name, kind, labels in rows}


def test_the_document_lists_exactly_what_a_loaded_server_exposes(made: Loaded) -> None:
    """Name, type and labels of each metric, ours and TensorFlow Serving's."""
    assert documented() == exposed(made.server._metrics.page().decode())


def test_both_forms_tell_the_same(made: Loaded) -> None:
    """Each sample has one name and one value, whichever form Prometheus asks for."""
    metrics = made.server._metrics

    def samples(page: str, *, is_open: bool) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = (parse_open if is_open else parse)(page)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.startswith("process_")
        }

    text, open_text = metrics.page().decode(), metrics.open_page().decode()
    ours = samples(open_text, is_open=True)
    # The parser of the text form adds "_total" to counters that have none.
    theirs = {
        (re.sub("(request|run)_count_total$", r"\1_count", name), labels): value
        for (name, labels), value in samples(text, is_open=False).items()
    }
    assert ours == theirs
    assert len(ours) > 500


def test_the_document_counts_series_right() -> None:
    """A histogram's series are its classes, the infinite one, its sum and its count."""
    latency, runs, stages = len(SECONDS) + 3, len(RUN_SECONDS) + 3, len(STAGES) * (len(STAGE_SECONDS) + 3)
    assert f"({latency} of latency, {stages} of stages, {runs} of runs)" in DOCS
    assert f"At most {latency + runs + stages} for each" in DOCS


def test_the_document_lists_every_alert() -> None:
    """Whoever is called at night finds the name there."""
    assert set(re.findall(r"^\| `(Segue\w+)` ", DOCS, re.MULTILINE)) == alerts().keys()
