"""SavedModels: recognised and described from their files, without TensorFlow.

What is read here is what a conversion must know beforehand: which graph is for serving, its signatures, its
operators, and a digest that tells whether the source has changed.
"""

import hashlib
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from converter.errors import NotAModel, SignatureMissing, UnloadableModel
from protos.tensorflow import saved_model_pb2, signature_pb2

MODEL_FILE = "saved_model.pb"
SERVE_TAGS = ("serve",)
"""The exact set of tags by which TensorFlow Serving chooses the graph that it loads."""

_BOOKKEEPING = {"__saved_model_init_op", "__saved_model_train_op"}  # signatures that nobody calls
_MAX_GRAPH_BYTES = 2**31 - 1  # no protobuf message is larger
_MAX_FILES = 100_000  # many times what any SavedModel has; links to folders could make endless ones
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class SavedModelSource:
    """A SavedModel as far as its files tell.

    Attributes:
        path: Its folder.
        tags: The tags of the graph described, sorted.
        signatures: That graph's signatures by name, sorted, without TensorFlow's own bookkeeping.
        operators: Names of all operators that the graph uses, also inside functions; functions are no operators.
        tensorflow_version: The release that wrote it; "" if it does not say.
        digest: SHA-256, in hexadecimal, over the names and contents of all its files.
        size: Bytes of all its files.
    """

    path: Path
    tags: tuple[str, ...]
    signatures: dict[str, signature_pb2.SignatureDef]
    operators: frozenset[str]
    tensorflow_version: str
    digest: str
    size: int


def read_saved_model(path: Path, tags: Collection[str] = SERVE_TAGS) -> SavedModelSource:
    """Recognise and describe a SavedModel.

    Args:
        path: The folder with `saved_model.pb` in it.
        tags: Which of its graphs: the one that has exactly these.

    Raises:
        NotAModel: The path holds no SavedModel with such a graph; the advice names the right path if one is near.
        UnloadableModel: It does, but a file cannot be read, or a link in it leads outside of it.
    """
    try:
        if not (path / MODEL_FILE).is_file():
            raise _why_not(path)
        graph = _graph(path / MODEL_FILE, tags)
        digest, size = digest_folder(path)
    except OSError as error:
        raise UnloadableModel(
            f"The path {error.filename or path} cannot be read: {error.strerror}.",
            "Check what it is and who may read it.",
        ) from error
    return SavedModelSource(
        path=path,
        tags=tuple(sorted(graph.meta_info_def.tags)),
        signatures={name: graph.signature_def[name] for name in sorted(set(graph.signature_def) - _BOOKKEEPING)},
        operators=_operators(graph.graph_def),
        tensorflow_version=graph.meta_info_def.tensorflow_version,
        digest=digest,
        size=size,
    )


def select_signatures(
    source: SavedModelSource, wanted: Sequence[str] | None = None
) -> dict[str, signature_pb2.SignatureDef]:
    """Pick the signatures to convert.

    Args:
        source: The model.
        wanted: Their names, in the order wanted; None or nothing picks all.

    Raises:
        SignatureMissing: The model lacks one of them, or has no signature at all.
    """
    if not source.signatures:
        raise SignatureMissing(
            f"The SavedModel {source.path} has no signatures.",
            "Save it again with tf.saved_model.save(MODEL, PATH, signatures=...), naming what clients shall call.",
        )
    for name in wanted or ():
        if name not in source.signatures:
            raise SignatureMissing(
                f'The SavedModel {source.path} has no signature "{name}".',
                f"Choose with --signature from those it has: {', '.join(source.signatures)}.",
            )
    return {name: source.signatures[name] for name in wanted or source.signatures}


def digest_folder(folder: Path) -> tuple[str, int]:
    """Compute a digest of all files under a folder, and their total size in bytes.

    The digest covers each file's path below the folder and its content, in the order of their paths. It does not
    depend on times, permissions, empty folders, or whether a file is a link to another one inside the folder.

    Raises:
        UnloadableModel: A link leads outside of the folder or in a circle, or something is neither file nor folder.
        OSError: A file cannot be read.
    """
    root = folder.resolve()
    digest = hashlib.sha256()
    total = 0
    files = list(itertools.islice(_files(root, (root,), ""), _MAX_FILES + 1))
    if len(files) > _MAX_FILES:
        raise UnloadableModel(
            f"The folder {folder} has more than {_MAX_FILES} files.", "Remove what is not part of the model."
        )
    for name, path in sorted(files):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for prefix in (name, size.to_bytes(8, "little")):
                digest.update(len(prefix).to_bytes(8, "little") + prefix)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        total += size
    return digest.hexdigest(), total


