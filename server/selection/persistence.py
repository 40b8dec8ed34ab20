"""What the policy knows as plain data: for people (`snapshot`), and for itself after a restart (`export`, `restore`).

An export has ages instead of times, for a clock starts anew. What is read back is checked whole before any of it is
taken up. Quarantines are not kept: after a restart each backend has been proved again.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from server.selection.budget import Budget
from server.selection.character import LONGEST_SILENCE, LONGEST_WARMING, Character
from server.selection.history import KEPT, KINDS, OTHER, History, Switch
from server.selection.pairs import Bucket, Pair, Table
from server.selection.states import State

VERSION = 2
OLD = 0.3  # a restart may have changed any level by so much (a logarithm)
CALIBRATED = 3  # runs from which a pair is no longer being calibrated
MOST_BACKENDS = 16  # that an export may name
_NUMBERS = ("spread", "mean", "waste", "tail", "cold", "silence")
_COUNTS = ("runs", "cold_runs")
_SECONDS = ("busy", "explored", "missing")


def snapshot(
    table: Table, budget: Budget, history: Iterable[Switch], pinned: tuple[str, ...], now: float
) -> dict[str, Any]:
    """The state for people: seconds, counts, words.

    Returns:
        `pairs` (backend, bucket, state, reason, seconds or None, spread as a share of the seconds, samples, last_seen
        as seconds ago or None, old), `selected` (bucket to backend or None), `switches` (time, bucket, from, to,
        reason), `pinned`, `objective`, `exploration_share`.
    """
    names = sorted({*table.characters, *table.stages})
    return {
        "objective": table.objective.value,
        "pinned": list(pinned),
        "exploration_share": budget.share,
        "selected": {b.size: b.selected.backend if b.selected else None for b in table.buckets.values()},
        "pairs": [_describe(table, bucket, name, now) for bucket in table.buckets.values() for name in names],
        "switches": [_plain(switch) for switch in history],
    }


def state(table: Table, bucket: Bucket, name: str) -> tuple[State, str]:
    """A backend's state in a bucket, and why."""
    if name in table.stages:
        return table.stages[name]
    pair = bucket.pairs[name]
    if name not in table.present:
        return State.AWAY, "known from before a restart, not loaded yet"
    if pair.health.reason is not None:
        return pair.health.state, pair.health.reason
    return _standing(table, bucket, pair)


def _standing(table: Table, bucket: Bucket, pair: Pair) -> tuple[State, str]:
    """Of a backend that may be chosen."""
    if pair.estimate.runs < CALIBRATED:
        return State.CALIBRATING, f"{pair.estimate.runs} of {CALIBRATED} runs"
    if pair is bucket.selected:
        return State.ELIGIBLE, "selected"
    if bucket.selected is None or not bucket.selected.estimate.runs:
        return State.ELIGIBLE, "ready"
    gain = math.expm1(table.cost(pair) - table.cost(bucket.selected))
    return State.ELIGIBLE, f"{gain:+.1%} against {bucket.selected.backend}"


def export(table: Table, budget: Budget, history: Iterable[Switch], now: float) -> dict[str, Any]:
    """What was learnt, and what was spent: a restart is no new loan."""
    return {
        "version": VERSION,
        "spent": {**{key: getattr(budget, key) for key in _SECONDS}, "runs": budget.runs},
        "switches_left": {"left": budget.switches.left, "buckets": budget.switches.buckets},
        "backends": {
            name: {key: getattr(character, key) for key in (*_NUMBERS, *_COUNTS, "warmed")}
            for name, character in table.characters.items()
        },
        "pairs": [
            {
                "backend": pair.backend,
                "bucket": bucket.size,
                "level": pair.estimate.level,
                "variance": pair.estimate.doubt(now, bucket.count),
                "runs": pair.estimate.runs,
                "jump": pair.estimate.jump,
            }
            for bucket in table.buckets.values()
            for pair in bucket.pairs.values()
            if pair.estimate.runs
        ],
        "selected": {str(bucket.size): bucket.last.backend for bucket in table.buckets.values() if bucket.last},
        "switches": [{**_plain(switch), "time": switch.time - now} for switch in history],
    }


