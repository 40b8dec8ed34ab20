"""Exports of zoo models, made once per session and shared by the tests that look at them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from converter.export import ExportJob, run_export
from converter.exported import ExportResult

Exporter = Callable[..., ExportResult]


@pytest.fixture(scope="session")
def export(zoo: Path) -> Iterator[Exporter]:
    """A function from a zoo model's name, and fields of ExportJob, to its export; equal questions are asked once."""
    done: dict[str, ExportResult] = {}
    with ExitStack() as stack:

        def exported(name: str, **fields: Any) -> ExportResult:
            key = f"{name} {fields}"
            if key not in done:
                job = job_for(zoo / name, **fields)
                done[key] = stack.enter_context(run_export(job, on_progress=lambda event: None))  # noqa: ARG005
            return done[key]

        yield exported


def job_for(source: Path, **fields: Any) -> ExportJob:
    """A job for a model of the zoo, whose kind shows in its name."""
    return ExportJob(source, "keras" if source.suffix in {".keras", ".h5"} else "saved_model", **fields)
