"""Tests of rules over sizes."""

import pytest

from server.backends.sizes import SizeRule


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("d[0][0] == d[1][0]", True),
        ("d[0][1] >= 4", False),
        ("((6*d[0][0]) % 4) == 0", True),
        ("(6*d[0][0]) == (4*((3*d[0][0]) // 2))", True),
        ("2 <= d[0][1] < 4", True),
        ("d[0][1] != 3 or not d[0][0] > 1", False),
        ("d[0][1] - 3 == 0 and -d[0][0] + 2 == 0", True),
        ("d[0][0] == min(2147483647, d[0][0])", True),
        ("max(d[0][0], d[0][1]) == 2", False),
        ("d[0][0] % (d[0][1] - 3) == 0", False),  # it divides by zero
    ],
)
def test_a_rule_says_whether_it_holds(text: str, *, holds: bool) -> None:
    """As Python would, for inputs of shapes (2, 3) and (2,)."""
    assert SizeRule(text).holds([(2, 3), (2,)]) is holds


@pytest.mark.parametrize(
    "text",
    ["", "d[0][0] ==", "__import__('os')", "d[0][0].real > 1", "x[0][0] > 1", "d[0] > 1", "d[d[0][0]][0] > 1",
     "d[0][0] ** 9 > 1", "d[0][0] / 2 > 1", "d[0][0] > 1.5", "d[0][0] > True", "[1 for _ in d]", "open(1, 2) > 1",
     "min(d[0][0]) > 1", "min(1, 2, key=d) > 1", "lambda: 1"],
)  # fmt: skip
def test_nothing_else_is_a_rule(text: str) -> None:
    """It comes from a file: nothing of it may run."""
    with pytest.raises(ValueError, match="is no rule over sizes"):
        SizeRule(text)
