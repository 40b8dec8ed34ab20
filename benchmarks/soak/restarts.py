"""Two servers behind one channel: ended in order again and again, or killed, while clients ask."""

import time
from pathlib import Path
from typing import Any

from benchmarks.soak.load import load
from benchmarks.soak.models import LARGE_ROWS, MODEL, publish
from benchmarks.soak.servers import ServerProcess, running

# One request in a hundred carries 1 MiB.
CALLS = [{"spec": {"name": MODEL}}] * 99 + [{"spec": {"name": MODEL}, "rows": LARGE_ROWS}]


def rolling(
    folder: Path, *, restarts: int, requests: int, pause: float, lame_duck: float = 1.0, callers: int = 2
) -> dict[str, Any]:
    """End the two servers in turn with SIGTERM, and start each again.

    Args:
        folder: Empty; for the repository and the logs.
        restarts: How many ends in all.
        requests: Spread the ends over at least so many requests.
        pause: Seconds from one server's SERVING to the other's SIGTERM at least: a client's way back to the first.
        lame_duck: Seconds; see --lame-duck-seconds.
        callers: Client processes.

    Returns:
        Figures; "exit_codes" has those that there were.
    """
    publish(folder, 1)
    servers = [ServerProcess(folder, "--lame-duck-seconds", str(lame_duck), log=folder / f"{i}.log") for i in (0, 1)]
    codes = set()
    with running(*servers), load([server.address for server in servers], CALLS, processes=callers) as made:
        begin = time.monotonic()
        for number in range(restarts):
            server = servers[number % 2]
            codes.add(server.end())
            server.start()
            time.sleep(pause)
            while made.answered < requests * (number + 1) / restarts:
                made.order(CALLS)
                time.sleep(pause / 10)
        seen = made.end()
        seconds = time.monotonic() - begin
    figures = {"restarts": restarts, "exit_codes": sorted(codes), "requests_per_second": round(seen.answered / seconds)}
    return {**figures, **seen.figures()}


def killing(folder: Path, *, kills: int, pause: float, callers: int = 2) -> dict[str, Any]:
    """Kill one of two servers with SIGKILL, start it again, kill the other."""
    publish(folder, 1)
    servers = [ServerProcess(folder, log=folder / f"{i}.log") for i in (0, 1)]
    with running(*servers), load([server.address for server in servers], CALLS, processes=callers) as made:
        for number in range(kills):
            time.sleep(pause)
            servers[number % 2].kill()
            time.sleep(pause)
            servers[number % 2].start()
        time.sleep(pause)
        seen = made.end()
    return {"kills": kills, **seen.figures()}
