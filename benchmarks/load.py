"""A closed-loop load generator: `python -m benchmarks.load PORT CONCURRENCY SECONDS < REQUEST` prints JSON.

Each caller has a thread and a connection of its own and sends the same request again as soon as it is answered.
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

METHOD = "/tensorflow.serving.PredictionService/Predict"
_WARM_UPS = 20


def run(port: int, concurrency: int, seconds: float, request: bytes) -> dict[str, float]:
    """Load a server for so long; returns requests per second until the last answer, and percentiles in microseconds."""
    begun: list[float] = []
    ready = threading.Barrier(concurrency, action=lambda: begun.append(time.perf_counter()), timeout=60)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]

    def call() -> list[tuple[float, float]]:
        answers = []
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            for _ in range(_WARM_UPS):
                predict(request, timeout=60)
            ready.wait()
            while (begin := time.perf_counter()) < begun[0] + seconds:
                predict(request, timeout=60)
                answers.append((begin, time.perf_counter()))
        return answers

    with ThreadPoolExecutor(concurrency) as pool:
        callers = [pool.submit(call) for _ in range(concurrency)]
        answers = [answer for caller in callers for answer in caller.result()]
    return summary(answers, begun[0])


def summary(answers: list[tuple[float, float]], begin: float) -> dict[str, float]:
    """Figures of requests, each from when to when: a request under way at the end counts, and so does its time."""
    ordered = sorted(1e6 * (end - begin) for begin, end in answers)
    return {
        "per_second": len(answers) / (max(end for _, end in answers) - begin),
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
    port, concurrency, seconds = sys.argv[1:]
    json.dump(run(int(port), int(concurrency), float(seconds), sys.stdin.buffer.read()), sys.stdout)
