"""The load: the published tensorflow-serving-api client with the shipped configuration, in a process of its own.

    python -m benchmarks.soak.caller < SETTINGS-AND-ORDERS

The first line of standard input is {"addresses": [...], "threads": N}. Each further line is an order, in force for
every request that begins after it, whose calls the threads take in turn; without calls they rest:
    {"order": 7, "calls": [{"spec": {"name", "version", "label"}, "rows": N, "least": V}]}
The end of standard input ends the load. To standard output goes {"order": N, "answered": M} when every thread has ended
the request that it had begun before the order, and at the end
    {"answered", "failed", "wrong", "texts", "seconds": [p50, p99, longest]}

The models are those of `benchmarks.soak.models`: version V answers (1000 V + 1) x, so that an answer tells its version.
An answer is wrong if its numbers are not those of its model_spec.version, or if that is not the version asked for, or
below `least`.
"""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from examples.client_resilient import connect

WIDTH = 4
_SECONDS = 60.0
_KEPT = 20  # failures told in full


@dataclass
class Orders:
    """What the threads shall do now, and what they have done."""

    number: int = 0
    calls: list[tuple[dict[str, Any], Any]] = field(default_factory=list)
    ended: bool = False
    begun: dict[int, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)


@dataclass
class Tally:
    """What one thread has seen."""

    answered: int = 0
    failed: int = 0
    wrong: int = 0
    texts: list[str] = field(default_factory=list)
    seconds: "deque[float]" = field(default_factory=lambda: deque(maxlen=200_000))

    def tell(self, text: str) -> None:
        """Keep a text, if there are not too many yet."""
        if len(self.texts) < _KEPT:
            self.texts.append(text)


def build(call: dict[str, Any]) -> predict_pb2.PredictRequest:
    """The request of a call, as tf.make_tensor_proto writes it."""
    request = predict_pb2.PredictRequest(output_filter=["y"])
    request.model_spec.name = call["spec"]["name"]
    if "version" in call["spec"]:
        request.model_spec.version.value = call["spec"]["version"]
    if "label" in call["spec"]:
        request.model_spec.version_label = call["spec"]["label"]
    ones = np.ones((call.get("rows", 1), WIDTH), np.float32)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(ones))
    request.inputs["bias"].CopyFrom(tf.make_tensor_proto(0 * ones))
    return request


def problem(call: dict[str, Any], reply: predict_pb2.PredictResponse) -> str | None:
    """What is wrong with an answer."""
    version = reply.model_spec.version.value
    values = reply.outputs["y"].float_val
    if len(values) != WIDTH * call.get("rows", 1) or {values[0], values[-1]} != {1000.0 * version + 1.0}:
        return f"version {version} answered {len(values)} values such as {values[:1]}"
    if version != call["spec"].get("version", version) or version < call.get("least", 0):
        return f"{call['spec']} with least {call.get('least', 0)} was answered by version {version}"
    return None


def ask(stub: prediction_service_pb2_grpc.PredictionServiceStub, number: int, orders: Orders, tally: Tally) -> None:
    """One thread: calls until the end."""
    turn = number
    while True:
        with orders.changed:
            orders.begun[number] = orders.number
            orders.changed.notify_all()
            orders.changed.wait_for(lambda: orders.ended or orders.calls)
            if orders.ended:
                return
            call, request = orders.calls[turn % len(orders.calls)]
        turn += 1
        begin = time.perf_counter()
        try:
            reply = stub.Predict(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            tally.failed += 1
            tally.tell(f"{call['spec']}: {error.code().name}: {error.details()}")
            continue
        tally.seconds.append(time.perf_counter() - begin)
        tally.answered += 1
        wrong = problem(call, reply)
        if wrong is not None:
            tally.wrong += 1
            tally.tell(wrong)


def obey(orders: Orders, tallies: Sequence[Tally]) -> None:
    """Read orders until there are no more; confirm each."""
    for line in sys.stdin:
        order = json.loads(line)
        calls = [(call, build(call)) for call in order["calls"]]
        with orders.changed:
            orders.number, orders.calls = order["order"], calls
            if not orders.begun:
                orders.begun = dict.fromkeys(range(len(tallies)), -1)
            orders.changed.notify_all()
            orders.changed.wait_for(lambda: min(orders.begun.values()) >= orders.number)
        answered = sum(tally.answered for tally in tallies)
        print(json.dumps({"order": orders.number, "answered": answered}), flush=True)
    with orders.changed:
        orders.ended = True
        orders.changed.notify_all()


def main() -> None:
    """Load until standard input ends."""
    settings = json.loads(sys.stdin.readline())
    count = settings["threads"]
    orders, tallies = Orders(), [Tally() for _ in range(count)]
    with connect(settings["addresses"]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def run(number: int) -> None:
            with orders.changed:
                orders.changed.wait_for(lambda: bool(orders.begun))
            ask(stub, number, orders, tallies[number])

        threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        obey(orders, tallies)
        for thread in threads:
            thread.join()
    seconds = sorted(value for tally in tallies for value in tally.seconds) or [0.0]
    result = {
        "answered": sum(tally.answered for tally in tallies),
        "failed": sum(tally.failed for tally in tallies),
        "wrong": sum(tally.wrong for tally in tallies),
        "texts": [text for tally in tallies for text in tally.texts][:_KEPT],
        "seconds": [seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100], seconds[-1]],
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
