"""Valid bytes with something broken: cut, doubled, nested, with absurd numbers. Seeded, and of any message."""

import random
from collections.abc import Callable
from itertools import pairwise

from server.wire.encoding import encode_varint, length_delimited
from server.wire.scanner import fields

Rng = random.Random


def mutated(rng: Rng, data: bytes, other: bytes) -> bytes:
    """Valid bytes with something broken; pieces of the other ones may come into them."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(rng, data, other)
    return data


def flip(rng: Rng, data: bytes, _other: bytes) -> bytes:
    """Some bits turned over."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: Rng, data: bytes, _other: bytes) -> bytes:
    start, stop = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return rng.choice((data[:stop], data[start:], data[:start] + data[stop:]))


def _splice(rng: Rng, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _repeat(rng: Rng, data: bytes, _other: bytes) -> bytes:
    start, stop = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 50)) + data[stop:]


def _double_field(rng: Rng, data: bytes, _other: bytes) -> bytes:
    """Repeat, drop or move whole fields, which keeps the message valid."""
    try:
        found = list(fields(data, 0, len(data)))
    except ValueError:
        return data * 2
    starts = [0, *(stop for _, _, stop in found)]
    pieces = [data[start:stop] for start, stop in pairwise(starts)]
    return b"".join(rng.choices(pieces, k=rng.randint(0, 2 * len(pieces)))) if pieces else data


def _absurd_number(rng: Rng, data: bytes, _other: bytes) -> bytes:
    numbers = (
        b"\xff" * 5 + b"\x0f",
        b"\xff" * 9 + b"\x01",
        b"\xff" * 20,
        b"\x80" * 9 + b"\x00",
        b"\xff\xff\xff\xff\x07",
    )
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(numbers) + data[at + rng.choice((0, 1)) :]


def _grow(rng: Rng, data: bytes, _other: bytes) -> bytes:
    """A field of any number and wire type, with anything in it."""
    tag = encode_varint(rng.choice((rng.randrange(1, 20), rng.randrange(2**29), 2**29 - 1)) << 3 | rng.randrange(8))
    at = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:at] + tag + rng.randbytes(rng.randrange(12)) + data[at:]


def _nest(rng: Rng, data: bytes, _other: bytes) -> bytes:
    """Messages in messages, or groups in groups, far deeper than anyone writes."""
    depth = rng.choice((3, 90, 99, 100, 101, 102, 150, 5000))
    number = rng.choice((1, 2, 3, 15))
    if rng.random() < 0.5:
        group, end = bytes((number << 3 | 3,)), bytes((number << 3 | 4,))
        return data + group * depth + end * rng.choice((depth, depth, 0, depth - 1))
    nested = data
    for _ in range(min(depth, 300)):
        nested = length_delimited(number, nested)
    return nested


MUTATIONS: tuple[Callable[[Rng, bytes, bytes], bytes], ...] = (
    flip,
    flip,
    _cut,
    _splice,
    _repeat,
    _double_field,
    _absurd_number,
    _grow,
    _nest,
)
