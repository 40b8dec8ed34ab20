"""What Prometheus is told of engines: it asks the ensembles, so that a request pays for no metric of theirs."""

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.engines.choices import PURPOSES, SERVE, Counts
from server.engines.ensemble import Candidate, Ensemble, Stage
from server.engines.explained import Explanation
from server.engines.lane import Lane
from server.exposition import add_snapshot
from server.selection.states import State

QUARANTINED: Final = State.QUARANTINED.value
ABSTAINING: Final = State.ABSTAINING.value
CALIBRATING: Final = State.CALIBRATING.value
STATES: Final = (*(stage.value for stage in Stage), CALIBRATING, QUARANTINED, ABSTAINING)
"""Of a candidate: how far it is with a version; and of one that is proved, that it is hardly known in any bucket yet,
or that in one bucket at least it is left out since it fails, or leaves its batches to others."""

_VERSION = ("model", "version")
_BUCKET = (*_VERSION, "signature", "backend", "bucket")


class EngineCollector(Collector):
    """The engines of all loaded versions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ensembles: dict[tuple[str, int], Ensemble] = {}

    def add(self, model: str, version: int, ensemble: Ensemble) -> None:
        """Tell of a version's engines from now on."""
        with self._lock:
            self._ensembles[model, version] = ensemble

    def remove(self, model: str, version: int) -> None:
        """Forget a version."""
        with self._lock:
            self._ensembles.pop((model, version), None)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        with self._lock:
            ensembles = dict(self._ensembles)
        families = _Families()
        for (model, version), ensemble in ensembles.items():
            families.add((model, str(version)), ensemble)
        yield from families.all()


