"""Promises of server.lifecycle.overview."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from server.errors import DamagedPackage, ModelNotFound, StatusNotFound
from server.lifecycle.overview import MOST_MODELS, Overview, compared
from server.lifecycle.overview_form import Runs
from server.lifecycle.servable import Servable
from server.lifecycle.states import State, VersionStatus
from server.status_page import routes
from tests.pages import BAD, OTHER, OURS, Site, site
from tests.server.engines.explaining import Stands, Switched


class Many:
    """Models of some versions each, none of which is loaded."""

    def __init__(self, count: int, versions: int = 1, error: str = "") -> None:
        self._count = count
        error_or_none = DamagedPackage(error) if error else None
        self._statuses = [VersionStatus(n, State.END, error_or_none) for n in range(versions, 0, -1)]

    def names(self) -> set[str]:
        """Of all."""
        return {f"model-{number:05}" for number in range(self._count)}

    def statuses(self, name: str, version: int | None = None) -> Sequence[VersionStatus]:
        """The same for all."""
        assert version is None
        if name == "model-00000":
            raise StatusNotFound("it is configured, but was never found")
        return self._statuses

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """None is loaded."""
        raise ModelNotFound(f"{name} {version} {label}")


def overview_of(site: Site) -> Overview:
    """Of the site's server."""
    return site.server._overview


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of two engines that has answered nothing."""
    with site(tmp_path / "models", monkeypatch) as made:
        yield made


def test_everything_of_a_version_is_told(served: Site) -> None:
    """States, candidates with their proofs and reasons, figures, who is chosen and by how much."""
    served.serve_with(OTHER, 1)
    served.ask(1, 5)
    served.serve_with(OURS, 1)
    served.ask(1, 7)
    served.say(1, OURS, 1e-3)
    served.say(1, OTHER, 2e-3)
    told = overview_of(served).model("affine")
    assert [(one.version, one.state, one.error) for one in told.versions] == [(1, "AVAILABLE", "")]
    assert told.version == 1
    stages = {one.name: (one.stage, one.precision) for one in told.backends}
    assert stages == {OURS: ("eligible", "fp32"), OTHER: ("eligible", "fp32"), BAD: ("rejected", "")}
    assert [one.output for one in told.backends[0].proofs] == ["y", "z"]
    assert told.backends[0].worst is not None
    assert "output 'z'" in told.backends[2].reason
    (signature,) = told.signatures
    (bucket,) = signature.buckets
    assert (bucket.rows, bucket.least, bucket.most) == (1, 1, 1)
    assert (bucket.selected, bucket.next_best, bucket.gain) == (OURS, OTHER, 0.5)
    assert {one.backend: one.count for one in bucket.backends} == {OURS: 7, OTHER: 5}
    for one in bucket.backends:
        assert one.p05 is not None
        assert one.p50 is not None
        assert one.p95 is not None
        assert 0 < one.p05 <= one.p50 <= one.p95
        assert one.mean


def test_the_last_bucket_has_no_end(served: Site) -> None:
    """Requests larger than a batch are told of as such."""
    served.ask(3)
    served.ask(50)
    (signature,) = overview_of(served).model("affine").signatures
    ranges = [(one.least, one.most) for one in signature.buckets]
    assert ranges[0][0] <= 3
    assert ranges[0][1] == 4
    assert ranges[-1] == (5, None)


def test_decisions_come_newest_first_at_the_time_of_day(served: Site) -> None:
    """The policy's clock has no date; people's has."""
    now = time.monotonic()
    reasons = ["first", "x" * 5000]
    served.policy.history += [Switched(now - 60 + n, 1, OURS, OTHER, reason) for n, reason in enumerate(reasons)]
    decisions = overview_of(served).model("affine").decisions
    assert [one.reason[:5] for one in decisions] == ["xxxxx", "first"]
    assert len(decisions[0].reason) == 1000
    assert decisions[1].at == pytest.approx(time.time() - 60, abs=20)


@pytest.mark.parametrize("state", ["quarantined", "abstaining"])
def test_a_quarantine_is_told_before_any_run(served: Site, state: str) -> None:
    """A backend that failed is told of with the reason, even in a bucket where nothing else is known."""
    served.policy.say(Stands(2, OTHER, state, "2 of 3 runs failed"))
    served.policy.selected[2] = OURS
    (signature,) = overview_of(served).model("affine").signatures
    (bucket,) = signature.buckets
    states = {one.backend: (one.state, one.reason) for one in bucket.backends}
    assert states[OTHER] == (state, "2 of 3 runs failed")
    assert (bucket.selected, bucket.next_best, bucket.gain) == (OURS, "", None)


def test_who_takes_no_part_is_told_in_every_bucket(served: Site) -> None:
    """With the state and the reason, apart from those that do."""
    served.policy.say(Stands(1, BAD, "rejected", "output 'z' differs"))
    served.ask(1)
    (signature,) = overview_of(served).model("affine").signatures
    (bucket,) = signature.buckets
    assert [asdict(one) for one in bucket.absent] == [
        {"backend": BAD, "state": "rejected", "reason": "output 'z' differs"}
    ]
    assert {one.backend for one in bucket.backends} == {OURS, OTHER}


def test_pins_are_told(served: Site) -> None:
    """What an operator prefers is seen in the list and in the model."""
    served.server._engines.pin("affine", [OTHER, OURS])
    assert overview_of(served).model("affine").pinned == (OTHER, OURS)
    assert [one.pinned for one in overview_of(served).listing().models] == [(OTHER, OURS), ()]


def test_a_look_keeps_no_version_alive(served: Site) -> None:
    """The lease that a look takes is given back, also when the look fails."""
    overview_of(served).model("affine")
    with pytest.raises(StatusNotFound):
        overview_of(served).model("affine", 7)
    with pytest.raises(StatusNotFound):
        overview_of(served).model("nope")
    with served.server.models.acquire("affine").leased() as servable:
        pass
    assert servable.drained(0)


def runs(backend: str, p50: float | None, recent: float | None = None, state: str = "eligible") -> Runs:
    """Of a backend, what a comparison reads."""
    return Runs(backend, state, "", 1, p50, p50, p50, p50, recent, 1, None)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], ("", None)),
        ([runs("b", 4.0)], ("b", 0.5)),
        ([runs("b", 4.0), runs("c", 2.5)], ("c", pytest.approx(0.2))),
        ([runs("b", 1.0)], ("b", -1.0)),
        ([runs("b", 1.0, state="quarantined"), runs("c", None)], ("", None)),
        ([runs("b", 1.0, state="abstaining"), runs("c", 4.0)], ("c", 0.5)),
    ],
)
def test_the_gain_is_over_the_next_best(others: list[Runs], expected: object) -> None:
    """Of those that may be chosen and were measured; less than nothing if one of them looks quicker."""
    assert compared("a", [runs("a", 2.0), *others]) == expected


def test_like_is_compared_with_like() -> None:
    """An expectation is never compared with another's median since loading."""
    assert compared("a", [runs("a", 9.0, recent=1.0), runs("b", 0.1, recent=2.0)]) == ("b", 0.5)
    assert compared("a", [runs("a", 9.0, recent=1.0), runs("b", 0.1)]) == ("", None)
    assert compared("gone", [runs("a", 1.0)]) == ("", None)


def test_a_listing_is_bounded() -> None:
    """However many models, versions and errors there are, what is told of them at once stays small."""
    overview = Overview(Many(20_000, versions=50, error="x" * 100_000), lambda _: ())
    listing = overview.listing(limit=10**9)
    assert (listing.in_all, listing.found, len(listing.models)) == (20_000, 20_000, MOST_MODELS)
    assert listing.models[0].versions == ()
    assert (len(listing.models[1].versions), listing.models[1].versions_in_all) == (3, 50)
    assert len(json.dumps(asdict(listing))) < 4000 * MOST_MODELS
    assert [one.name for one in overview.listing("L-0001", offset=2, limit=2).models] == ["model-00012", "model-00013"]
    assert overview.listing("nope").models == ()
    told = overview.model("model-00007")
    assert (told.version, told.signatures, len(told.versions)) == (None, (), 50)


def test_a_thousand_models_are_told_in_a_moment() -> None:
    """Whoever watches a large server costs it little: a look every two seconds takes 2 % of a core at the most."""
    data = routes(Overview(Many(1000), lambda _: ()))["/status.json"]
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        assert len(data("").body) > 1000
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.04
