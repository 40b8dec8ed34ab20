"""What is at a path: the kinds of model that can be converted, tried in turn."""

from collections.abc import Collection
from pathlib import Path

from converter.errors import NotAModel, UnloadableModel
from converter.sources.keras import KerasSource, is_keras_file, read_keras
from converter.sources.saved_model import MODEL_FILE, SavedModelSource, read_saved_model

Source = SavedModelSource | KerasSource


def recognise(path: Path, tags: Collection[str]) -> Source:
    """Find out what kind of model a path holds; `tags` choose the graph of a SavedModel.

    Raises:
        NotAModel: None that can be converted; the text says what was found and what is expected.
        UnloadableModel: It cannot be read, or is damaged.
    """
    if path.is_file() and path.name != MODEL_FILE:
        try:
            if is_keras_file(path):
                return read_keras(path)
        except OSError as error:
            raise UnloadableModel(
                f"The file {path} cannot be read: {error.strerror}.", "Check who may read it."
            ) from error
        raise NotAModel(
            f"The file {path} is no model of a kind known here.",
            f"Give a SavedModel folder (it holds {MODEL_FILE}), a .keras file, or a whole model in .h5.",
        )
    return read_saved_model(path, tags)
