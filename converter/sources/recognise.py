"""What is at a path: the kinds of model that can be converted, tried in turn."""

from pathlib import Path

from converter.sources.saved_model import SavedModelSource, read_saved_model

from converter.errors import NotAModel
from converter.sources.keras import KerasSource, is_keras_file, read_keras

Source = SavedModelSource | KerasSource


def recognise(path: Path) -> Source:
    """Find out what kind of model a path holds.

    Raises:
        NotAModel: None that can be converted; the text says what was found and what is expected.
    """
    if path.is_file():
        if is_keras_file(path):
            return read_keras(path)
        raise NotAModel(
            f"{path} is a file of no kind known here.",
            "Give a SavedModel folder (it holds saved_model.pb), a .keras file, or a whole model in .h5.",
        )
    return read_saved_model(path)
