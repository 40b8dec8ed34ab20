"""The server as a process: settings from the command line, everything wired together, an orderly end on SIGTERM."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from types import FrameType
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.serving import model_service_pb2, prediction_service_pb2
from server.backends.onnx_runtime import Device, DeviceChoice, OnnxRuntimeBackend, choose_device
from server.config import ServerConfig
from server.heap import share_arenas
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import Loaded, load_servable
from server.lifecycle.states import State, VersionStatus
from server.metrics import Metrics
from server.repository.folder import Repository
from server.services.edge import Edge
from server.services.inference import InferenceService
from server.services.model import ModelService
from server.services.prediction import PredictionService
from server.services.published import Registrar

logger = logging.getLogger("server")

PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


class ServerStartError(Exception):
    """The server cannot start with these settings; the text says which and why."""


class _Observer:
    """Logs what happens to versions and passes it to the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def status_changed(self, model: str, status: VersionStatus) -> None:
        self._metrics.status_changed(model, status)
        if status.error is not None:
            logger.error("model %s version %d does not load: %s", model, status.version, status.error.message)
        elif status.state is not State.START:
            logger.info("model %s version %d: %s", model, status.version, status.state.name)

    def loaded(self, loaded: Loaded) -> None:
        self._metrics.loaded(loaded)
        servable = loaded.servable
        worst = max((p.difference.max_absolute for p in servable.proofs), default=0.0)
        logger.info(
            "model %s version %d proved on %s in %.2f s: largest difference from TensorFlow %.1e",
            *(servable.name, servable.version, servable.backend_name, loaded.seconds, worst),
        )


class Server:
    """One server: `start`, then `drain` and `stop`."""

    def __init__(self, config: ServerConfig) -> None:
        """Wire everything together and bind the ports.

        Raises:
            ServerStartError: a port is taken, or the device is not there.
        """
        self._config = config
        self._metrics = Metrics()
        self._stop_metrics: Callable[[], None] = _nothing
        choice = _device(config)
        backend = OnnxRuntimeBackend(choice.device)
        logger.info("backend %s: %s", backend.name, choice.reason)
        self.models = ModelManager(
            Repository(config.repository),
            lambda package: load_servable(package, backend),
            observer=_Observer(self._metrics),
            poll_seconds=config.poll_seconds,
        )
        self._health = health.HealthServicer()
        self._grpc = self._make_grpc_server()
        self.port = self._bind()
        self.metrics_port: int | None = None
        if config.metrics_port is not None:
            try:
                self.metrics_port, self._stop_metrics = self._metrics.serve(config.host, config.metrics_port)
            except OSError as error:
                msg = f"cannot serve metrics on {config.host}:{config.metrics_port}: {error.strerror}"
                raise ServerStartError(msg) from error

    def start(self) -> None:
        """Answer; then load what the repository holds, and say SERVING when that is done."""
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._grpc.start()
        self.models.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        logger.info("serving %s on %s:%d", self._config.repository, self._config.host, self.port)
        if self.metrics_port is not None:
            logger.info("metrics on http://%s:%d/metrics", self._config.host, self.metrics_port)

    def drain(self, hurry: threading.Event) -> None:
        """Let clients turn away, then let work in flight finish.

        Args:
            hurry: when set, the wait for clients to turn away ends at once.
        """
        self._health.enter_graceful_shutdown()
        logger.info("draining: NOT_SERVING, still answering for %.1f s", self._config.lame_duck_seconds)
        hurry.wait(self._config.lame_duck_seconds)
        self._grpc.stop(self._config.grace_seconds).wait()

    def stop(self) -> None:
        """End at once what `drain` has not ended, and free everything."""
        self._grpc.stop(None).wait()
        self.models.stop(timeout=self._config.grace_seconds)
        self._stop_metrics()
        logger.info("stopped")

    def _make_grpc_server(self) -> grpc.Server:
        config = self._config
        edge = Edge(self._metrics)
        prediction = PredictionService(self.models, self._metrics, tensor_content=config.tensor_content)
        inference = InferenceService(self.models, self._metrics)
        server = grpc.server(
            futures.ThreadPoolExecutor(config.request_threads, thread_name_prefix="request"),
            handlers=[
                edge.handler(PREDICTION, {**prediction.methods(), **inference.methods()}),
                edge.handler(MODEL, ModelService(self.models).methods()),
            ],
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would each get some of the requests, silently.
                ("grpc.so_reuseport", 0),
            ],
        )
        published = Registrar(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, published)
        names = (PREDICTION.full_name, MODEL.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, published)
        return server

    def _bind(self) -> int:
        address = f"{self._config.host}:{self._config.port}"
        try:
            return self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            msg = f"cannot listen on {address}: is another server running there? Choose another with --port"
            raise ServerStartError(msg) from error

    def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for service in ("", PREDICTION.full_name, MODEL.full_name):
            self._health.set(service, status)


def _nothing() -> None:
    """Metrics are off: nothing to stop."""


def _device(config: ServerConfig) -> DeviceChoice:
    found = choose_device()
    if config.device == "auto":
        return found
    if config.device == "cuda" and found.device != "cuda":
        raise ServerStartError(f"--device cuda: {found.reason}")
    device: Device = "cuda" if config.device == "cuda" else "cpu"
    return found if device == found.device else DeviceChoice(device, "as told by --device")


def run(config: ServerConfig) -> int:
    """Serve until SIGTERM or SIGINT; a second signal ends without waiting.

    Returns:
        The process's exit code: 0 after an orderly end, 1 if the server could not start.
    """
    asked = threading.Event()
    again = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    share_arenas()
    try:
        server = Server(config)
    except ServerStartError as error:
        logger.error("%s", error)  # noqa: TRY400 - the text says it all; a trace would bury it
        return 1
    server.start()
    asked.wait()
    if not again.is_set():
        server.drain(again)
    server.stop()
    return 0


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve(
    repository: Annotated[Path, typer.Option(help="Folder of model packages: REPOSITORY/NAME/VERSION.")] = Path(
        "models"
    ),
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 exposes the server to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8500,
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics; 0 takes a free one, -1 serves none.")] = 8002,
    poll_seconds: Annotated[float, typer.Option(help="How often to look for new versions.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    request_threads: Annotated[int, typer.Option(help="Requests in work at once.")] = 32,
    tensor_content: Annotated[bool, typer.Option("--tensor-content", help="Answer in tensor_content.")] = False,
    lame_duck_seconds: Annotated[float, typer.Option(help="After SIGTERM: keep answering, NOT_SERVING.")] = 1.0,
    grace_seconds: Annotated[float, typer.Option(help="After that: time for requests under way.")] = 30.0,
) -> None:
    """Serve the model packages of a folder over TensorFlow Serving's gRPC API.

    New versions appear without a restart. SIGTERM drains: requests under way are answered, then the process ends.
    """
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        stream=sys.stderr,
    )
    try:
        config = ServerConfig(
            repository=repository,
            host=host,
            port=port,
            metrics_port=None if metrics_port == -1 else metrics_port,
            poll_seconds=poll_seconds,
            device=device,
            request_threads=request_threads,
            tensor_content=tensor_content,
            lame_duck_seconds=lame_duck_seconds,
            grace_seconds=grace_seconds,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(run(config))


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `segue-server`."""
    app(args=list(arguments) if arguments is not None else None, prog_name="segue-server")


if __name__ == "__main__":
    main()
