"""Tests of `server.calls`."""

import pytest

from server.calls import Call, begin, current, enter, leave


class Source:
    """A request's origin."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """See calls.Source."""
        return self._metadata

    def peer(self) -> str:
        """See calls.Source."""
        return "ipv4:127.0.0.1:5000"


def request_id(*metadata: tuple[str, str | bytes]) -> str:
    """The id of a request with such metadata."""
    return Call("s/m", Source(*metadata)).request_id


@pytest.mark.parametrize("given", ["a", "2f1c-77:x/y+z=@_.", "x" * 128])
def test_a_sane_request_id_is_kept(given: str) -> None:
    """Whoever traces a request through several services finds it here under its own name."""
    assert request_id(("other", "x"), ("x-request-id", given)) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\nb", 'a"b', "ä", "a\x1b[31m", b"bytes"])
def test_any_other_is_replaced(given: str | bytes) -> None:
    """What could forge a line, or fill the log, is not taken over."""
    made = request_id(("x-request-id", given))
    assert made != given
    assert len(made) == 16
    assert int(made, 16) >= 0


def test_an_id_that_is_made_stays() -> None:
    """One request has one id, which no other has."""
    call = Call("s/m", Source())
    assert call.request_id == call.request_id
    assert call.request_id != Call("s/m", Source()).request_id


def test_the_current_call_is_the_last_that_was_begun_or_entered() -> None:
    """What logs of a request finds it without being handed it, until the thread has left it."""
    call = begin("s/m", Source())
    assert current() is call
    other = begin("s/m", Source())
    enter(call)
    assert current() is call
    assert other is not call
    leave()
    assert current() is None
