"""Representative inputs from the user's own file."""

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from converter.errors import InputsRejected
from converter.export import SampleInputs
from server.arrays import Array, load_arrays

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
    try:
        arrays = {key: _as_bytes(array) for key, array in load_arrays(path).items()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputsRejected(f"The inputs file {path} cannot be read: {error}", ADVICE) from error
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


def _as_bytes(array: Array) -> Array:
    """Numpy's fixed-width texts as TensorFlow's strings: objects of bytes."""
    if array.dtype.kind not in "SU":
        return array
    texts = np.empty(array.shape, dtype=object)
    texts.ravel()[:] = [t.encode() if isinstance(t, str) else bytes(t) for t in array.ravel().tolist()]
    return texts
