"""Representative inputs from the user's own file."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from converter.errors import InputsRejected
from converter.export import SampleInputs
from server.arrays import load_arrays
from server.repository.package import file_digest

ADVICE = (
    "Write it with numpy.savez('inputs.npz', ALIAS=array, ...): one array per input of the signature, or with keys "
    "'SIGNATURE:ALIAS' where signatures need different ones."
)


def read_inputs(path: Path, signatures: Mapping[str, Collection[str]] | None) -> tuple[SampleInputs, ...]:
    """Read an .npz and give each signature the arrays that it has an input for.

    Args:
        path: The file.
        signatures: Input aliases by signature; None if they are not known yet, as for Keras files, whose exported
            SavedModel has one signature, "serving_default".

    Raises:
        InputsRejected: The file cannot be read, or its keys fit no signature.
    """
    with _readable(path):
        arrays = load_arrays(path)
    if signatures is None:
        return (SampleInputs("serving_default", "inputs file", arrays),)
    samples = []
    used: set[str] = set()
    for name, aliases in sorted(signatures.items()):
        keys = {alias: f"{name}:{alias}" if f"{name}:{alias}" in arrays else alias for alias in aliases}
        given = {alias: arrays[key] for alias, key in keys.items() if key in arrays}
        if given:
            samples.append(SampleInputs(name, "inputs file", given))
            used.update(keys[alias] for alias in given)
    if unknown := sorted(arrays.keys() - used):
        known = "; ".join(f"{name}: {', '.join(sorted(aliases))}" for name, aliases in sorted(signatures.items()))
        raise InputsRejected(
            f"The inputs file {path} has {', '.join(unknown)}, which no signature takes ({known}).", ADVICE
        )
    return tuple(samples)


def inputs_digest(path: Path) -> str:
    """SHA-256 of the file, in hexadecimal.

    Raises:
        InputsRejected: The file cannot be read.
    """
    with _readable(path):
        return file_digest(path)[0]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputsRejected(
            f"The inputs file {path} does not exist.", f"Check the path given with --inputs. {ADVICE}"
        ) from error
    except OSError as error:
        raise InputsRejected(
            f"The inputs file {path} cannot be read: {error.strerror}.", "Check what it is and who may read it."
        ) from error
    except ValueError as error:
        raise InputsRejected(f"The inputs file {path} cannot be used: {error}.", ADVICE) from error
