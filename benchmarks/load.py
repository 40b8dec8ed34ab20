"""A closed-loop load generator: `python -m benchmarks.load PORT CONCURRENCY SECONDS [WARM-UPS] < REQUEST` prints JSON.

Each caller has a thread and a connection of its own and sends the same request again as soon as it is answered.
"""

import json
import sys
import threading
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

METHOD = "/tensorflow.serving.PredictionService/Predict"


def latencies(call: Callable[[list[float]], None], callers: int) -> list[float]:
    """Have so many threads note how long their calls take, in seconds; returns all of them in microseconds, sorted."""
    noted: list[list[float]] = [[] for _ in range(callers)]
    threads = [threading.Thread(target=call, args=(mine,)) for mine in noted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(1e6 * latency for mine in noted for latency in mine)


def run(port: int, concurrency: int, seconds: float, request: bytes, warm_ups: int = 20) -> dict[str, float]:
    """Load a server; returns requests per second and latency percentiles in microseconds."""
    ready = threading.Barrier(concurrency)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]

    def call(mine: list[float]) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            for _ in range(warm_ups):
                predict(request, timeout=60)
            ready.wait()
            end = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < end:
                predict(request, timeout=60)
                mine.append(time.perf_counter() - begin)

    ordered = latencies(call, concurrency)
    return {
        "per_second": len(ordered) / seconds,
        "p50_us": ordered[len(ordered) // 2],
        "p99_us": ordered[len(ordered) * 99 // 100],
    }


def wait_until_serving(port: int) -> None:
    """Return when the server says that it serves."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for reply in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=120):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return


if __name__ == "__main__":
    port, concurrency, seconds, *warm_ups = sys.argv[1:]
    figures = run(int(port), int(concurrency), float(seconds), sys.stdin.buffer.read(), *map(int, warm_ups))
    json.dump(figures, sys.stdout)