def _files(root: Path, folders: tuple[Path, ...], prefix: str) -> Iterator[tuple[bytes, Path]]:
    """Yield name below the root, in bytes, and real path of every file in the last of the folders and below.

    Args:
        root: The model's folder.
        folders: The real paths of the folders that are being walked, from the root on: none is entered twice.
        prefix: The last folder's name below the root, with a slash.
    """
    for entry in folders[-1].iterdir():
        name = prefix + entry.name
        target = Path(os.path.realpath(entry, strict=True)) if entry.is_symlink() else entry
        if not target.is_relative_to(root):
            raise UnloadableModel(
                f"The link {root / name} leads to {target}, outside of the model.", "Convert a copy made with cp -rL."
            )
        if target in folders:
            raise UnloadableModel(f"The link {root / name} leads to a folder that it is in.", "Remove the link.")
        if target.is_dir():
            yield from _files(root, (*folders, target), f"{name}/")
        elif target.is_file():
            yield os.fsencode(name), target
        else:
            raise UnloadableModel(
                f"The path {root / name} is neither a file nor a folder.", "Remove it from the model."
            )


def _why_not(path: Path) -> NotAModel:
    """Find what to say about a path that is no SavedModel."""
    if not path.exists():
        return NotAModel(f"The path {path} does not exist.", f"Check it; the current folder is {Path.cwd()}.")
    if path.is_file():
        if path.name == MODEL_FILE:
            return NotAModel(f"The file {path} is only a part of a SavedModel.", f"Give its folder, {path.parent}.")
        return NotAModel(
            f"The path {path} is a file, not a SavedModel.", f"Give the folder that has {MODEL_FILE} in it."
        )
    names = sorted(each.name for each in path.iterdir())
    versions = [name for name in names if name.isdecimal() and (path / name / MODEL_FILE).is_file()]
    if versions:
        return NotAModel(
            f"The folder {path} is not a SavedModel but holds {len(versions)} version(s) of one.",
            f"Give the version to convert; the newest is {path / max(versions, key=int)}.",
        )
    return NotAModel(*_why_not_folder(path, names))


def _why_not_folder(path: Path, names: list[str]) -> tuple[str, str]:
    if not names:
        return f"The folder {path} is empty.", f"Give the folder that has {MODEL_FILE} in it."
    if f"{MODEL_FILE}txt" in names:
        return (
            f"The folder {path} holds a SavedModel in text form, which is not read here.",
            "Save it in binary form: tf.saved_model.save(tf.saved_model.load(OLD), NEW).",
        )
    if "variables" in names:
        return (
            f"The folder {path} has the variables of a SavedModel but no {MODEL_FILE}.",
            "Copy the whole folder from where the model was saved.",
        )
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"The folder {path} has no {MODEL_FILE} in it, only {shown}.", "Give the SavedModel's own folder."


def _graph(file: Path, tags: Collection[str]) -> saved_model_pb2.MetaGraphDef:
    if file.stat().st_size > _MAX_GRAPH_BYTES:
        raise UnloadableModel(f"The file {file} is larger than 2 GiB.", "Save the model with its weights as variables.")
    try:
        model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise UnloadableModel(
            f"The file {file} is no SavedModel, or is damaged.", "Copy the whole folder again from where it was saved."
        ) from error
    for graph in model.meta_graphs:
        if set(tags) == set(graph.meta_info_def.tags):
            return graph
    if not model.meta_graphs:
        raise UnloadableModel(
            f"The file {file} holds no graph.", "Copy the whole folder again from where it was saved."
        )
    there = "; ".join(", ".join(graph.meta_info_def.tags) or "none" for graph in model.meta_graphs)
    raise NotAModel(
        f"The file {file} has no graph with the tag {', '.join(sorted(tags))}. The tags of its graphs are: {there}.",
        "Choose one of its graphs with --tag (once for each of the graph's tags).",
    )


def _operators(graph: saved_model_pb2.GraphDef) -> frozenset[str]:
    functions = {function.signature.name for function in graph.library.function}
    used = {node.op for node in graph.node}
    for function in graph.library.function:
        used.update(node.op for node in function.node_def)
    return frozenset(used - functions)
