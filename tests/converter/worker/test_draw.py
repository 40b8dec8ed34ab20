"""`draw`: the search for random inputs that a model accepts, on models that are plain functions."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest

from converter.worker.draw import Plan, draw, finite, search
from server.arrays import Array
from tests.converter.worker.describing import signature, spec

_TOKENS = signature(spec("ids", np.int32, (None, None)), spec("types", np.int64, (None, None)))


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_each_integer_input_gets_its_own_range() -> None:
    """Ids and types are found by trying: the widest range that is accepted, for each input beside the others."""

    def answer(inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        fits = inputs["ids"].max() < 1000 and inputs["types"].max() < 2 and inputs["ids"].shape[1] <= 20
        return {"y": np.zeros(1)} if fits else None

    plans = search(_TOKENS, answer, [], _rng())
    assert [plan.ranges for plan in plans] == [{"ids": (0, 1000), "types": (0, 2)}] * 2
    assert plans[0].length != plans[1].length
    drawn = draw(_TOKENS, plans[0], 5, _rng())
    assert drawn["ids"].shape == (5, plans[0].length)
    assert 900 < drawn["ids"].max() < 1000
    assert set(drawn["types"].ravel().tolist()) == {0, 1}


def test_zero_may_be_refused() -> None:
    """Inputs that must be positive are found as well."""
    plans = search(_TOKENS, lambda x: {} if x["ids"].min() > 0 and x["types"].min() > 0 else None, [], _rng())
    assert plans[0].ranges["ids"][0] == 1


def test_refusing_everything_gives_no_plan() -> None:
    """A model that accepts nothing is given up."""
    assert search(_TOKENS, lambda _: None, [], _rng()) == []


def test_floats_fall_back_to_positive_ones() -> None:
    """Where normal numbers give NaN, numbers from [0, 1) are drawn."""
    roots = signature(spec("x", np.float32, (None, 50)))
    with np.errstate(invalid="ignore"):
        (plan,) = search(roots, lambda x: {"y": np.sqrt(x["x"])}, [], _rng())
    assert plan.uniform
    assert draw(roots, plan, 2, _rng())["x"].min() >= 0


@pytest.mark.parametrize("rank", [0, 1, 3, 4])
def test_unknown_rank(rank: int) -> None:
    """An input of unknown rank is tried with several."""
    one = signature(spec("x", np.float32, None))
    plans = search(one, lambda x: {} if x["x"].ndim == rank else None, [], _rng())
    assert plans[0].rank == rank


def test_colour_channels() -> None:
    """A dynamic last dimension may have to be 3 while the others are long."""
    images = signature(spec("x", np.uint8, (None, None, None, None)))
    plans = search(images, lambda x: {} if x["x"].shape[-1] == 3 and x["x"].shape[1] >= 64 else None, [], _rng())
    assert plans[0].last == 3
    assert draw(images, plans[0], 1, _rng())["x"].max() > 200


def test_dtypes_and_determinism() -> None:
    """Every dtype is drawn as itself, strings from the words given, and the same seed draws the same."""
    dtypes = (np.float16, np.float64, ml_dtypes.bfloat16, np.bool_, np.int8, np.uint8, np.complex64, object)
    every = signature(*(spec(f"{number}", dtype, (None, 8)) for number, dtype in enumerate(dtypes)))
    ranges = {spec.alias: (0, 30_000) for spec in every.inputs}
    plan = Plan(ranges=ranges, words=(b"known", b""))
    first, again = (draw(every, plan, 3, _rng()) for _ in range(2))
    for one, dtype in zip(every.inputs, dtypes, strict=True):
        assert first[one.alias].dtype == np.dtype(dtype)
        assert first[one.alias].shape == (3, 8)
        assert first[one.alias].tolist() == again[one.alias].tolist()
    assert set(first["7"].ravel().tolist()) == {b"known", b""}
    assert 0 <= first["4"].min() < first["4"].max()


def test_finite() -> None:
    """NaN and infinity are seen in floats of every kind; other dtypes are finite."""
    assert finite({"a": np.array([1.0]), "b": np.array([b"nan"], object), "c": np.array([1], np.int8)})
    assert not finite({"a": np.array([np.inf], ml_dtypes.bfloat16)})
