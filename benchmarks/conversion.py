"""How long conversions take and how close they are: `python -m benchmarks.conversion` prints a table and writes JSON.

Each model is converted by the command line into an empty repository, without a server. basic-pitch and sleepecg come
out of published packages; the Vision Transformer is built here, with random weights. Nothing else should run.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from examples.published_models import fetch
from server.repository.package import read_manifest

RESULT = Path(__file__).parent / "results" / "conversion.json"


def sources(folder: Path) -> dict[str, Path]:
    """The models by name, the Vision Transformers written into the folder."""
    with zipfile.ZipFile(fetch("sleepecg") / "wrn-gru-mesa.zip") as archive:
        archive.extract("classifier.keras", folder)
    found = {"basic-pitch": fetch("basic-pitch") / "nmp", "sleepecg-gru": folder / "classifier.keras"}
    for activation in ("gelu_new", "gelu"):
        name = f"vit-base-{activation.replace('_', '-')}"
        found[name] = folder / name
        command = [sys.executable, "-m", "tests.models.vit", str(found[name]), activation]
        subprocess.run(command, check=True, capture_output=True)
    return found


def measure(name: str, source: Path, repository: Path) -> dict[str, Any]:
    """Convert one model."""
    command = [sys.executable, "-m", "converter.cli", str(source), "--name", name, "--json"]
    done = subprocess.run([*command, "--repository", str(repository)], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    manifest = read_manifest(repository / name / "1")
    mapped = {variable.name for entry in manifest.initializers for variable in entry.variables}
    outputs = [output for signature in report["signatures"] for output in signature["outputs"].values()]
    return {
        "model": name,
        "source_megabytes": round(manifest.source.bytes / 1e6, 1),
        "seconds": round(sum(report["seconds"].values()), 1),
        "max_absolute_difference": max(output["max_absolute_difference"] for output in outputs),
        "elements_compared": sum(output["elements_compared"] for output in outputs),
        "variables_mapped": len(mapped),
        "variables": len(mapped | {variable.name for variable in manifest.unmapped_variables}),
    }


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [measure(model, source, folder / "models") for model, source in sources(folder).items()]
    print("| model | source | seconds | largest difference | elements compared | variables kept |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        kept = f"{row['variables_mapped']} of {row['variables']}"
        difference = f"{row['max_absolute_difference']:.1e}"
        size = f"{row['source_megabytes']} MB"
        print(f"| {row['model']} | {size} | {row['seconds']} | {difference} | {row['elements_compared']:,} | {kept} |")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
