"""Load a SavedModel into TensorFlow and describe its signatures.

Written by TensorFlow 2 or 1, `tf.saved_model.load` gives both as concrete functions. Keras files become SavedModels
first (`keras_source`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import tensorflow as tf

from converter.worker.foreign import ConcreteFunction, TensorSpec, Trackable
from converter.worker.protocol import FailureKind, WorkerFailure
from converter.worker.signature import Signature, Spec

_QUOTED_CHARACTERS: Final = 600  # TensorFlow's messages can hold whole graphs
_QUOTED_LINES: Final = 4
_STACK_LINES: Final = ("Graph execution error:", "Detected at node", "<stack traces unavailable>", "\t [[")


def load_saved_model(folder: Path, tags: Sequence[str]) -> Trackable:
    """Load a SavedModel.

    Returns:
        TensorFlow's trackable, whose `signatures` holds concrete functions.

    Raises:
        WorkerFailure: TensorFlow cannot load it (`unloadable`).
    """
    try:
        return tf.saved_model.load(str(folder), tags=list(tags))
    except MemoryError:
        raise
    except Exception as error:  # a damaged or foreign SavedModel fails with any type, KeyError included
        raise WorkerFailure(
            FailureKind.UNLOADABLE,
            f"TensorFlow {tf.__version__} cannot load the SavedModel {folder.name!r}: {quoted(error)}",
            _advice(error),
        ) from error


def signatures(model: Trackable, wanted: Sequence[str] | None) -> list[Signature]:
    """Describe the model's signatures, or those wanted, in the order of their names.

    Raises:
        WorkerFailure: One of those wanted does not exist, or there is none at all (`signature_missing`); one takes or
            gives something else than dense tensors (`export_failed`).
    """
    functions: Mapping[str, ConcreteFunction] = {
        name: function for name, function in getattr(model, "signatures", {}).items() if not name.startswith("__")
    }
    there = ", ".join(repr(name) for name in sorted(functions)) or "none"
    missing = [name for name in wanted or () if name not in functions]
    if missing:
        raise WorkerFailure(
            FailureKind.SIGNATURE_MISSING,
            f"The model has no signature {missing[0]!r}.",
            f"Ask for one of its signatures: {there}.",
        )
    if not functions:
        raise WorkerFailure(
            FailureKind.SIGNATURE_MISSING,
            "The SavedModel has no signatures, so there is nothing that a client could call.",
            "Save it again with tf.saved_model.save(model, folder, signatures={'serving_default': function}).",
        )
    return [_describe(name, functions[name]) for name in sorted(functions if wanted is None else set(wanted))]


def quoted(error: BaseException) -> str:
    """TensorFlow's own words, short enough to print: the type, and the message without stack and graph listings."""
    text = str(getattr(error, "message", None) or error).strip()
    text = text.split("\n\nOriginal stack trace")[0].split("\n\tdefined at")[0].split(" [Op:")[0].split("Hint: ")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_STACK_LINES)]
    short = " ".join(lines[:_QUOTED_LINES])
    if len(short) > _QUOTED_CHARACTERS:
        short = short[:_QUOTED_CHARACTERS] + " …"
    return f"{type(error).__name__}: {short}"


def _advice(error: BaseException) -> str:
    text = str(error)
    if "associated with tags" in text:
        return (
            "Name with --tag the tags that the model was saved with; the message lists them if TensorFlow knows them."
        )
    if "Op type not registered" in text:
        return "The graph uses a custom operator that this TensorFlow does not have; such a model cannot be converted."
    return (
        "If the model loads in the TensorFlow that wrote it, save it again there with tf.saved_model.save, its tables "
        "and preprocessing as tf.functions, and convert the new SavedModel."
    )


def _describe(name: str, function: ConcreteFunction) -> Signature:
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    return Signature(  # sorted, for after loading the dictionaries are in no particular order
        name,
        function,
        tuple(_spec(name, alias, inputs[alias]) for alias in sorted(inputs)),
        tuple(_spec(name, alias, outputs[alias]) for alias in sorted(outputs)),
    )


def _spec(signature: str, alias: str, spec: TensorSpec) -> Spec:
    """Describe a TensorSpec, or the symbolic tensor that TensorFlow 1 signatures have in its place."""
    if not isinstance(spec, tf.TensorSpec | tf.Tensor):
        raise WorkerFailure(
            FailureKind.EXPORT_FAILED,
            f"{alias!r} of signature {signature!r} is a {type(spec).__name__}, and only dense tensors can be exported.",
            "Save the model with a signature that takes and gives dense tensors.",
        )
    rank = spec.shape.rank
    return Spec(alias, spec.dtype, None if rank is None else tuple(spec.shape.as_list()))
