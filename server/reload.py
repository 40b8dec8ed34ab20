"""Changing what is served while serving: by a request, or by a configuration file that is looked at now and then."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protos.serving.config_pb2 import ModelServerConfig
from server.config import ServerConfig
from server.errors import InvalidRequest, SegueError
from server.lifecycle.awaited import Reload
from server.lifecycle.manager import ModelManager
from server.lifecycle.plan import ModelPolicy
from server.model_config import ConfiguredModels, configured_models, ignored, parse, single_model
from server.repository.folder import Repository
from server.repository.places import Places, Source

logger = logging.getLogger(__name__)

# How long the end of the server waits for the watch, which may hang in a disk that does not answer.
_JOIN_SECONDS = 0.5


class ConfigFile:
    """A model_config_file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            InvalidRequest: it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{self.path}: {error.strerror}") from error

    def parse(self, data: bytes) -> ModelServerConfig:
        """What the bytes say.

        Raises:
            InvalidRequest: with the line of what does not parse.
        """
        try:
            return parse(data.decode(), str(self.path))
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InvalidRequest(f"{self.path}: line {line} is not UTF-8 text") from error


def understood(config: ModelServerConfig, known: frozenset[str] = frozenset()) -> ConfiguredModels:
    """Check a configuration, and log what of it is not done.

    Raises:
        InvalidRequest: see `configured_models`.
    """
    models = configured_models(config, known)
    for line in ignored(config):
        logger.warning("%s", line)
    return models


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a server is to serve when it starts."""

    source: Source
    policies: Mapping[str, ModelPolicy]
    words: str
    """For the log."""
    file: ConfigFile | None = None
    in_force: bytes = b""
    """What the file held."""


def beginning(config: ServerConfig) -> Beginning:
    """A configuration file goes before a single model, and that before a repository, as in TensorFlow Serving.

    Raises:
        InvalidRequest: the file cannot be read, or the configuration is refused.
    """
    if config.model_config_file is not None:
        file = ConfigFile(config.model_config_file)
        data = file.read()
        models = understood(file.parse(data))
        words = f"{len(models.folders)} model(s) of {file.path}"
        return Beginning(Places(models.folders), models.policies, words, file, data)
    if config.model_base_path:
        models = understood(single_model(config.model_name, config.model_base_path))
        words = f"the model {config.model_name} of {config.model_base_path}"
        return Beginning(Places(models.folders), models.policies, words)
    if not config.repository.is_dir():
        logger.warning("there is no folder %s: nothing is served until it holds packages", config.repository.absolute())
    return Beginning(Repository(config.repository), {}, str(config.repository))


class Reloader:
    """Puts configurations into force, one after the other."""

    def __init__(self, models: ModelManager) -> None:
        self._models = models
        self._lock = threading.Lock()

    def apply(self, config: ModelServerConfig) -> Reload:
        """Replace what is served; returns at once.

        Raises:
            InvalidRequest: the configuration is refused; nothing has changed.
            LabelUnavailable: likewise.
        """
        with self._lock:
            models = understood(config, frozenset(self._models.names()))
            reload = self._models.configure(Places(models.folders), models.policies)
        logger.info("a new configuration is in force: models %s", ", ".join(models.folders) or "none")
        return reload


class ConfigWatcher:
    """Applies a configuration file whenever it has changed."""

    def __init__(self, file: ConfigFile, in_force: bytes, reloader: Reloader, poll_seconds: float) -> None:
        """Make a watcher; nothing happens before `start` or `poll`.

        Args:
            file: what to look at.
            in_force: what it held when it was last applied.
            reloader: applies it.
            poll_seconds: how often to look.
        """
        self._file = file
        self._in_force = in_force
        self._reloader = reloader
        self._poll_seconds = poll_seconds
        self._complaint = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="config", daemon=True)

    def start(self) -> None:
        """Look again and again, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started; one that hangs in a read is left behind."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def poll(self) -> None:
        """Look once. What cannot be applied is said once in the log and tried again, for a label may wait for its time.

        A file that has not changed is left alone: what HandleReloadConfigRequest has set meanwhile stays.
        """
        try:
            data = self._file.read()
            if data != self._in_force:
                config = self._file.parse(data)
                if config.HasField("model_config_list"):  # else it is empty: nothing to do, as in TensorFlow Serving
                    self._reloader.apply(config)
                self._in_force = data
        except SegueError as error:
            if error.message != self._complaint:
                logger.error("the configuration stays as it is: %s", error.message)  # noqa: TRY400 - the text says it all
                self._complaint = error.message
        else:
            self._complaint = ""

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.poll()
            except Exception:  # whatever one look ends with, the next one may go well
                logger.exception("looking at %s failed unexpectedly; looking again", self._file.path)
