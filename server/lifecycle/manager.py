"""Watches the repository and keeps the right versions in memory.

One thread looks at the repository; a few load. Requests never wait for either: they read a snapshot that is replaced
whole.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from server.errors import InvalidRequest, ModelNotFound, RunFailed, SegueError, StatusNotFound
from server.lifecycle.plan import Step, next_step
from server.lifecycle.servable import Loaded, Servable
from server.lifecycle.states import State, VersionStatus
from server.repository.folder import Repository
from server.repository.package import Package, fingerprint, open_package

logger = logging.getLogger(__name__)

# Versions that ended long ago are forgotten beyond this many per model.
_MAX_ENDED = 32


class Observer(Protocol):
    """Is told of every change; called from loading threads."""

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """A version has a new state."""
        ...

    def loaded(self, loaded: Loaded) -> None:
        """A version has become available."""
        ...


@dataclass(slots=True)
class _Model:
    name: str
    statuses: dict[int, VersionStatus] = field(default_factory=dict)
    servables: dict[int, Servable] = field(default_factory=dict)
    failed_with: dict[int, tuple[object, ...]] = field(default_factory=dict)
    busy: bool = False


class ModelManager:
    """Every model of one repository."""

    def __init__(
        self,
        repository: Repository,
        load: Callable[[Package], Loaded],
        *,
        observer: Observer,
        poll_seconds: float = 1.0,
        load_threads: int = 2,
    ) -> None:
        """Make a manager; nothing happens before `start` or `poll`.

        Args:
            repository: what to watch.
            load: loads and proves a package; raises a SegueError if it cannot.
            observer: is told of every change.
            poll_seconds: how often to look. TensorFlow Serving's --file_system_poll_wait_seconds has the same default.
            load_threads: how many models may load at once; versions of one model never do.
        """
        self._repository = repository
        self._load = load
        self._observer = observer
        self._poll_seconds = poll_seconds
        self._pool = ThreadPoolExecutor(load_threads, thread_name_prefix="load")
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._available: Mapping[str, Mapping[int, Servable]] = {}
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._scan_error = ""

    def start(self) -> None:
        """Load what is in the repository, wait until that is done, then keep watching in a thread."""
        wait(self.poll())
        self._watcher.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop watching, then unload everything, waiting at most `timeout` seconds for a version's requests to end."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._pool.shutdown(cancel_futures=True)
        for model in self._models.values():
            self._retire(model, tuple(model.servables), timeout)

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The version to answer with, leased: call its `release` when done.

        Args:
            name: the model.
            version: a version number, or None for the highest available.
            label: a version label; none are defined yet, so any is unknown.

        Raises:
            ModelNotFound: no such model or version is available; the texts are TensorFlow Serving's.
            InvalidRequest: the label is unknown.
        """
        if label is not None:
            raise InvalidRequest(f"Unrecognized servable version label: {label}")
        while True:
            versions = self._available.get(name)
            chosen = version if version is not None else max(versions) if versions else None
            servable = versions.get(chosen) if versions and chosen is not None else None
            if servable is None:
                wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise ModelNotFound(f"Servable not found for request: {wanted}")
            if servable.lease():
                return servable
            # It began to close after the snapshot was read; the next snapshot lacks it already.

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """What is known of a model's versions, the highest first.

        Raises:
            StatusNotFound: nothing is known; the texts are TensorFlow Serving's.
        """
        with self._lock:
            model = self._models.get(name)
            known = sorted(model.statuses.values(), key=lambda s: s.version, reverse=True) if model else []
        if version is not None:
            known = [status for status in known if status.version == version]
            if not known:
                raise StatusNotFound(f"Could not find version {version} of model {name}")
        if not known:
            raise StatusNotFound(f"Could not find any versions of model {name}")
        return known

    def poll(self) -> list[Future[None]]:
        """Look once and start what has to be done; the futures end when it is done."""
        try:
            present = self._repository.scan()
        except OSError as error:
            if str(error) != self._scan_error:
                logger.warning("cannot list the repository, serving what is loaded: %s", error)
                self._scan_error = str(error)
            return []
        self._scan_error = ""
        with self._lock:
            for name, versions in present.items():
                if versions and name not in self._models:
                    self._models[name] = _Model(name)
            started = [self._begin(model, present.get(model.name, {})) for model in self._models.values()]
        return [future for future in started if future is not None]

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self.poll()

    def _begin(self, model: _Model, folders: Mapping[int, Path]) -> Future[None] | None:
        """Have the model brought up to what its folders say, unless that is under way. Called with the lock held."""
        if model.busy:
            return None
        _forget_old(model, folders)
        if _next_step(model, folders) is None:
            return None
        model.busy = True
        return self._pool.submit(self._advance, model, folders)

    def _advance(self, model: _Model, folders: Mapping[int, Path]) -> None:
        """Take steps until the model is as it should be for the folders that were seen."""
        try:
            while not self._stopping.is_set() and (step := self._locked_next_step(model, folders)):
                if step.load is not None:
                    self._bring_up(model, step.load, folders[step.load])
                self._retire(model, step.retire, timeout=None)
        finally:
            with self._lock:
                model.busy = False

    def _locked_next_step(self, model: _Model, folders: Mapping[int, Path]) -> Step | None:
        with self._lock:
            return _next_step(model, folders)

    def _bring_up(self, model: _Model, version: int, folder: Path) -> None:
        seen = fingerprint(folder)
        self._move(model, version, State.START)
        self._move(model, version, State.LOADING)
        try:
            loaded = self._load(open_package(model.name, version, folder))
        except SegueError as error:
            self._fail(model, version, seen, error)
            return
        except Exception:  # a version that fails in a way nobody foresaw must not end the watch
            logger.exception("loading model %s version %d failed unexpectedly", model.name, version)
            self._fail(model, version, seen, RunFailed("loading failed unexpectedly; see the server's log"))
            return
        with self._lock:
            model.failed_with.pop(version, None)
            model.servables[version] = loaded.servable
            self._publish()
        self._observer.loaded(loaded)
        self._move(model, version, State.AVAILABLE)

    def _fail(self, model: _Model, version: int, seen: tuple[object, ...], error: SegueError) -> None:
        with self._lock:
            model.failed_with[version] = seen
        self._move(model, version, State.END, error)

    def _retire(self, model: _Model, versions: tuple[int, ...], timeout: float | None) -> None:
        for version in versions:
            with self._lock:
                servable = model.servables.pop(version)
                self._publish()
            self._move(model, version, State.UNLOADING)
            servable.close(timeout)
            self._move(model, version, State.END)

    def _move(self, model: _Model, version: int, state: State, error: SegueError | None = None) -> None:
        with self._lock:
            old = model.statuses.get(version)
            new = VersionStatus(version) if old is None else old.moved(state, error)
            model.statuses[version] = new
        self._observer.status_changed(model.name, new)

    def _publish(self) -> None:
        """Replace the snapshot that requests read. Called with the lock held."""
        self._available = {m.name: dict(m.servables) for m in self._models.values() if m.servables}


def _next_step(model: _Model, folders: Mapping[int, Path]) -> Step | None:
    def unchanged(version: int) -> bool:
        return model.failed_with.get(version) == fingerprint(folders[version])

    return next_step(folders.keys(), model.statuses, unchanged)


def _forget_old(model: _Model, folders: Mapping[int, Path]) -> None:
    gone = [v for v, s in model.statuses.items() if s.state is State.END and v not in folders]
    for version in sorted(gone)[:-_MAX_ENDED]:
        del model.statuses[version]
    for version in [v for v in model.failed_with if v not in folders]:
        del model.failed_with[version]
