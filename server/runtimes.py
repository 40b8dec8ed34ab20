"""The backends of a server, by its settings: which device, which runtimes, and how a choice between them is made."""

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from server.backends.catalogue import AUTO, PRECISIONS, offered
from server.backends.interface import Backend, Precision
from server.backends.onnx_runtime import Device, DeviceChoice, choose_device
from server.batching.choice import choose
from server.config import ServerConfig, parse_precision
from server.errors import InvalidRequest
from server.lifecycle.decisions import Decisions
from server.lifecycle.engine_room import Allows, EngineRoom, allow_all
from server.selection.character import Objective
from server.selection.policy import Selector

logger = logging.getLogger("server")


def engine_room(config: ServerConfig, backends: Sequence[Backend] | None = None) -> EngineRoom:
    """The backends that may answer, and what becomes of them for each version.

    Args:
        config: The server's settings.
        backends: These and no others, whatever the settings say: for a program that has a server in it.

    Raises:
        InvalidRequest: The device is not there, or the file of batching parameters cannot be followed.
    """
    choice = _device(config)
    allows: Allows = allow_all
    if backends is None:
        words = parse_precision(config.precision)
        backends, allows = _offered(config, choice.device, words.values()), partial(_allows, words)
    logger.info("backend %s: %s", backends[0].name, choice.reason)
    batching = choose(
        config.batching_parameters_file,
        config.max_batch_size,
        config.batch_timeout_micros,
        per_model=config.per_model_batching,
        fixed_sizes=choice.device == "cuda",  # each new size costs it a search for algorithms
    )
    objective = Objective(config.objective)
    return EngineRoom(
        *(backends, batching, lambda buckets: Selector(buckets, objective), Decisions(_state_folder(config))),
        allows=allows,
    )


def _offered(config: ServerConfig, device: Device, precisions: Collection[str]) -> Sequence[Backend]:
    cache = _expanded(config.cache_folder)
    offer = offered(config.backends, ",".join(precisions), device=device, threads=config.threads, cache=cache)
    for name, reason in offer.absent.items():
        logger.log(logging.INFO if config.backends == AUTO else logging.WARNING, "no backend %s: %s", name, reason)
    return offer.backends


def _allows(words: Mapping[str, str], model: str, precision: Precision) -> bool:
    """Whether the operator has allowed a precision for a model."""
    return precision in PRECISIONS[words.get(model, words[""])]


def _device(config: ServerConfig) -> DeviceChoice:
    found = choose_device()
    if config.device == "auto":
        return found
    if config.device == "cuda" and found.device != "cuda":
        raise InvalidRequest(f"--device cuda: {found.reason}")
    device: Device = "cuda" if config.device == "cuda" else "cpu"
    return found if device == found.device else DeviceChoice(device, "as told by --device")


def _state_folder(config: ServerConfig) -> Path | None:
    """Each server's own, known by its port; none for a server whose port is another each time."""
    if config.state_folder == Path() or config.port == 0:
        return None
    return _expanded(config.state_folder) / str(config.port)


def _expanded(folder: Path) -> Path:
    """The folder, with its ~ replaced.

    Raises:
        InvalidRequest: There is no home: neither HOME nor an entry for this user.
    """
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise InvalidRequest(f"{folder}: this user has no home; give --state-folder and --cache-folder") from error
