"""What the server adds to a bare gRPC echo of the same bytes: `make bench` prints a table and writes JSON.

A model that computes next to nothing is asked at concurrency 1 and 16, in rounds that alternate between Segue's server
and echo servers of three kinds, all on one machine; the figures are medians over the rounds. Nothing else should run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from examples.demo import free_port, wait_until_listening
from server.wire.responses import encode_predict_request
from tests.packages import WIDTH, write_package

RESULT = Path(__file__).parent / "results" / "request_path.json"
SERVERS = ("segue", "threads", "asyncio", "executor")


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, int]]:
    """All servers at once, idle but for the one being asked; ports by name."""
    write_package(folder / "affine" / "1")
    ports = {name: free_port() for name in SERVERS}
    with ExitStack() as stack:
        for name, port in ports.items():
            command = [sys.executable, "-m", "benchmarks.echo", name, str(port)]
            if name == "segue":
                command = [sys.executable, "-m", "server", "--repository", str(folder), "--port", str(port)]
                command += ["--metrics-port", "-1", "--poll-seconds", "60"]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            wait_until_listening(process, port)
        yield ports


def load(port: int, concurrency: int, seconds: float, request: bytes) -> dict[str, float]:
    """One round against one server, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(concurrency), str(seconds)]
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure(rounds: int, seconds: float, concurrencies: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of the table: medians over the rounds for each server and concurrency."""
    row = np.ones((1, WIDTH), np.float32)
    request = encode_predict_request({"x": row, "bias": row}, name="affine")
    rows = []
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as ports:
        for concurrency in concurrencies:
            samples: dict[str, list[dict[str, float]]] = {server: [] for server in ports}
            for number in range(rounds):
                order = list(ports) if number % 2 == 0 else list(reversed(ports))
                for server in order:
                    samples[server].append(load(ports[server], concurrency, seconds, request))
            for server, measured in samples.items():
                medians = {key: statistics.median(sample[key] for sample in measured) for key in measured[0]}
                rows.append({"server": server, "concurrency": concurrency, **medians})
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table as Markdown, each server beside the faster echo."""
    print("| server | concurrency | requests/s | p50 µs | p99 µs |\n|---|---|---|---|---|")
    for row in rows:
        figures = " | ".join(f"{row[key]:.0f}" for key in ("per_second", "p50_us", "p99_us"))
        print(f"| {row['server']} | {row['concurrency']} | {figures} |")
    for concurrency in sorted({row["concurrency"] for row in rows}):
        here = {row["server"]: row for row in rows if row["concurrency"] == concurrency}
        echo = max((here["threads"], here["asyncio"]), key=lambda row: float(row["per_second"]))
        added = here["segue"]["p50_us"] - echo["p50_us"]
        share = here["segue"]["per_second"] / echo["per_second"]
        print(f"\nconcurrency {concurrency}: {added:+.0f} µs at p50, {share:.0%} of the faster echo's throughput")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    rows = measure(options.rounds, options.seconds, (1, 16))
    show(rows)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