def restore(table: Table, budget: Budget, history: History, data: object, now: float) -> None:
    """Take up an export. Buckets that the model doesn't have are left out; backends may be others than before.

    Raises:
        ValueError: The data isn't an export of this version. Nothing was taken up.
    """
    try:
        characters, pairs, selected, switches, spent, allowed = _read(data)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an export of selection: {error!r}") from error
    for kept, values in ((budget, spent), (budget.switches, allowed)):
        for key, value in values.items():
            setattr(kept, key, value)
    for name, values in characters.items():
        table.add(name, -math.inf)
        for key, value in values.items():
            setattr(table.characters[name], key, value)
        table.characters[name].longest = LONGEST_WARMING + 1  # known from before, and not to be tried at each restart
    for (name, size), (level, variance, runs, jump) in pairs.items():
        if size in table.buckets:
            bucket = table.buckets[size]
            estimate = bucket.pairs[name].estimate
            estimate.level, estimate.variance, estimate.runs, estimate.jump = level, variance, runs, jump
            estimate.seen, estimate.at, estimate.old = now, bucket.count, True
            estimate.unsettle(OLD)
    for size, name in selected.items():
        if size in table.buckets:
            table.buckets[size].last = table.buckets[size].pairs[name]
    history.extendleft(switch._replace(time=switch.time + now) for switch in reversed(switches))


_Pairs = dict[tuple[str, int], tuple[float, float, int, float]]


def _read(
    data: Any,  # noqa: ANN401 - whatever a file held; each part is checked below
) -> tuple[dict[str, dict[str, Any]], _Pairs, dict[int, str], list[Switch], dict[str, Any], dict[str, Any]]:
    """Check everything; raises KeyError, TypeError, AttributeError, OverflowError or ValueError."""
    if not isinstance(data, Mapping) or data["version"] != VERSION:
        raise ValueError(f"not an export of selection, version {VERSION}")
    backends = data["backends"]
    if len(backends) > MOST_BACKENDS or not all(isinstance(name, str) for name in backends):
        raise ValueError("the names of the backends can't be right")
    characters = {name: _character(values) for name, values in backends.items()}
    pairs: _Pairs = {}
    for entry in data["pairs"]:
        key = _known(entry["backend"], characters), _whole(entry["bucket"])
        variance, jump = _number(entry["variance"], 0, 100), _number(entry["jump"], 0, 100)
        pairs[key] = _number(entry["level"], -50, 50), variance, max(1, _whole(entry["runs"])), jump
    selected = {int(size): _known(name, characters) for size, name in data["selected"].items()}
    switches = [
        Switch(
            *(_number(s["time"], -1e12, 0), _whole(s["bucket"]), str(s["from"]), str(s["to"]), str(s["reason"])),
            kind=s["kind"] if s["kind"] in KINDS else OTHER,
        )
        for s in data["switches"][-KEPT:]
    ]
    return characters, pairs, selected, switches, *_spent(data)


def _spent(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of the budget, and of its switches."""
    spent, left = data["spent"], data["switches_left"]
    seconds = {key: _number(spent[key], 0, 1e12) for key in _SECONDS}
    if seconds["explored"] > seconds["busy"]:
        raise ValueError("more was explored than was run")
    allowed = {"left": _number(left["left"], -1e6, 1e6), "buckets": _whole(left["buckets"])}
    return {**seconds, "runs": _whole(spent["runs"])}, allowed


def _character(values: Mapping[str, Any]) -> dict[str, Any]:
    bounds: dict[str, Callable[[Any], float]] = {
        "spread": lambda value: _number(value, 1e-6, 100),
        "mean": lambda value: _number(value, 1e-3, 1e3),
        "waste": lambda value: _number(value, 0, 1e3),
        "tail": lambda value: _number(value, -10, 50),
        "cold": lambda value: _number(value, 0, 50),
        "silence": lambda value: _number(value, 0, LONGEST_SILENCE),
    }
    numbers = {key: bounds[key](values[key]) for key in _NUMBERS}
    return {**numbers, **{key: _whole(values[key]) for key in _COUNTS}, "warmed": bool(values["warmed"])}


def _number(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{value!r} is not between {low} and {high}")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**12:
        raise ValueError(f"{value!r} is not a count")
    return value


def _known(name: object, characters: Mapping[str, object]) -> str:
    if not isinstance(name, str) or name not in characters:
        raise ValueError(f"{name!r} is not among the backends")
    return name


def _describe(table: Table, bucket: Bucket, name: str, now: float) -> dict[str, Any]:
    stands, reason = state(table, bucket, name)
    pair: Pair | None = bucket.pairs.get(name)
    measured = pair is not None and pair.estimate.runs > 0
    character: Character | None = table.characters.get(name)
    return {
        "backend": name,
        "bucket": bucket.size,
        "state": stands.value,
        "reason": reason,
        "seconds": math.exp(table.cost(pair)) if pair is not None and measured else None,
        "spread": math.sqrt(character.spread) if character is not None else None,
        "samples": pair.estimate.runs if pair is not None else 0,
        "last_seen": now - pair.estimate.seen if pair is not None and measured else None,
        "old": pair is not None and pair.estimate.old,
    }


def _plain(switch: Switch) -> dict[str, Any]:
    return {
        "time": switch.time,
        "bucket": switch.bucket,
        "from": switch.source,
        "to": switch.target,
        "reason": switch.reason,
        "kind": switch.kind,
    }
