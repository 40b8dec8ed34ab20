"""Keras files as SavedModels: `.keras` archives and whole-model `.h5` files, by Keras's own export.

A Keras file can carry Python code (Lambda layers), which is looked for before Keras reads the file: its own guard has
had holes, and the older format has none.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py

from converter.worker.foreign import KerasModel
from converter.worker.load import quoted
from converter.worker.protocol import FailureKind, WorkerFailure

Json = Any  # what json.loads gives

_CODE: Final = frozenset({"Lambda", "__lambda__"})  # a layer class, and how Keras 3 writes a function given as code
_MAX_CONFIG_BYTES: Final = 256 << 20


def export_saved_model(source: Path, folder: Path) -> Path:
    """Load a Keras file and let Keras export it as a SavedModel.

    Args:
        source: A `.keras` file, or an `.h5` file that holds a whole model.
        folder: Where the SavedModel goes; must not exist.

    Returns:
        The folder.

    Raises:
        WorkerFailure: `weights_only`, `untrusted_code`, `unloadable` or `export_failed`.
    """
    if zipfile.is_zipfile(source):
        loaders = {"Keras 3": _load_keras_3}
        config = _archive_config(source)
    else:
        loaders = {"Keras 3": _load_keras_3, "tf-keras": _load_tf_keras}
        config = _h5_config(source)
    if not _CODE.isdisjoint(_classes(config)):
        raise WorkerFailure(
            FailureKind.UNTRUSTED_CODE,
            f"The file {source.name} contains a Lambda layer, which is Python code that would run on loading.",
            "Replace the Lambda layer by a layer class or a keras.ops expression and save the model again; or export "
            "it as a SavedModel where you trust it, and convert that.",
        )
    model = _load(source, loaders)
    try:
        model.export(str(folder))
    except Exception as error:  # Keras calls the model's own code here
        raise WorkerFailure(
            FailureKind.EXPORT_FAILED,
            f"Keras loaded {source.name} but cannot export it: {quoted(error)}",
            "Build the model with a fixed input specification (a keras.Input), save it again, and convert that.",
        ) from error
    return folder


def _load(source: Path, loaders: Mapping[str, Callable[[Path], KerasModel]]) -> KerasModel:
    """Load with the first loader that can, or report what each said."""
    causes = []
    for name, loader in loaders.items():
        try:
            return loader(source)
        except Exception as error:  # noqa: BLE001 - classes, versions and configurations fail in every way
            causes.append(f"{name}: {quoted(error)}")
    raise WorkerFailure(
        FailureKind.UNLOADABLE,
        f"The file {source.name} cannot be loaded. " + " / ".join(causes),
        "A model with layer classes of its own needs their code: load it there and export it as a SavedModel with "
        "model.export(folder), then convert that.",
    )


def _load_keras_3(source: Path) -> KerasModel:
    import keras  # noqa: PLC0415 - seconds, and only here

    return keras.saving.load_model(source, compile=False, safe_mode=True)


def _load_tf_keras(source: Path) -> KerasModel:
    import tf_keras  # noqa: PLC0415 - seconds, and only where Keras 3 has failed

    return tf_keras.models.load_model(source, compile=False)


def _archive_config(source: Path) -> Json:
    """The configuration inside a `.keras` file, or None where it is not one (Keras will say so)."""
    try:
        with zipfile.ZipFile(source) as archive:
            if archive.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
                raise _unreadable(source, "its configuration is larger than any model's")
            return json.loads(archive.read("config.json"))
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(source, quoted(error)) from error


def _h5_config(source: Path) -> Json:
    try:
        with h5py.File(source, "r") as file:
            text = file.attrs.get("model_config")
            weights = any(name in file for name in ("layers", "_layer_checkpoint_dependencies", "vars"))
            weights = weights or "layer_names" in file.attrs or "model_weights" in file
    except OSError as error:
        raise _unreadable(source, quoted(error)) from error
    if text is None and weights:
        raise WorkerFailure(
            FailureKind.WEIGHTS_ONLY,
            f"The file {source.name} holds the weights of a model but not the model.",
            "Build the model in Python, call model.load_weights on this file, save it with model.save('NAME.keras'), "
            "and convert that file.",
        )
    if text is None:
        raise _unreadable(source, "it has no model configuration")
    try:
        return json.loads(text)
    except ValueError as error:
        raise _unreadable(source, quoted(error)) from error


def _classes(config: Json) -> Iterator[str]:
    """Every class name in a configuration, however deep."""
    stack = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield str(item.get("class_name"))
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _unreadable(source: Path, why: str) -> WorkerFailure:
    return WorkerFailure(
        FailureKind.UNLOADABLE,
        f"The file {source.name} is not a Keras model: {why}.",
        "Give a .keras file, an .h5 file written by model.save, or a SavedModel folder.",
    )
