"""The state of everything, told when somebody asks: models, versions, backends, latencies, decisions.

It reads what others keep and keeps nothing. Every list is bounded, however much there is; the form is overview_form's.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Protocol

from server.engines.engine import Engine
from server.engines.ensemble import Candidate, Ensemble
from server.engines.lane import Lane
from server.errors import ModelNotFound, StatusNotFound
from server.histograms import Snapshot
from server.lifecycle import overview_form as form
from server.lifecycle.servable import Servable
from server.lifecycle.states import VersionStatus

MOST_MODELS = 500
"""In one listing."""
_MODELS = 100
_FEW_VERSIONS, _VERSIONS = 3, 100
_SIGNATURES, _BUCKETS, _OUTPUTS, _DECISIONS = 32, 32, 256, 100
_TEXT = 1000  # characters of what a library or a package says

# A backend in such a state cannot be chosen now.
_NO_ALTERNATIVE = frozenset({"quarantined", "abstaining", "rejected", "away", "building", "proving"})
_OUT = frozenset({"quarantined", "abstaining"})
_NOTHING = Snapshot((), 0.0)


class Models(Protocol):
    """Where models are: the manager."""

    def names(self) -> Collection[str]:
        """The models that are configured, or found."""

    def statuses(self, name: str, version: int | None = None) -> Sequence[VersionStatus]:
        """The highest version first; raises StatusNotFound."""

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """A version, leased; raises ModelNotFound."""


class Overview:
    """Tells the state of one server. Any thread may call."""

    def __init__(
        self,
        models: Models,
        pinned: Callable[[str], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make one.

        Args:
            models: Where models are.
            pinned: The backends that an operator prefers for a model.
            clock: Seconds since 1970.
        """
        self._models = models
        self._pinned = pinned
        self._clock = clock
        self._started = clock()
        self._release = metadata.version("segue-serving")

    def listing(self, find: str = "", offset: int = 0, limit: int = _MODELS) -> form.Listing:
        """Models whose names contain `find`, in the order of their names: `limit` of them, MOST_MODELS at most."""
        names = self._models.names()
        found = sorted(name for name in names if find.lower() in name.lower())
        offset = max(0, offset)
        some = found[offset : offset + max(0, min(limit, MOST_MODELS))]
        return form.Listing(self._head(), len(names), len(found), offset, tuple(map(self._line, some)))

    def model(self, name: str, version: int | None = None) -> form.Model:
        """A model, with the details of a version: of the highest that is available if none is given.

        Raises:
            StatusNotFound: There is no such model, or the version is not available.
        """
        if name not in self._models.names():
            raise StatusNotFound(f"Could not find any versions of model {_short(name)}")
        known = form.Model(self._head(), *_fields(self._line(name, _VERSIONS)))
        try:
            servable = self._models.acquire(name, version)
        except ModelNotFound:
            if version is None:
                return known
            raise StatusNotFound(f"Version {version} of model {_short(name)} is not available") from None
        with servable.leased():
            return self._detailed(known, servable)

    def _detailed(self, known: form.Model, servable: Servable) -> form.Model:
        ensemble = servable.ensemble
        lanes = sorted(ensemble.lanes.items())
        tellers = [_Teller(name, lane, ensemble, self._clock()) for name, lane in lanes[:_SIGNATURES]]
        decisions = sorted((one for teller in tellers for one in teller.decisions()), key=lambda one: -one.at)
        return replace(
            known,
            version=servable.version,
            backends=_backends(ensemble),
            signatures=tuple(teller.signature() for teller in tellers),
            signatures_left_out=len(lanes) - len(tellers),
            decisions=tuple(decisions[:_DECISIONS]),
        )

    def _head(self) -> form.Head:
        return form.Head(form.SCHEMA, self._release, self._started, self._clock())

    def _line(self, name: str, most: int = _FEW_VERSIONS) -> form.ModelLine:
        try:
            statuses = self._models.statuses(name)
        except StatusNotFound:
            statuses = ()
        versions = tuple(
            form.Version(status.version, status.state.name, _short(status.error.message if status.error else ""))
            for status in statuses[:most]
        )
        return form.ModelLine(name, versions, len(statuses), tuple(self._pinned(name)))


def _fields(line: form.ModelLine) -> tuple[str, tuple[form.Version, ...], int, tuple[str, ...]]:
    return line.name, line.versions, line.versions_in_all, line.pinned


