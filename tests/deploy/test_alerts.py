"""Tests of deploy/prometheus with Prometheus' own tool."""

import subprocess

import pytest

from tests.prometheus import DEPLOY, tool


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    """The configuration is one; each alert comes when it should, and not before."""
    command = [str(tool("promtool")), *arguments]
    done = subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    """A new alert comes with a case in which it fires."""
    rules, cases = ((DEPLOY / "prometheus" / name).read_text() for name in ("alerts.yml", "alerts_test.yml"))
    named = [line.split()[-1] for line in rules.splitlines() if "- alert:" in line]
    fired = cases.replace("exp_alerts: []", "").split("alertname: ")
    assert named
    assert all(any(each.startswith(f"{name}\n") and "exp_labels" in each for each in fired) for name in named)
