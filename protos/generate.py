"""Makes the Python stubs from the .proto files beside this module: `python -m protos.generate`.

The stubs are committed, so that neither an installation nor a test needs a compiler; a test regenerates them
and compares. Only this module needs grpcio-tools (for the protoc inside it), and only when it runs.
"""

import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder that the .proto files' import paths start from: the repository's root."""


def sources() -> list[str]:
    """Paths of all .proto files, relative to the repository's root, sorted."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "protos").rglob("*.proto"))


def generate(out: Path) -> None:
    """Write `protos/**/*_pb2.py` and `*_pb2.pyi` under a folder.

    gRPC stubs are left out on purpose: the contracts know nothing of a transport.

    Args:
        out: The folder that shall hold the package `protos`; the repository's root regenerates in place.

    Raises:
        RuntimeError: protoc refused a file; it has said why on standard error.
    """
    from grpc_tools import protoc  # noqa: PLC0415 - a tool of developers, absent where segue is installed

    with as_file(files("grpc_tools") / "_proto") as well_known:
        status = protoc.main(
            ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", *sources()]
        )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


def main(arguments: Sequence[str]) -> int:
    """Generate in place, or under the folder given as the only argument."""
    if len(arguments) > 1:
        print("usage: python -m protos.generate [OUT_DIR]", file=sys.stderr)
        return 2
    generate(Path(arguments[0]) if arguments else ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
