"""Names that may become folders. Paths are built from nothing else."""

import re

from server.errors import InvalidName

# A folder name on every file system, without separators, and no hidden folder.
_MODEL_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
# A positive int64 as str() writes it. With leading zeros, as TensorFlow Serving takes them, two folders could be one
# version.
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_INT64_MAX = 2**63 - 1

# Our own folder inside a repository, for locks and unfinished packages. Hidden, so no model name can be it.
WORK_FOLDER = ".segue"
# Inside a model's folder: versions that were taken out of service.
WITHDRAWN = ".withdrawn"
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
# The parameters that a SavedModel brought for TensorFlow Serving, as they were.
BATCHING = "batching_params.pbtxt"


def check_model_name(name: str) -> str:
    """Return the name.

    Raises:
        InvalidName: it is not 1 to 128 of the characters A-Z a-z 0-9 . _ - or starts with a dot.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise InvalidName(
            f"The name {name!r} cannot be a model's name.",
            "Use 1 to 128 of the characters A-Z a-z 0-9 . _ - and do not start with a dot.",
        )
    return name


def is_model_name(name: str) -> bool:
    """True if a folder of that name can hold versions of a model."""
    return _MODEL_NAME.fullmatch(name) is not None


def parse_version(folder: str) -> int | None:
    """The version number that a folder's name stands for, or None."""
    if not _VERSION.fullmatch(folder):
        return None
    number = int(folder)
    return number if number <= _INT64_MAX else None
