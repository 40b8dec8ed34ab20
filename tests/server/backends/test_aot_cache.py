"""Tests of the folder of compiled models: what is taken from it, and what is not."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from server.backends.aot_cache import ArtefactCache, Recipe, graph_digest, processor
from server.errors import GraphNotLoadable

_RECIPE = Recipe("ab" * 32, "cpu", "fp32", "2.14.1", "me")
_PORTS: dict[str, list[str]] = {"inputs": [], "outputs": [], "rules": []}


def put(cache: ArtefactCache, recipe: Recipe = _RECIPE, content: bytes = b"code") -> Path:
    """Publish an entry; its folder."""
    with cache.building(threading.Event()) as work:
        (work / "built.so").write_bytes(content)
        return cache.publish(recipe, work, work / "built.so", _PORTS).library.parent


@pytest.fixture
def cache(tmp_path: Path) -> ArtefactCache:
    """An empty folder's cache."""
    return ArtefactCache(tmp_path / "cache", limit_bytes=1 << 20)


def test_what_was_published_is_found(cache: ArtefactCache) -> None:
    """By another process as well, and nothing temporary stays."""
    assert cache.find(_RECIPE) is None
    folder = put(cache)
    found = ArtefactCache(cache.root, limit_bytes=0).find(_RECIPE)
    assert found is not None
    assert (found.library.read_bytes(), found.ports) == (b"code", _PORTS)
    assert sorted(path.name for path in cache.root.iterdir()) == sorted(["building.lock", "toolchain", folder.name])


@pytest.mark.parametrize(
    "change",
    [{"graph": "cd" * 32}, {"device": "cuda"}, {"precision": "bf16"}, {"torch": "2.15.0"}, {"processor": "you"},
     {"revision": 0}],
)  # fmt: skip
def test_every_part_of_the_recipe_counts(cache: ArtefactCache, change: dict[str, object]) -> None:
    """Code for another graph, device, precision, library, processor or compiler of ours is not used."""
    folder = put(cache)
    other = replace(_RECIPE, **change)  # type: ignore[arg-type] # any field
    assert cache.find(other) is None
    folder.rename(cache.root / other.key)  # even under the right name
    assert cache.find(other) is None


@pytest.mark.parametrize("damage", ["library", "shorter", "description", "syntax", "missing"])
def test_a_damaged_entry_is_not_taken_and_can_be_replaced(cache: ArtefactCache, damage: str) -> None:
    """Whichever byte changed on the disk."""
    folder = put(cache)
    library, description = folder / "model.so", folder / "artefact.json"
    if damage == "library":
        library.write_bytes(b"c0de")
    elif damage == "shorter":
        library.write_bytes(b"cod")
    elif damage == "description":
        text = json.loads(description.read_text())
        text["content"]["ports"]["rules"] = ["d[0][0] >= 0"]
        description.write_text(json.dumps(text))
    elif damage == "syntax":
        description.write_text("{")
    else:
        description.unlink()
    assert ArtefactCache(cache.root, limit_bytes=1 << 20).find(_RECIPE) is None
    put(cache, content=b"again")
    found = ArtefactCache(cache.root, limit_bytes=1 << 20).find(_RECIPE)
    assert found is not None
    assert found.library.read_bytes() == b"again"


def test_a_folder_that_others_may_write_to_is_refused(cache: ArtefactCache) -> None:
    """What lies there is run."""
    folder = put(cache)
    folder.chmod(0o770)
    with pytest.raises(GraphNotLoadable, match="others may write to it"):
        cache.find(_RECIPE)
    folder.chmod(0o700)
    cache.root.chmod(0o707)
    with pytest.raises(GraphNotLoadable, match="others may write to it"), cache.building(threading.Event()):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With its name and the system's reason."""
    (tmp_path / "file").write_text("")
    cache = ArtefactCache(tmp_path / "file" / "cache", limit_bytes=1)
    with (
        pytest.raises(GraphNotLoadable, match=r"cannot be kept in .*file/cache: Not a directory"),
        cache.building(threading.Event()),
    ):
        pass


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """When all together are over the limit; what was just built stays, whatever its size."""
    cache = ArtefactCache(tmp_path / "cache", limit_bytes=9000)
    recipes = [replace(_RECIPE, graph=str(number)) for number in range(3)]
    put(cache, recipes[0], bytes(3000))
    put(cache, recipes[1], bytes(3000))
    assert cache.find(recipes[0]) is not None  # used last now
    put(cache, recipes[2], bytes(3000))
    assert [cache.find(recipe) is not None for recipe in recipes] == [True, False, True]
    put(cache, _RECIPE, bytes(90_000))
    assert [cache.find(recipe) is not None for recipe in [*recipes, _RECIPE]] == [False, False, False, True]


def test_one_builds_at_a_time(cache: ArtefactCache) -> None:
    """The others wait, or go away when nobody wants them any more."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with cache.building(threading.Event()) as work:
            (work / "leftover").write_text("")
            other = pool.submit(cache.building(stop).__enter__)
            assert not other.done()
            stop.set()
            with pytest.raises(GraphNotLoadable, match="nobody waits"):
                other.result(10)
        with cache.building(threading.Event()) as work:
            assert list(work.iterdir()) == []


def test_what_a_dead_builder_left_is_removed(cache: ArtefactCache) -> None:
    """Its lock died with it, its files did not."""
    (cache.root / "work" / "out").mkdir(parents=True)
    cache.root.chmod(0o700)
    with cache.building(threading.Event()) as work:
        assert list(work.iterdir()) == []


def test_weights_beside_the_graph_count(tmp_path: Path) -> None:
    """The same ONNX file with other external weights is another graph."""
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"graph")
    alone = graph_digest(graph, "")
    assert graph_digest(graph, alone) == alone
    (tmp_path / "weights.bin").write_bytes(b"one")
    first = graph_digest(graph, alone)
    (tmp_path / "weights.bin").write_bytes(b"three")
    assert len({alone, first, graph_digest(graph, alone)}) == 3


def test_the_processor_has_a_name() -> None:
    """The same each time."""
    assert processor() == processor()
    assert len(processor()) == 16
