"""Watches the folders of models and keeps the right versions in memory, by each model's policy.

One thread looks at the folders; a few load. Requests never wait for either: they read a snapshot that is replaced
whole.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from server.errors import (
    ModelNotFound,
    ReloadOverdue,
    ReloadSuperseded,
    RunFailed,
    SegueError,
    StatusNotFound,
)
from server.lifecycle import labels
from server.lifecycle.plan import DEFAULT_POLICY, ModelPolicy, Step, next_step
from server.lifecycle.servable import Loaded, Servable
from server.lifecycle.states import State, VersionStatus
from server.repository.package import Package, fingerprint, open_package
from server.repository.places import Source

logger = logging.getLogger(__name__)

_MAX_ENDED = 32  # versions of a model that ended long ago; more are forgotten
# How often a caller who waits for models is looked after: whether it is still there.
_PATIENCE_SECONDS = 0.5


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
    folders: Mapping[int, Path] = field(default_factory=dict)
    statuses: dict[int, VersionStatus] = field(default_factory=dict)
    servables: dict[int, Servable] = field(default_factory=dict)
    failed_with: dict[int, tuple[object, ...]] = field(default_factory=dict)
    last_look: dict[int, tuple[object, ...]] = field(default_factory=dict)
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Reload:
    """A configuration that was put into force: its number, and the models that the one before did not have."""

    number: int
    new: frozenset[str]


class ModelManager:
    """Every model that one server has."""

    def __init__(
        self,
        source: Source,
        load: Callable[[Package], Loaded],
        *,
        observer: Observer,
        policies: Mapping[str, ModelPolicy] | None = None,
        labels_before_versions: bool = False,
        poll_seconds: float = 1.0,
        load_threads: int = 2,
    ) -> None:
        """Make a manager; nothing happens before `start` or `poll`.

        Args:
            source: what to watch.
            load: loads and proves a package; raises a SegueError if it cannot.
            observer: is told of every change.
            policies: by model; a model without one has TensorFlow Serving's default, the latest version.
            labels_before_versions: whether a label may be given to a version that is not available, as by TensorFlow
                Serving's --allow_version_labels_for_unavailable_models. The labels in `policies` wait for their
                versions all the same.
            poll_seconds: how often to look; 0 looks once. TensorFlow Serving's --file_system_poll_wait_seconds has the
                same default.
            load_threads: how many models may load at once; versions of one model never do.
        """
        self._source = source
        self._policies = dict(policies or {})
        self._labels_before_versions = labels_before_versions
        self._load = load
        self._observer = observer
        self._poll_seconds = poll_seconds
        self._pool = ThreadPoolExecutor(load_threads, thread_name_prefix="load")
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._models: dict[str, _Model] = {}
        self._available: Mapping[str, Mapping[int, Servable]] = {}
        self._labels: labels.Labels = {}
        self._reloads = 0
        self._starting = True
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._scan_error = ""
        with self._lock:
            self._publish()

    def start(self) -> None:
        """Load what is there, wait until that is done, then keep watching in a thread."""
        wait(self.poll())
        self._starting = False
        for name, label, version in labels.pending(self._policies, self._labels):
            logger.warning("model %s: label %r waits for version %d to be available", name, label, version)
        if self._poll_seconds > 0:
            self._watcher.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop watching, then unload everything, waiting at most `timeout` seconds for a version's requests to end."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        if self._watcher.is_alive():
            self._watcher.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for model in self._models.values():
            self._retire(model, tuple(model.servables), timeout)

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The version to answer with, leased: call its `release` when done.

        Args:
            name: the model.
            version: a version number, or None for the highest available.
            label: a version label, instead of a number.

        Raises:
            ModelNotFound: no such model or version is available; the texts are TensorFlow Serving's.
            InvalidRequest: the label is unknown.
            LabelPending: the label is known, but the server has only just begun to load.
        """
        while True:
            wanted = version if label is None else self._labelled(name, label)
            versions = self._available.get(name)
            chosen = wanted if wanted is not None else max(versions) if versions else None
            servable = versions.get(chosen) if versions and chosen is not None else None
            if servable is None:
                if label is not None and wanted != self._labelled(name, label):
                    continue  # the label was moved between our two looks, and the version it had is gone
                text = f"Latest({name})" if wanted is None else f"Specific({name}, {wanted})"
                raise ModelNotFound(f"Servable not found for request: {text}")
            if servable.lease():
                return servable
            # It began to close after the snapshot was read; the next snapshot lacks it already.

    def has(self, name: str) -> bool:
        """Whether a version of that model is available."""
        return name in self._available

    def configure(self, source: Source, policies: Mapping[str, ModelPolicy]) -> Reload:
        """Replace what is watched and how, as a whole: models that are not there any more are unloaded.

        Returns at once; see `wait_for`.

        Raises:
            LabelUnavailable: a label is given to a version that is not available; then nothing has changed.
        """
        with self._changed:
            labels.check(policies, self._labels, self._available, early=self._labels_before_versions)
            before = self._names()
            self._source, self._policies = source, dict(policies)
            self._reloads += 1
            reload = Reload(self._reloads, frozenset(policies.keys() - before))
            for name in reload.new & self._models.keys():
                self._models[name].failed_with.clear()  # whoever adds a model again wants it tried again
            self._publish()
        self.poll()
        return reload

    def wait_for(
        self, reload: Reload, timeout: float | None, is_wanted: Callable[[], bool]
    ) -> Mapping[str, VersionStatus]:
        """Wait until each new model of a configuration has an available version, or none of its versions loads.

        A model whose folder has no versions yet is waited for, as by TensorFlow Serving.

        Args:
            reload: what `configure` has returned.
            timeout: seconds, or None to wait for ever.
            is_wanted: False ends the wait; asked now and then.

        Returns:
            The models without a version that loads: the highest one's status.

        Raises:
            ReloadOverdue: the time is up, or the caller gone.
            ReloadSuperseded: another configuration has come, or the server ends.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                if self._stopping.is_set():
                    raise ReloadSuperseded("the server is ending")
                if reload.number != self._reloads:
                    raise ReloadSuperseded("another configuration has replaced this one")
                outcomes = {name: self._outcome(name) for name in reload.new}
                pending = sorted(name for name, outcome in outcomes.items() if outcome is None)
                if not pending:
                    return {name: status for name, status in outcomes.items() if status and status.error}
                left = _PATIENCE_SECONDS if end is None else end - time.monotonic()
                if left <= 0 or not is_wanted():
                    raise ReloadOverdue(f"the configuration is in force; still loading: {', '.join(pending)}")
                self._changed.wait(min(left, _PATIENCE_SECONDS))

    def names(self) -> Collection[str]:
        """The models that are configured, or found where there is no configuration."""
        with self._lock:
            return self._names()

    def _names(self) -> set[str]:
        return {*self._policies, *(model.name for model in self._models.values() if model.folders)}

    def _outcome(self, name: str) -> VersionStatus | None:
        """How the first load of a model has ended, or None while it has not. Called with the lock held."""
        model = self._models.get(name)
        if model is None or model.busy:
            return None
        known = sorted(model.statuses.values(), key=lambda status: status.version, reverse=True)
        available = [status for status in known if status.state is State.AVAILABLE]
        failed = [status for status in known if status.error is not None and status.version in model.folders]
        return next(iter(available + failed), None)

    def _labelled(self, name: str, label: str) -> int:
        return labels.version_of(name, label, self._labels, self._policies, starting=self._starting)

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
        while True:
            source = self._source
            try:
                found = source.scan()
            except OSError as error:
                if str(error) != self._scan_error:
                    logger.warning("cannot list the repository, serving what is loaded: %s", error)
                    self._scan_error = str(error)
                return []
            self._scan_error = ""
            with self._lock:
                if source is self._source:  # else it was replaced while we looked
                    return self._begin_all(found)

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.poll()
            except Exception:
                logger.exception("looking at the repository failed unexpectedly; looking again")

    def _begin_all(self, found: Mapping[str, Mapping[int, Path] | None]) -> list[Future[None]]:
        """Have every model brought up to what was found. Called with the lock held."""
        for name, folders in found.items():
            if folders and name not in self._models:
                self._models[name] = _Model(name)
        for model in self._models.values():
            folders = found.get(model.name, {})
            if folders is not None:
                model.folders = folders
        started = [self._begin(model) for model in self._models.values()]
        return [future for future in started if future is not None]

    def _begin(self, model: _Model) -> Future[None] | None:
        """Have one model brought up to its folders, unless that is under way. Called with the lock held."""
        if model.busy or self._stopping.is_set():
            return None
        _forget_old(model)
        if self._next_step(model) is None:
            return None
        model.busy = True
        return self._pool.submit(self._advance, model)

    def _advance(self, model: _Model) -> None:
        """Take steps until the model is as it should be for the folders that were seen last."""
        try:
            while work := self._take_step(model):
                step, folders = work
                if step.load is not None:
                    self._bring_up(model, step.load, folders[step.load])
                self._retire(model, step.retire, timeout=None)
        except BaseException:
            logger.exception("model %s: bringing it up to date failed unexpectedly", model.name)
            with self._changed:
                model.busy = False
            raise

    def _take_step(self, model: _Model) -> tuple[Step, Mapping[int, Path]] | None:
        """The next step and the folders that it is for.

        Without one the model is free in the same moment, so that what is found later is not lost between the two.
        """
        with self._changed:
            step = None if self._stopping.is_set() else self._next_step(model)
            if step is not None:
                return step, model.folders
            model.busy = False
            self._changed.notify_all()
            return None

    def _next_step(self, model: _Model) -> Step | None:
        def unchanged(version: int) -> bool:
            seen = fingerprint(model.folders[version])
            before, model.last_look[version] = model.last_look.get(version), seen
            # Files that still change are a copy under way.
            return seen == model.failed_with.get(version) or seen != before

        policy = self._policies.get(model.name, DEFAULT_POLICY)
        return next_step(model.folders.keys(), model.statuses, unchanged, policy)

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
                named = [label for label, v in self._labels.get(model.name, {}).items() if v == version]
            if named and not self._stopping.is_set():
                logger.warning("model %s: version %d goes, which has the labels %s", model.name, version, named)
            self._move(model, version, State.UNLOADING)
            servable.close(timeout)
            self._move(model, version, State.END)

    def _move(self, model: _Model, version: int, state: State, error: SegueError | None = None) -> None:
        with self._changed:
            old = model.statuses.get(version)
            new = VersionStatus(version) if old is None else old.moved(state, error)
            model.statuses[version] = new
            self._changed.notify_all()
        self._observer.status_changed(model.name, new)

    def _publish(self) -> None:
        """Replace the snapshots that requests read. Called with the lock held."""
        self._available = {m.name: dict(m.servables) for m in self._models.values() if m.servables}
        early = self._labels_before_versions
        self._labels = labels.assign(self._policies, self._labels, self._available, early=early)


def _forget_old(model: _Model) -> None:
    gone = [v for v, s in model.statuses.items() if s.state is State.END and v not in model.folders]
    for version in sorted(gone)[:-_MAX_ENDED]:
        del model.statuses[version]
    for version in [v for v in model.failed_with if v not in model.folders]:
        del model.failed_with[version]
        model.last_look.pop(version, None)
        # Its error is no news of what may yet come under that number.
        if model.statuses[version].error is not None:
            del model.statuses[version]