def _backends(ensemble: Ensemble) -> tuple[form.Backend, ...]:
    engines = {engine.backend: engine for engine in ensemble.engines()}
    return tuple(_backend(candidate, engines.get(candidate.backend)) for candidate in ensemble.candidates())


def _backend(candidate: Candidate, engine: Engine | None) -> form.Backend:
    proofs = tuple(
        form.Difference(p.signature, p.output, p.difference.max_absolute, p.difference.max_relative)
        for p in (engine.proofs if engine else ())
    )
    return form.Backend(
        candidate.backend,
        candidate.stage.value,
        _short(candidate.reason),
        engine.precision.value if engine else "",
        candidate.seconds,
        proofs[:_OUTPUTS],
        max((proof.max_absolute for proof in proofs), default=None),
    )


class _Teller:
    """Tells of one signature what was true at one moment."""

    def __init__(self, name: str, lane: Lane, ensemble: Ensemble, now: float) -> None:
        self._name = name
        self._now = now
        self._buckets = lane.buckets
        self._backends = [engine.backend for engine in ensemble.engines()]
        self._primary = ensemble.primary.backend
        self._failures = sorted(lane.failures.copy().items())
        self._durations = {key: durations.snapshot() for key, durations in lane.durations.copy().items()}
        self._explained = explained = lane.explain()
        standings = explained.snapshot.standings if explained else ()
        self._standings = {(standing.backend, standing.bucket): standing for standing in standings}

    def signature(self) -> form.Signature:
        """All of it."""
        known = {rows for _, rows in self._durations}
        known |= {s.bucket for s in self._standings.values() if s.samples or s.state in _OUT}
        buckets = [place for place, rows in enumerate(self._buckets) if rows in known]
        return form.Signature(
            self._name,
            tuple(self._bucket(place) for place in buckets[:_BUCKETS]),
            max(0, len(buckets) - _BUCKETS),
            tuple(form.Failure(backend, kind, count) for (backend, kind), count in self._failures),
        )

    def decisions(self) -> Iterator[form.Decision]:
        """Its switches."""
        for switch in self._explained.history if self._explained else ():
            reason = _short(switch.reason)
            yield form.Decision(
                self._moment(switch.time), self._name, switch.bucket, switch.before, switch.after, reason
            )

    def _bucket(self, place: int) -> form.Bucket:
        rows = self._buckets[place]
        runs = tuple(self._runs(backend, rows) for backend in self._backends)
        selected = self._primary if self._explained is None else self._explained.snapshot.selected.get(rows, "")
        next_best, gain = compared(selected, runs)
        least = self._buckets[place - 1] + 1 if place else 1
        most = None if place == len(self._buckets) - 1 and place else rows
        absent = tuple(
            form.Absent(standing.backend, standing.state, _short(standing.reason))
            for (backend, bucket), standing in self._standings.items()
            if bucket == rows and backend not in self._backends
        )
        return form.Bucket(rows, least, most, selected, next_best, gain, runs, absent)

    def _runs(self, backend: str, rows: int) -> form.Runs:
        counted = self._durations.get((backend, rows), _NOTHING)
        standing = self._standings.get((backend, rows))
        count = counted.count
        return form.Runs(
            backend,
            standing.state if standing else "" if self._explained else "serving",
            _short(standing.reason) if standing else "",
            count,
            counted.quantile(0.05),
            counted.quantile(0.5),
            counted.quantile(0.95),
            counted.sum / count if count else None,
            standing.estimate if standing else None,
            standing.samples if standing else 0,
            self._moment(standing.last_seen) if standing and standing.last_seen is not None else None,
        )

    def _moment(self, at: float) -> float:
        """Since 1970; the policy's clock has another beginning."""
        return self._now - max(0.0, self._explained.now - at) if self._explained else at


def compared(selected: str, runs: Sequence[form.Runs]) -> tuple[str, float | None]:
    """The quickest backend besides the selected that may serve, and the share of its time that is saved.

    By what is expected of each, where that is known of the selected one; else by the medians.
    """
    mine = next((one for one in runs if one.backend == selected), None)
    if mine is None:
        return "", None
    by_estimate = mine.recent is not None
    times = {one.backend: one.recent if by_estimate else one.p50 for one in runs if one.state not in _NO_ALTERNATIVE}
    others = {backend: seconds for backend, seconds in times.items() if seconds and backend != selected}
    own = mine.recent if by_estimate else mine.p50
    if own is None or not others:
        return "", None
    next_best = min(others, key=others.__getitem__)
    return next_best, 1 - own / others[next_best]


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
