"""From a published version to an answered request: wait until it is served, then ask the golden questions."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from converter.client import CallFailed, ServerUnreachable, ServingClient
from converter.errors import NotDeployed
from protos.segue import package_pb2
from protos.serving import model_service_pb2
from server.arrays import Array
from server.errors import MalformedResponse
from server.lifecycle.states import State
from server.parity import Difference, Tolerance, compare

# How long a server that is there may take for a status call.
_CALL_SECONDS = 5.0
# A golden request may be large and the model slow.
_PREDICT_SECONDS = 120.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Served:
    """What the server answered to the golden inputs.

    Attributes:
        differences: From TensorFlow's answers, by signature and output alias.
        requests: How many Predict calls were made.
        milliseconds: The median of their times, as this client saw them.
    """

    differences: Mapping[tuple[str, str], Difference]
    requests: int
    milliseconds: float


def wait_available(client: ServingClient, name: str, version: int, seconds: float) -> float:
    """Wait until the server says AVAILABLE; returns the seconds that it took.

    Raises:
        NotDeployed: The version failed on the server, or it was not seen in time.
        ServerUnreachable: The server stopped answering.
    """
    begin = time.monotonic()
    while True:
        status = client.version_status(name, version, _CALL_SECONDS)
        state = State(status.state) if status else None
        if state is State.AVAILABLE:
            return time.monotonic() - begin
        # An END without an error is the end of an older version of that number, whose folder was removed.
        if status is not None and state is State.END and status.status.error_message:
            raise NotDeployed(
                f"Version {version} of {name!r} is published, but the server cannot serve it: "
                f"{status.status.error_message}",
                "Look at the server's log, which has more. An older version, if there is one, goes on serving.",
            )
        if time.monotonic() - begin >= seconds:
            raise _not_seen(name, version, seconds, status)
        time.sleep(_POLL_SECONDS)


def _not_seen(
    name: str, version: int, seconds: float, status: model_service_pb2.ModelVersionStatus | None
) -> NotDeployed:
    if status is None:
        return NotDeployed(
            f"Version {version} of {name!r} is published, but the server has not seen it within {seconds:.0f} s.",
            "Start the server with the same --repository as this command, or give the address of one that watches it "
            "with --server.",
        )
    state = State(status.state).name
    return NotDeployed(
        f"Version {version} of {name!r} is published, but still {state} on the server after {seconds:.0f} s.",
        "Run the same command again, with a longer --wait: the version may yet become available.",
    )


def ask_golden(
    client: ServingClient, name: str, version: int, manifest: package_pb2.ModelPackage, arrays: Mapping[str, Array]
) -> Served:
    """Send every golden input through Predict and compare with TensorFlow's answers.

    Raises:
        NotDeployed: An answer is an error, or differs by more than the manifest's tolerance.
        ServerUnreachable: The server stopped answering.
    """
    differences: dict[tuple[str, str], Difference] = {}
    times = []
    for signature in manifest.signatures:
        tolerances = {b.alias: Tolerance(b.tolerance.absolute, b.tolerance.relative) for b in signature.outputs}
        for case in signature.golden:
            inputs = {alias: arrays[key] for alias, key in case.inputs.items()}
            begin = time.perf_counter()
            try:
                outputs = client.predict(name, version, signature.name, inputs, _PREDICT_SECONDS)
            except (CallFailed, MalformedResponse) as error:
                raise _refused(signature.name, str(error)) from error
            times.append(time.perf_counter() - begin)
            if outputs.keys() != case.outputs.keys():
                raise _refused(signature.name, f"outputs {sorted(outputs)} instead of {sorted(case.outputs)}")
            for alias, key in sorted(case.outputs.items()):
                measured = compare(arrays[key], outputs[alias], tolerances[alias])
                where = (signature.name, alias)
                differences[where] = differences.get(where, Difference()).merged(measured)
    for (signature_name, alias), difference in differences.items():
        if difference.problem:
            raise _refused(signature_name, f"output {alias!r}: {difference.problem}")
    return Served(differences, len(times), 1e3 * sorted(times)[len(times) // 2])


def is_available(client: ServingClient, name: str, version: int) -> bool:
    """True if the server answers, and has that version."""
    try:
        status = client.version_status(name, version, _CALL_SECONDS)
    except (ServerUnreachable, CallFailed):
        return False
    return status is not None and State(status.state) is State.AVAILABLE


def _refused(signature: str, what: str) -> NotDeployed:
    return NotDeployed(
        f"The server does not answer signature {signature!r} as TensorFlow did: {what}",
        "The package passed its proof here, so look at what differs there: versions, hardware, a proxy in between.",
    )


def answers(client: ServingClient, name: str, version: int) -> bool:
    """True if a server of this API answers at all."""
    try:
        client.version_status(name, version, _CALL_SECONDS)
    except ServerUnreachable:
        return False
    except CallFailed:
        return True
    return True
