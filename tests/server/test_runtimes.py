"""Promises of server.runtimes and of the setting that it reads: what each model may be computed in."""

from pathlib import Path

import pytest

from server import runtimes
from server.backends import catalogue
from server.backends.catalogue import Offer
from server.backends.fake import FakeBackend
from server.backends.interface import Precision
from server.config import PRECISIONS, ServerConfig, parse_precision
from server.engines.ensemble import Stage
from server.repository.package import open_package
from tests.packages import write_package
from tests.server.lifecycle.test_engine_room import right, until


def test_a_precision_can_be_allowed_for_some_models() -> None:
    """By name, each another; float32 alone for the others unless something is said of those."""
    assert parse_precision("fp32") == {"": "fp32"}
    assert parse_precision("m=bf16") == {"": "fp32", "m": "bf16"}
    assert parse_precision("fastest, m=fp32, n=tf32") == {"": "fastest", "m": "fp32", "n": "tf32"}
    assert set(PRECISIONS) == set(catalogue.PRECISIONS)


@pytest.mark.parametrize("text", ["", "int8", "m=int8", "bf16,fp16", "m=bf16,m=fp16", "=bf16", "m=", "bf16,"])
def test_what_is_no_precision_stops_the_start(text: str) -> None:
    """With the words that there are, whatever was meant."""
    with pytest.raises(ValueError, match="fp32, tf32, bf16, fp16, fastest"):
        ServerConfig(precision=text)


def test_what_is_allowed_for_one_model_is_offered_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend is made for the server, and joins that model alone."""
    fakes = [FakeBackend(right, "first"), FakeBackend(right, "bf16"), FakeBackend(right, "last")]
    fakes[1].precision = Precision.BF16
    words: list[str] = []

    def offered(_names: str, precision: str, **_others: object) -> Offer:
        words.extend(precision.split(","))
        return Offer(list(fakes))

    monkeypatch.setattr(runtimes, "offered", offered)
    config = ServerConfig(precision="m=bf16", port=0, cache_folder=tmp_path)
    room = runtimes.engine_room(config)
    assert set(words) == {"fp32", "bf16"}
    servables = []
    for name in ("m", "other"):
        write_package(tmp_path / name / "1")
        servables.append(room.load(open_package(name, 1, tmp_path / name / "1")).servable)
    room.start(lambda: servables, lambda: False)
    for servable in servables:
        room.join(servable)
        until(servable, "last", Stage.ELIGIBLE)
    assert [one.backend for one in servables[0].ensemble.candidates()] == ["first", "bf16", "last"]
    assert [one.backend for one in servables[1].ensemble.candidates()] == ["first", "last"]
    room.stop()
    for servable in servables:
        servable.close()
