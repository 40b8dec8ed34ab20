"""Watches the folders of models and keeps the right versions in memory, by each model's policy.

One thread looks at the folders; a few load. Requests never wait for either (see `catalogue`), nor does whoever asks for
a status: nothing is read from a disk while the lock is held.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Protocol

from server.errors import ReloadOverdue, ReloadSuperseded, RunFailed, SegueError, StatusNotFound
from server.lifecycle import labels
from server.lifecycle.awaited import Reload, left_out
from server.lifecycle.catalogue import Catalogue
from server.lifecycle.news import News
from server.lifecycle.plan import DEFAULT_POLICY, ModelPolicy, Step
from server.lifecycle.record import Look, ModelRecord, look
from server.lifecycle.servable import Loaded, Servable
from server.lifecycle.states import State, VersionStatus
from server.lifecycle.unloading import UNLOAD_SECONDS, let_go
from server.repository.package import Package, open_package
from server.repository.places import Source

logger = logging.getLogger(__name__)

# How often a caller who waits for models is looked after: whether it is still there.
_PATIENCE_SECONDS = 0.5

_Found = Mapping[str, Mapping[int, Path] | None]
_Looks = Mapping[str, tuple[Mapping[int, Look | None], Mapping[int, Look]]]
"""By model: what had been seen of its versions, and what is seen now."""


class Observer(Protocol):
    """Is told of every change in its order; called by one thread at a time, which may be any."""

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """A version has a new state."""
        ...

    def loaded(self, loaded: Loaded) -> None:
        """A version has become available."""
        ...

    def not_replaced(self, model: str, version: int, error: SegueError) -> None:
        """A version serves on, though its folder now holds another package: that one does not load."""
        ...

    def forgotten(self, model: str, version: int) -> None:
        """A version that has ended has no status any more."""
        ...


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
        unload_seconds: float = UNLOAD_SECONDS,
    ) -> None:
        """Make a manager; nothing happens before `start` or `poll`.

        Args:
            source: what to watch.
            load: loads and proves a package; raises a SegueError if it cannot.
            observer: is told of every change.
            policies: by model, TensorFlow Serving's default is the latest version; their labels wait for versions.
            labels_before_versions: TensorFlow Serving's --allow_version_labels_for_unavailable_models.
            poll_seconds: TensorFlow Serving's --file_system_poll_wait_seconds, with its default; 0 looks once.
            load_threads: how many models may load at once; versions of one model never do.
            unload_seconds: how long a version that goes waits for its requests.
        """
        self._source = source
        self._policies = dict(policies or {})
        self._load = load
        self._observer = observer
        self._news = News()
        self._poll_seconds = poll_seconds
        self._unload_seconds = unload_seconds
        self._pool = ThreadPoolExecutor(load_threads, thread_name_prefix="load")
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._models: dict[str, ModelRecord] = {}
        self._catalogue = Catalogue(self._policies, early_labels=labels_before_versions)
        self._reloads = 0
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._scan_error = ""

    def start(self) -> None:
        """Load what is there, wait until that is done, then keep watching in a thread."""
        wait(self.poll())
        self._catalogue.starting = False
        for name, label, version in labels.pending(self._policies, self._catalogue.now.labels):
            logger.warning("model %s: label %r waits for version %d to be available", name, label, version)
        if self._poll_seconds > 0:
            self._watcher.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop watching, then unload everything.

        Args:
            timeout: seconds for all requests to end, in all; None waits for ever.
        """
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
            going = [(model, tuple(model.servables)) for model in self._models.values()]
        self._pool.shutdown(wait=False, cancel_futures=True)
        end = float("inf") if timeout is None else time.monotonic() + timeout
        for model, versions in going:
            self._retire(model, versions, end)
        if self._watcher.is_alive():
            self._watcher.join(_PATIENCE_SECONDS)  # it may hang in a disk that does not answer

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The version to answer with, leased: see Catalogue.acquire."""
        return self._catalogue.acquire(name, version, label)

    def servables(self) -> list[Servable]:
        """Every version that is available."""
        return [servable for versions in self._catalogue.now.available.values() for servable in versions.values()]

    def has(self, name: str) -> bool:
        """Whether a version of that model is available."""
        return name in self._catalogue.now.available

    def configure(self, source: Source, policies: Mapping[str, ModelPolicy]) -> Reload:
        """Replace what is watched and how, as a whole: models that are not there any more are unloaded.

        Returns at once; see `wait_for`.

        Raises:
            LabelUnavailable: a label is given to a version that is not available; then nothing has changed.
        """
        with self._changed:
            self._catalogue.check(policies)
            before = self._names() - {model.name for model in self._models.values() if model.is_coming()}
            self._source, self._policies = source, dict(policies)
            self._reloads += 1
            reload = Reload(self._reloads, {name: policies[name] for name in policies.keys() - before})
            for name in reload.new.keys() & self._models.keys():
                self._models[name].refused.clear()  # whoever adds a model again wants it tried again
            self._publish()
            self._changed.notify_all()
        self.poll()
        return reload

    def wait_for(
        self, reload: Reload, timeout: float | None, is_wanted: Callable[[], bool]
    ) -> Mapping[str, VersionStatus]:
        """Wait until each new model of a configuration has an available version, or none of its versions loads.

        A model whose folder has no versions yet is waited for, as by TensorFlow Serving. So is one that a newer
        configuration has too.

        Args:
            reload: what `configure` has returned.
            timeout: seconds, or None to wait for ever.
            is_wanted: False ends the wait; asked now and then.

        Returns:
            The models without a version that loads, or that a newer configuration has left out: the highest version's
            status.

        Raises:
            ReloadOverdue: the time is up, or the caller gone.
            ReloadSuperseded: the server ends.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                if self._stopping.is_set():
                    raise ReloadSuperseded("the server is ending")
                is_newest = reload.number == self._reloads
                gone = {} if is_newest else left_out(reload, self._policies, self._models)
                known = {name: self._models.get(name) for name in reload.new.keys() - gone.keys()}
                outcomes = {name: model.outcome() if model else None for name, model in known.items()}
                pending = sorted(name for name, outcome in outcomes.items() if outcome is None)
                if not pending:
                    return gone | {name: status for name, status in outcomes.items() if status and status.error}
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
            looks = self._look(found)
            with self._lock:
                if source is not self._source:
                    continue  # it was replaced while we looked
                started = self._begin_all(found, looks)
            self._news.tell()
            return started

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.poll()
            except Exception:
                logger.exception("looking at the repository failed unexpectedly; looking again")

    def _look(self, found: _Found) -> _Looks:
        """Look into the folders of versions that failed, or that serve."""
        with self._lock:
            watched = {name: model.watched() for name, model in self._models.items()}
        looks = {}
        for name, before in watched.items():
            folders = found.get(name) or {}
            looks[name] = before, {v: look(folders[v], before[v]) for v in before.keys() & folders.keys()}
        return looks

    def _begin_all(self, found: _Found, looks: _Looks) -> list[Future[None]]:
        """Have every model brought up to what was found. Called with the lock held."""
        for name, folders in found.items():
            if folders and name not in self._models:
                self._models[name] = ModelRecord(name)
        for model in self._models.values():
            folders = found.get(model.name, {})
            if folders is not None:
                model.folders = folders
            if model.name in looks:
                model.saw(*looks[model.name])
        started = [self._begin(model) for model in self._models.values()]
        return [future for future in started if future is not None]

    def _begin(self, model: ModelRecord) -> Future[None] | None:
        """Have one model brought up to its folders, unless that is under way. Called with the lock held."""
        if model.busy or self._stopping.is_set():
            return None
        for version in model.forget_old():
            self._news.add(partial(self._observer.forgotten, model.name, version))
        if self._next_step(model) is None:
            return None
        model.busy = True
        return self._pool.submit(self._advance, model)

    def _next_step(self, model: ModelRecord) -> Step | None:
        return model.next_step(self._policies.get(model.name, DEFAULT_POLICY))

    def _advance(self, model: ModelRecord) -> None:
        """Take steps until the model is as it should be for the folders that were seen last."""
        try:
            while work := self._take_step(model):
                step, folders = work
                if step.load is not None:
                    self._bring_up(model, step.load, folders[step.load])
                self._retire(model, step.retire)
        except BaseException:
            logger.exception("model %s: bringing it up to date failed unexpectedly", model.name)
            with self._changed:
                model.busy = False
            raise

    def _take_step(self, model: ModelRecord) -> tuple[Step, Mapping[int, Path]] | None:
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

    def _bring_up(self, model: ModelRecord, version: int, folder: Path) -> None:
        """Load a version: a new one, or the package that is by now in the folder of one that serves."""
        seen = look(folder)
        with self._lock:
            if self._stopping.is_set():
                return
            replaces = version in model.servables
            if not replaces:
                self._set(model, version, State.START)
                self._set(model, version, State.LOADING)
        self._news.tell()
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
            old = model.servables.get(version)
            if self._stopping.is_set():
                old = loaded.servable  # nobody would unload it later
            else:
                model.refused.pop(version, None)
                model.servables[version] = loaded.servable
                model.sources[version] = model.looks[version] = seen
                self._news.add(partial(self._observer.loaded, loaded))
                if not replaces:
                    self._set(model, version, State.AVAILABLE)
                self._publish()
        self._news.tell()
        if old is not None:
            let_go(old, self._unload_seconds)

    def _fail(self, model: ModelRecord, version: int, seen: Look, error: SegueError) -> None:
        with self._lock:
            model.refused[version] = model.looks[version] = seen
            if version in model.servables:
                self._news.add(partial(self._observer.not_replaced, model.name, version, error))
            elif model.statuses[version].state is State.LOADING:
                self._set(model, version, State.END, error)
        self._news.tell()

    def _retire(self, model: ModelRecord, versions: tuple[int, ...], end: float | None = None) -> None:
        """Unload versions; for `end` see `let_go`."""
        for version in versions:
            with self._lock:
                servable = model.servables.pop(version, None)
                if servable is not None:
                    self._set(model, version, State.UNLOADING)
                self._publish()
                named = [label for label, v in self._catalogue.now.labels.get(model.name, {}).items() if v == version]
            if servable is None:
                continue  # the end of the server came first
            if named and not self._stopping.is_set():
                logger.warning("model %s: version %d goes, which has the labels %s", model.name, version, named)
            self._news.tell()
            let_go(servable, self._unload_seconds, partial(self._ended, model, version), end=end)

    def _ended(self, model: ModelRecord, version: int) -> None:
        with self._lock:
            self._set(model, version, State.END)
            self._begin(model)  # what has come under that number meanwhile was not loaded before its end
        self._news.tell()

    def _set(self, model: ModelRecord, version: int, state: State, error: SegueError | None = None) -> None:
        """Move a version to a state; the caller has it told. Called with the lock held."""
        old = model.statuses.get(version)
        new = VersionStatus(version) if old is None else old.moved(state, error)
        model.statuses[version] = new
        self._changed.notify_all()
        self._news.add(partial(self._observer.status_changed, model.name, new))

    def _publish(self) -> None:
        """Replace what requests read. Called with the lock held."""
        available = {m.name: dict(m.servables) for m in self._models.values() if m.servables}
        self._catalogue.replace(available, self._policies)