class _Families:
    """The families, which are filled version by version."""

    def __init__(self) -> None:
        self._states = GaugeMetricFamily(
            "segue_candidate_state", "How far a backend is with a version: 1 for its state.", labels=_of("state")
        )
        self._loads = GaugeMetricFamily(
            "segue_model_load_seconds",
            "What preparing, loading and proving a version took.",
            labels=_of(),
        )
        self._prepares = GaugeMetricFamily(
            "segue_model_prepare_seconds",
            "The part of it in which a backend made what it loads, compiling for instance; 0 if it was there.",
            labels=_of(),
        )
        self._provings = GaugeMetricFamily(
            "segue_model_prove_seconds", "The part of it in which golden inputs were answered.", labels=_of()
        )
        self._proofs = GaugeMetricFamily(
            "segue_proof_max_absolute_difference",
            "Largest difference between the backend's and TensorFlow's golden answers, measured at loading.",
            labels=(*_VERSION, "signature", "output", "backend"),
        )
        self._runs = HistogramMetricFamily("segue_batch_run_seconds", "Runs of batches.", labels=_BUCKET)
        self._selected = GaugeMetricFamily(
            "segue_backend_selected", "1 for the backend that answers, 0 for the others.", labels=_BUCKET
        )
        self._quarantined = GaugeMetricFamily(
            "segue_backend_quarantined", "1 for a backend that is left out since it fails.", labels=_BUCKET
        )
        self._estimates = GaugeMetricFamily(
            "segue_backend_estimate_seconds", "What a run takes by the policy's estimate.", labels=_BUCKET
        )
        self._samples = GaugeMetricFamily(
            "segue_backend_estimate_runs", "Runs that the estimate rests on.", labels=_BUCKET
        )
        self._switches = CounterMetricFamily(
            "segue_backend_switches",
            "Changes of the backend that answers.",
            labels=(*_VERSION, "signature", "bucket", "from", "to", "reason"),
        )
        self._failures = CounterMetricFamily(
            "segue_backend_failures",
            "Runs that failed, or were left to others on purpose, where another backend was asked next.",
            labels=(*_VERSION, "signature", "backend", "kind"),
        )
        self._busy = CounterMetricFamily(
            "segue_backend_busy_seconds",
            "Time of runs, by what they were for.",
            labels=(*_VERSION, "signature", "backend", "purpose"),
        )

    def all(self) -> Iterator[Metric]:
        """Each."""
        yield from (self._states, self._loads, self._prepares, self._provings, self._proofs, self._runs)
        yield from (self._selected, self._quarantined, self._estimates, self._samples, self._switches)
        yield from (self._failures, self._busy)

    def add(self, version: tuple[str, str], ensemble: Ensemble) -> None:
        """Tell of one version."""
        backends = []
        for engine in ensemble.engines():
            backends.append(engine.backend)
            self._loads.add_metric((*version, engine.backend), engine.seconds)
            self._prepares.add_metric((*version, engine.backend), engine.prepared)
            self._provings.add_metric((*version, engine.backend), engine.proved)
            for proof in engine.proofs:
                labels = (*version, proof.signature, proof.output, engine.backend)
                self._proofs.add_metric(labels, proof.difference.max_absolute)
        standings: dict[str, set[str]] = defaultdict(set)
        for signature, lane in ensemble.lanes.items():
            self._add_lane((*version, signature), lane, backends, standings)
        for candidate in ensemble.candidates():
            now = _state(candidate, standings[candidate.backend])
            for state in STATES:
                self._states.add_metric((*version, candidate.backend, state), int(state == now))

    def _add_lane(
        self, labels: tuple[str, ...], lane: Lane, backends: Sequence[str], standings: Mapping[str, set[str]]
    ) -> None:
        counts, explained = lane.counts(), lane.explain()
        for (backend, bucket), run in counts.runs.items():
            add_snapshot(self._runs, (*labels, backend, str(bucket)), run, run.by_run_seconds())
        for bucket, chosen in _selected(lane, counts, explained, backends[0]).items():
            for backend in backends:
                self._selected.add_metric((*labels, backend, str(bucket)), int(backend == chosen))
        for (bucket, before, after, kind), count in counts.switches.items():
            self._switches.add_metric((*labels, str(bucket), before, after, kind), count)
        for (backend, failure), count in counts.failures.items():
            self._failures.add_metric((*labels, backend, failure.replace(" ", "_")), count)
        for backend in backends:
            for purpose in PURPOSES:
                self._busy.add_metric((*labels, backend, purpose), _busy(lane, counts, backend, purpose))
        for standing in explained.snapshot.standings if explained else ():
            if standing.backend not in backends:
                continue
            standings[standing.backend].add(standing.state)
            where = (*labels, standing.backend, str(standing.bucket))
            self._quarantined.add_metric(where, int(standing.state == QUARANTINED))
            self._samples.add_metric(where, standing.samples)
            if standing.estimate is not None:
                self._estimates.add_metric(where, standing.estimate)


def _of(*more: str) -> tuple[str, ...]:
    return (*_VERSION, "backend", *more)


def _state(candidate: Candidate, in_buckets: Collection[str]) -> str:
    """One of STATES; what is wrong in one bucket goes before what is right in others."""
    if candidate.stage is not Stage.ELIGIBLE:
        return candidate.stage.value
    for trouble in (QUARANTINED, ABSTAINING):
        if trouble in in_buckets:
            return trouble
    is_known = State.ELIGIBLE.value in in_buckets or CALIBRATING not in in_buckets
    return Stage.ELIGIBLE.value if is_known else CALIBRATING


def _selected(lane: Lane, counts: Counts, explained: Explanation | None, primary: str) -> Mapping[int, str]:
    """Who answers, by bucket: what the policy says goes before what came last."""
    if lane.policy is None:
        return {bucket: primary for _, bucket in counts.runs}
    return {**counts.selected, **(explained.snapshot.selected if explained else {})}


def _busy(lane: Lane, counts: Counts, backend: str, purpose: str) -> float:
    """Seconds of a backend's runs; without a policy all of them are for answers."""
    if lane.policy is None and purpose == SERVE:
        return sum(run.sum for run in counts.runs.values())
    return counts.seconds.get((backend, purpose), 0.0)
