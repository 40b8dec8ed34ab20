"""Tests of `server.lifecycle.news`."""

import threading

from server.lifecycle.news import News
from tests.packages import joined


def test_news_are_told_in_their_order_by_whoever_comes() -> None:
    """What happens while something is told, in another thread or in the one that tells, is told after it."""
    news = News()
    told: list[str] = []
    telling, go_on = threading.Event(), threading.Event()

    def first() -> None:
        telling.set()
        assert go_on.wait(20)
        told.append("first")
        news.add(lambda: told.append("third"))
        news.tell()

    def another() -> None:
        news.add(lambda: told.append("second"))
        go_on.set()
        news.tell()
        assert "second" in told

    news.add(first)
    with joined(threading.Thread(target=news.tell, name="first")):
        assert telling.wait(20)
        another()
    assert told == ["first", "second", "third"]
