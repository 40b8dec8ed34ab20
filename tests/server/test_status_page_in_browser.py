"""What people see of the status page, in a real browser: see tests/browser.py for where it comes from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, chromium, executable
from tests.pages import BAD, OTHER, OURS, Site, site
from tests.server.engines.explaining import Stands, Switched

pytestmark = pytest.mark.skipif(executable() is None, reason="no browser: make browser, or set CHROMIUM")

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp;'`${1}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all."""
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that has answered on two engines in two buckets."""
    with pytest.MonkeyPatch.context() as patch, site(tmp_path_factory.mktemp("page") / "models", patch) as made:
        made.serve_with(OTHER, 1, 4)
        made.ask(1, 20)
        made.ask(3, 20)
        made.serve_with(OURS, 1)
        made.ask(1, 30)
        made.serve_with(OTHER, 4)
        for bucket in (1, 4):
            made.say(bucket, OURS, 0.8e-4 * bucket)
            made.say(bucket, OTHER, 1e-4 + 0.4e-4 * bucket)
        yield made


@pytest.fixture
def page(browser: Browser, served: Site) -> Browser:
    """The browser, with nothing open yet and nothing told."""
    served.policy.history.clear()
    browser.events.clear()
    return browser


def text(browser: Browser) -> str:
    """What is to be read."""
    words: str = browser.run("document.body.innerText")
    return words


def test_it_shows_what_serves_and_why(page: Browser, served: Site) -> None:
    """Models, states, the choice with its gain, candidates with what keeps them out: from this server alone."""
    page.open(served.url)
    page.wait("document.querySelector('.row')")
    words = text(page)
    for expected in (
        "affine",
        "broken",
        "version 1 ✕ failed",
        f"✓ {OURS} serves",
        "1 row",
        f"43 % less time than {OTHER}",
    ):
        assert expected in words
    assert "output 'z'" in words, "why a candidate is rejected"
    assert "✕ rejected" in words
    assert page.complaints() == []
    assert {url.rpartition("/")[0] + "/" for url in page.requested() if url.startswith("http")} == {served.url}
    assert page.run("document.cookie") == ""


def test_a_model_that_fails_says_why(page: Browser, served: Site) -> None:
    """The error of a version that did not load is on the page of its model."""
    page.open(f"{served.url}#model=broken")
    page.wait("document.querySelector('main h2')?.textContent === 'broken'")
    assert "golden.npz" in text(page)
    assert "No version is available." in text(page)


def test_a_switch_appears_and_is_announced(page: Browser, served: Site) -> None:
    """Whoever watches sees the new choice with its reason without a reload, and hears it."""
    page.open(served.url)
    page.wait("document.querySelector('.row')")
    page.run("document.querySelector('details').open = true")
    page.run("document.querySelector('summary').focus()")
    assert page.run("document.getElementById('said').textContent") == ""
    served.serve_with(OTHER, 1)
    served.policy.history.append(Switched(1.0, 1, OURS, OTHER, "it takes 12 % less time: 0.88 ms after 1.00 ms"))
    page.wait(f"document.querySelector('.top').textContent.includes('✓ {OTHER} serves')")
    page.wait("document.querySelector('.past li')")
    assert f"{OURS} → {OTHER}" in text(page)
    assert "0.88 ms after 1.00 ms" in page.run("document.getElementById('said').textContent")
    assert page.run("document.querySelector('details').open"), "what was opened stays open"
    assert page.run("document.activeElement.tagName") == "SUMMARY", "the focus stays where it was"
    served.serve_with(OURS, 1)


def test_words_from_outside_stay_words(page: Browser, served: Site) -> None:
    """Markup in a reason, or in an address, is shown and does nothing."""
    reason = f"{HOSTILE} in a reason"
    served.policy.say(Stands(1, OTHER, "quarantined", reason, 1e-4, 3, 1.0))
    served.policy.history.append(Switched(1.0, 1, HOSTILE, OURS, HOSTILE))
    page.open(served.url)
    page.wait("document.querySelector('.past li')")
    assert text(page).count(HOSTILE) >= 3
    assert f"quarantined: {reason}" in text(page)
    served.say(1, OTHER, 1.4e-4)
    page.open(f"{served.url}#model=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    page.wait("document.querySelector('main').textContent.includes('<img src=x onerror=alert(1)>')")
    assert page.run("document.querySelectorAll('img, main script').length") == 0
    assert page.run("document.title") != "owned"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone(page: Browser, served: Site, *, dark: bool) -> None:
    """At 320 pixels nothing has to be pushed sideways, and the ground follows the reader's choice of light or dark."""
    page.open(f"{served.url}#model=affine", width=320, height=640, dark=dark)
    page.wait("document.querySelector('.row')")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.run("document.documentElement.scrollWidth") == 320
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(17, 20, 23)" if dark else "rgb(247, 248, 249)")


_CONTRAST = """(() => {
  const light = (color) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.match(/[\\d.]+/g).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    if (!node.checkVisibility() || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(node.tagName)) continue;
    const style = getComputedStyle(node), ink = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(node))].sort((x, y) => y - x);
    const words = `${node.tagName} ${node.textContent.slice(0, 40)} ${ink} ${ground(node)}`;
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(words);
  }
  return poor;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_can_be_told_from_its_ground(page: Browser, served: Site, *, dark: bool) -> None:
    """The contrast of all text is 4.5 or more, in light and in dark."""
    page.open(served.url, dark=dark)
    page.wait("document.querySelector('.row')")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.run(_CONTRAST) == []


def test_it_can_be_heard(page: Browser, served: Site) -> None:
    """Charts have their figures as words, tables and regions their names, cells their headers."""
    page.open(served.url)
    page.wait("document.querySelector('.row')")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tree = page.tree()
    charts = [name for role, name in tree if role in {"image", "img"}]
    assert len(charts) == 2
    assert charts[0].startswith("Time of a run on 1 row.")
    assert f"{OURS} (serves): median " in charts[0]
    tables = [name for role, name in tree if role == "table"]
    assert len(tables) == 4
    assert all(tables)
    headings = [name for role, name in tree if role == "heading"]
    assert headings[:3] == ["Segue", "2 models", "affine"]
    assert {role for role, _ in tree} >= {"banner", "navigation", "main", "status", "columnheader", "rowheader"}
    assert ("link", "Skip to the model") in tree
    assert BAD in {name for role, name in tree if role == "rowheader"}


def test_a_server_that_is_gone_is_said_to_be(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old figures are not taken for live ones."""
    with site(tmp_path / "models", monkeypatch) as made:
        browser.open(made.url)
        browser.wait("document.getElementById('link').textContent.startsWith('Live')")
    browser.wait("document.getElementById('link').textContent.startsWith('No answer from the server')")
