"""`convert-and-deploy status`, as typed, of a real server."""

from pathlib import Path

from converter.exits import ExitCode
from tests.converter.commands.test_versions import typed
from tests.packages import write_package
from tests.servers import running


def test_a_version_that_failed_says_why(tmp_path: Path) -> None:
    """Beside the version that serves on, the state of the damaged one and what is wrong with it, in one line."""
    write_package(tmp_path / "affine" / "1")
    write_package(tmp_path / "affine" / "2")
    (tmp_path / "affine" / "2" / "golden.npz").write_bytes(b"cut")
    with running(tmp_path) as server:
        code, printed = typed("status", "affine", "--server", f"localhost:{server.port}")
    assert code == ExitCode.DONE
    assert "affine: 2 END, 1 AVAILABLE\n" in printed
    assert "version 2 failed: " in printed
    assert "golden.npz is not the file that was published: 3 bytes instead of" in printed
    assert "onnxruntime-cpu  eligible" in printed
