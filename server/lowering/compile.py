"""A process of its own that compiles one ONNX file: `python -m server.lowering.compile ONNX OUT ...`.

`server.backends.aot_build` starts it and says in which folders it may write. It leaves in OUT

    model.so        the compiled model with its weights
    ports.json      what every call must fit, since the compiled code checks nothing (`server.lowering.ports`)

or, where the graph cannot be compiled, `refusal.txt` with the reason, and ends with status 3. Every other end is a
crash. It ends itself when its standard input closes, that is, when its parent is gone.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch._inductor.exc import InvalidCxxCompiler

from server.errors import GraphNotLowerable
from server.lowering.exporting import Exported, NotExportable, export
from server.lowering.guarding import guard
from server.lowering.ports import describe
from server.lowering.precision import AtPrecision
from server.lowering.verify import Differs, verify, without_ones
from server.lowering.walk import lower

REFUSED: Final = 3

_OPTIONS: Final[dict[str, Any]] = {
    # The number of threads is the server's to say, at each run.
    "cpp.dynamic_threads": True,
    "compile_threads": 1,
    "aot_inductor.package": False,
    # A GPU's kernels within the object: otherwise they are files beside it, which nobody keeps.
    "aot_inductor.embed_kernel_binary": True,
    # It needs an openssl command, and pays only where many models are compiled with one cache.
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
    # After a failure it would write its cause to the working folder as Python code, and try again.
    "aot_inductor.repro_level": 0,
}
# The fastest first; the next where that gives wrong code. Frozen weights are laid out as oneDNN wants them.
_VARIANTS: Final[tuple[dict[str, Any], ...]] = ({"freezing": True}, {"freezing": False})


def compile_graph(onnx_file: Path, out: Path, device: str, precision: str) -> None:
    """Write OUT/model.so and OUT/ports.json.

    Raises:
        GraphNotLowerable: a part of the graph has no form in PyTorch.
        NotExportable: torch cannot make one graph of it, or the result needs what a shared object cannot hold.
    """
    forbid_tf32()
    lowered = lower(onnx_file).requires_grad_(requires_grad=False).to(device)
    module = AtPrecision(lowered, precision, device)
    with torch.no_grad():
        exported = export(module, lowered.inputs, device)
        ports = describe(lowered.inputs, lowered.outputs, exported)
        ports["guarded"] = guard(exported)

        def check(library: Path, inputs: Sequence[torch.Tensor]) -> None:
            verify(library, module, inputs, device, precision)

        library = _compile_rightly(exported, out, check)
        ports["rules"] = without_ones(ports["rules"], partial(check, library), exported.inputs, exported.shapes)
    library.rename(out / "model.so")
    (out / "ports.json").write_text(json.dumps(ports, indent=1))


def forbid_tf32() -> None:
    """Have float32 computed in float32 on a GPU: by default convolutions take 10 bits of each number there."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def _compile_rightly(exported: Exported, out: Path, check: Callable[[Path, Sequence[torch.Tensor]], None]) -> Path:
    reasons: list[str] = []
    for variant in _VARIANTS:
        # Each has a name of its own: the loader takes what has one name for one library.
        library = to_shared_object(exported, out / f"model-{len(reasons)}.so", variant)
        try:
            check(library, exported.inputs)
        except Differs as error:
            reasons.append(str(error))
        else:
            return library
    raise NotExportable(f"torch's compiler makes code that computes something else of it: {reasons[0]}")


def to_shared_object(exported: Exported, library: Path, variant: Mapping[str, Any]) -> Path:
    """Compile a graph.

    Args:
        exported: The graph, and what it was traced with.
        library: The file to write.
        variant: Options of torch's compiler beyond those that always hold.

    Raises:
        NotExportable: the result needs what a shared object cannot hold.
    """
    known = torch._inductor.list_options()  # noqa: SLF001 - its place; older versions lack some
    options = {name: value for name, value in _OPTIONS.items() if name in known}
    options |= {**variant, "aot_inductor.output_path": str(library)}
    written = torch._inductor.aot_compile(exported.graph, exported.inputs, options=options)  # noqa: SLF001 - its place
    if not isinstance(written, str) or not library.is_file():
        raise NotExportable(f"the compiler wrote {written} instead of one shared object")
    for file in library.parent.glob("*.wrapper.json"):
        # What such a file lists the object asks Python's torch to run, which the server does not load.
        if nodes := json.loads(file.read_text()).get("nodes"):
            names = sorted({str(node.get("node", {}).get("target")) for node in nodes})
            raise NotExportable(f"the compiled form would need Python for {', '.join(names)}")
    return library


def _end_with_parent() -> None:
    """End the whole process group, compilers included, once the other end of standard input is closed."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _comes_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="server.lowering.compile", description="Compile one ONNX file.")
    parser.add_argument("onnx", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--seconds", type=float, default=0, help="the kernel ends the process after these; 0: never")
    parser.add_argument("--alone", action="store_true", help="do not end when standard input closes")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Compile as the arguments say; the process's exit status."""
    options = _arguments(argv)
    # Should this process hang where no Python runs any more, and nobody be left to end it, the kernel does.
    signal.setitimer(signal.ITIMER_REAL, options.seconds)
    if not options.alone:
        _end_with_parent()
    try:
        compile_graph(options.onnx, options.out, options.device, options.precision)
    except (GraphNotLowerable, NotExportable) as error:
        reason = str(error)
    except Exception as error:  # torch wraps what happens in its compiler, each layer in another class
        if not _comes_from(error, InvalidCxxCompiler):
            raise
        reason = "torch finds no C++ compiler that works: install g++ 9 or later, or name one in CXX"
    else:
        return 0
    (options.out / "refusal.txt").write_text(reason)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
