"""Versions and a configuration that serves them, for tests of reloading."""

from pathlib import Path

import pytest

from tests.packages import Affine, write_package
from tests.server.reloading import entry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two versions of a model in a folder that has not the model's name, and one of another."""
    for version in (1, 2):
        write_package(tmp_path / "place" / str(version), Affine(scale=version))
    write_package(tmp_path / "elsewhere" / "other" / "7")
    return tmp_path


@pytest.fixture
def config_file(root: Path) -> Path:
    """A configuration that serves all of it."""
    file = root / "models.config"
    file.write_text(
        "model_config_list: {"
        + entry(
            "affine",
            root / "place",
            "model_version_policy { specific { versions: 1 versions: 2 } } "
            "version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }",
        )
        + entry("other", root / "elsewhere" / "other", "logging_config { sampling_config { sampling_rate: 1 } }")
        + "}"
    )
    return file
