"""The committed stubs: current, complete, and free of any transport."""

import subprocess
import sys
from pathlib import Path

from protos.generate import ROOT, generate, main, sources


def _stubs(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted((root / "protos").rglob("*_pb2*"))
        if path.suffix in {".py", ".pyi"}
    }


def test_generated_stubs_are_current(tmp_path: Path) -> None:
    """Regenerating gives exactly the committed files: nobody edited a stub or forgot to regenerate."""
    generate(tmp_path)
    assert _stubs(tmp_path) == _stubs(ROOT)


def test_every_source_has_stubs() -> None:
    """Each .proto file has a module and its types beside it."""
    assert sources()
    for source in sources():
        stem = (ROOT / source).with_suffix("")
        assert stem.with_name(f"{stem.name}_pb2.py").is_file()
        assert stem.with_name(f"{stem.name}_pb2.pyi").is_file()


def test_too_many_arguments_are_refused(tmp_path: Path) -> None:
    """The command takes one folder at most, and says so instead of guessing."""
    assert main([str(tmp_path), "more"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_contracts_know_no_transport() -> None:
    """Importing every contract loads no gRPC: whoever only reads files pays for no server."""
    modules = [source.removesuffix(".proto").replace("/", ".") + "_pb2" for source in sources()]
    code = f"import sys, {', '.join(modules)}\nsys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
