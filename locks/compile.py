"""Makes the locks from pyproject.toml: `make lock`.

The development lock is resolved first and constrains the others, so that what is tested is what is served.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Lock -> extras of pyproject.toml.
LOCKS = {
    "dev": ("build", "convert", "torch", "dev"),
    "convert": ("build", "traces", "convert"),
    "serve": ("build", "traces"),
}


def compile_lock(name: str, extras: tuple[str, ...]) -> None:
    """Resolve one lock for every platform and write it.

    Raises:
        subprocess.CalledProcessError: the dependencies contradict one another; uv has said which.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-emit-index-url", "--no-annotate"]
    command += [f"--extra={extra}" for extra in extras]
    if name != "dev":
        command += ["--constraint", "locks/dev.txt"]
    subprocess.run([*command, "--output-file", f"locks/{name}.txt", "pyproject.toml"], cwd=HERE.parent, check=True)


if __name__ == "__main__":
    for lock, wanted in LOCKS.items():
        compile_lock(lock, wanted)
