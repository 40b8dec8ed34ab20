"""Layouts: a request like one before is not parsed again, and never taken for one that it is not."""

import random
import tracemalloc

import numpy as np
import pytest

from server.wire import requests
from server.wire.layouts import MAX_LAYOUTS, Layouts, layout_of
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request, encode_predict_response
from tests.fuzz.oracle import check_request


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> "Layouts[requests.PredictRequest]":
    """No layout is known at the start of a test."""
    layouts: Layouts[requests.PredictRequest] = Layouts()
    monkeypatch.setattr(requests, "_LAYOUTS", layouts)
    return layouts


def _request(values: list[float], name: str = "m", alias: str = "x") -> bytes:
    return encode_predict_request({alias: np.array([values], np.float32), "b": np.array([True])}, name=name)


def test_a_request_like_the_last_has_its_own_numbers() -> None:
    """The second of two requests that differ in numbers alone is read by the first one's layout, and rightly."""
    first, second = _request([1, 2]), _request([3, 4])
    assert parse_predict_request(first).inputs["x"].to_numpy().tolist() == [[1, 2]]
    assert requests._LAYOUTS.find(second) is not None
    parsed = parse_predict_request(second)
    assert parsed.inputs["x"].to_numpy().tolist() == [[3, 4]]
    assert list(parsed.inputs) == ["x", "b"]
    assert parsed.model_spec == requests.ModelSpec("m")


@pytest.mark.parametrize("other", [_request([1, 2], name="n"), _request([1, 2], alias="y")])
def test_a_request_of_the_same_length_is_another(other: bytes) -> None:
    """Another model's name, or another input's, in as many bytes, is seen."""
    known = _request([1, 2])
    parse_predict_request(known)
    assert len(other) == len(known)
    assert requests._LAYOUTS.find(other) is None
    check_request(other, parse_predict_request)
    check_request(known, parse_predict_request)


def test_any_changed_bit_is_seen() -> None:
    """With a request's layout known, each of the requests that differ from it in one bit is what it is to protobuf."""
    known = _request([1, 2])
    for index in range(8 * len(known)):
        parse_predict_request(known)
        changed = bytearray(known)
        changed[index // 8] ^= 1 << index % 8
        check_request(bytes(changed), parse_predict_request)


def test_what_has_no_layout() -> None:
    """Strings, numbers coded in more than a byte, and requests without inputs are parsed each time."""
    for inputs in ({"s": np.array([b"a"], object)}, {"i": np.array([300])}, {}):
        data = encode_predict_request(inputs, name="m")
        assert layout_of(data, parse_predict_request(data).inputs, None) is None


def test_layouts_have_a_bound(empty: "Layouts[requests.PredictRequest]") -> None:
    """However many kinds of request come, a fixed number is kept, in little memory; what is dropped is parsed again."""
    rng = random.Random(1)  # noqa: S311 - chosen, not secret
    tracemalloc.start()
    for number in range(2_000):
        parse_predict_request(_request([float(number)] * rng.randrange(1, 90), name="n" * rng.randrange(3_000)))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(empty) <= MAX_LAYOUTS
    assert held < 4 * 2**20
    assert parse_predict_request(_request([5])).inputs["x"].to_numpy().tolist() == [[5]]


@pytest.mark.parametrize("as_content", [False, True])
def test_an_image_is_copied_once(as_content: bool) -> None:  # noqa: FBT001 - parametrized
    """From a request's bytes to an array nothing is allocated, and from an array to a reply's bytes the reply alone."""
    image = np.ones((1, 224, 224, 3), np.float32)
    data = encode_predict_request({"image": image}, name="m")
    for _ in range(2):  # without a layout, and with one
        tracemalloc.start()
        array = parse_predict_request(data).inputs["image"].to_numpy()
        _, reading = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        encode_predict_response([("y", array)], name="m", version=1, signature_name="s", as_content=as_content)
        _, writing = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert reading < 100_000
        assert writing < image.nbytes + 100_000
