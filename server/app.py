"""The server as a process: everything wired together from its settings, and an orderly end on SIGTERM."""

import logging
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.serving import model_service_pb2, prediction_service_pb2
from server.backends.onnx_runtime import Device, DeviceChoice, OnnxRuntimeBackend, choose_device
from server.batching import BatchingParameters
from server.config import ServerConfig, parse_channel_arguments
from server.errors import SegueError
from server.heap import share_arenas
from server.lifecycle.manager import ModelManager
from server.lifecycle.servable import load_servable
from server.metrics import Metrics
from server.observer import Observer
from server.reload import ConfigWatcher, Reloader, beginning
from server.services.edge import Edge
from server.services.health import Health
from server.services.inference import InferenceService
from server.services.model import ModelService
from server.services.prediction import PredictionService
from server.services.published import Registrar

logger = logging.getLogger("server")

PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


# Calls that may be open beyond those in work: streams that say nothing, and requests that wait their turn.
_WAITING_CALLS = 512


class ServerStartError(Exception):
    """The server cannot start with these settings; the text says which and why."""


class Server:
    """One server: `start`, then `drain` and `stop`."""

    def __init__(self, config: ServerConfig) -> None:
        """Wire everything together and bind the ports.

        Raises:
            ServerStartError: a port is taken, the device is not there, or the models' configuration is refused.
        """
        self._config = config
        self._metrics = Metrics()
        self._stop_metrics: Callable[[], None] = _nothing
        choice = _device(config)
        backend = OnnxRuntimeBackend(choice.device, threads=config.threads)
        logger.info("backend %s: %s", backend.name, choice.reason)
        try:
            self._beginning = begin = beginning(config)
        except SegueError as error:
            raise ServerStartError(error.message) from error
        self.models = ModelManager(
            begin.source,
            lambda package: load_servable(package, backend, _batching(config)),
            observer=Observer(self._metrics),
            policies=begin.policies,
            labels_before_versions=config.labels_before_versions,
            poll_seconds=config.poll_seconds,
            load_threads=config.load_threads,
        )
        self._reloader = Reloader(self.models)
        self._config_watcher: ConfigWatcher | None = None
        if begin.file is not None and config.model_config_poll_seconds > 0:
            seconds = config.model_config_poll_seconds
            self._config_watcher = ConfigWatcher(begin.file, begin.in_force, self._reloader, seconds)
        self._health = Health()
        self._grpc = self._make_grpc_server()
        self.port = self._bind()
        self.metrics_port: int | None = None
        if config.metrics_port >= 0:
            try:
                self.metrics_port, self._stop_metrics = self._metrics.serve(config.host, config.metrics_port)
            except OSError as error:
                msg = f"cannot serve metrics on {config.host}:{config.metrics_port}: {error.strerror}"
                raise ServerStartError(msg) from error

    def start(self) -> None:
        """Answer; then load what there is, and say SERVING when that is done."""
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._grpc.start()
        self.models.start()
        if self._config_watcher is not None:
            self._config_watcher.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        logger.info("serving %s on %s:%d", self._beginning.words, self._config.host, self.port)
        if self._config.socket is not None:
            logger.info("also listening on the socket %s", self._config.socket)
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
        if self._config_watcher is not None:
            self._config_watcher.stop()
        self.models.stop(timeout=self._config.grace_seconds)
        self._stop_metrics()
        logger.info("stopped")

    def _make_grpc_server(self) -> grpc.Server:
        config = self._config
        edge = Edge(self._metrics, config.request_threads)
        prediction = PredictionService(self.models, self._metrics, tensor_content=config.tensor_content)
        inference = InferenceService(self.models, self._metrics)
        model = ModelService(self.models, self._metrics, self._reloader.apply if config.admin else None)
        server = grpc.server(
            # gRPC holds a thread for each open call, also for one that only waits: health must find one besides.
            futures.ThreadPoolExecutor(config.request_threads + _WAITING_CALLS, thread_name_prefix="request"),
            handlers=[
                edge.handler(PREDICTION, {**prediction.methods(), **inference.methods()}),
                edge.handler(MODEL, model.methods(), model.error_replies()),
            ],
            options=[
                *parse_channel_arguments(config.channel_arguments),  # of two settings of one name gRPC takes the first
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
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{host}:{self._config.port}"
        try:
            port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            msg = f"cannot listen on {address}: is another server running there? Choose another with --port"
            raise ServerStartError(msg) from error
        if self._config.socket is not None:
            try:
                self._grpc.add_insecure_port(f"unix:{self._config.socket.absolute()}")
            except RuntimeError as error:
                msg = f"cannot listen on the socket {self._config.socket}: is its folder there, and writable?"
                raise ServerStartError(msg) from error
        return port

    def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for service in ("", PREDICTION.full_name, MODEL.full_name):
            self._health.set(service, status)


def _nothing() -> None:
    """Metrics are off: nothing to stop."""


def _batching(config: ServerConfig) -> BatchingParameters | None:
    if config.max_batch_size == 1:
        return None
    return BatchingParameters(config.max_batch_size, config.batch_timeout_micros)


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
    failure: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except BaseException as error:  # noqa: BLE001 - a failed start is told to the thread that waits
            failure.append(error)
            asked.set()

    # In a thread of its own, so that a signal is heeded while models load.
    threading.Thread(target=start, name="start", daemon=True).start()
    asked.wait()
    if failure:
        logger.error("the server could not start", exc_info=failure[0])
        return 1
    if not again.is_set():
        server.drain(again)
    server.stop()
    return 0
