"""The server as a process: everything wired together from its settings, and an orderly end on SIGTERM."""

import logging
import os
import signal
import stat
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from protos.segue import admin_pb2
from protos.serving import model_service_pb2, prediction_service_pb2
from server import status_page
from server.admission import Budget, Workers
from server.backends.interface import Backend
from server.calls import Watcher
from server.config import ServerConfig
from server.errors import InvalidRequest, SegueError
from server.heap import share_arenas
from server.interpreter import freeze_what_is_there, take_short_turns
from server.lifecycle.manager import ModelManager
from server.lifecycle.overview import Overview
from server.lifecycle.servable import Servable
from server.logs import AccessLog
from server.metrics import Metrics
from server.monitoring import metrics_paths
from server.observer import Observer
from server.reload import ConfigWatcher, Reloader, beginning
from server.runtimes import engine_room
from server.services import connections, health, reflection
from server.services.admin import AdminService
from server.services.edge import Edge
from server.services.health import Health
from server.services.inference import InferenceService
from server.services.model import ModelService
from server.services.prediction import PredictionService
from server.services.reflection import Reflection
from server.services.security import SecurityRefused, is_loopback, secure
from server.services.statuses import Code
from server.services.transport import RpcServer

logger = logging.getLogger("server")

PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["Admin"]
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


# Requests for metadata and status in work at once, and configurations that are waited for.
_STATUS_THREADS = 4
_RELOAD_THREADS = 4
# Parsed, an Example takes about so many times its bytes.
_EXAMPLE_WEIGHT = 8
# For runs that cannot be stopped, after their clients are gone.
_LAST_SECONDS = 2.0


class ServerStartError(Exception):
    """The server cannot start with these settings; the text says which and why."""


class Server:
    """One server: `start`, then `drain` and `stop`."""

    def __init__(self, config: ServerConfig, backends: Sequence[Backend] | None = None) -> None:
        """Wire everything together and bind the ports.

        Args:
            config: The settings.
            backends: See runtimes.engine_room.

        Raises:
            ServerStartError: a port is taken, the device is not there, or the models' configuration is refused.
        """
        self._config = config
        self._metrics = Metrics()
        self._stop_metrics: Callable[[], None] = _nothing
        self._has_looked = False
        try:
            self._beginning = begin = beginning(config)
            self._engines = engine_room(config, backends)
        except SegueError as error:
            raise ServerStartError(error.message) from error
        self.models = ModelManager(
            begin.source,
            self._engines.load,
            observer=Observer(self._metrics, self._available, self._engines.forget),
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
        try:
            self._security = secure(config, self._refused)
            paths = metrics_paths(config.monitoring_config_file)
        except SecurityRefused as error:
            raise ServerStartError(str(error)) from error
        except InvalidRequest as error:
            raise ServerStartError(error.message) from error
        self._budget = Budget(config.max_bytes_in_flight)
        self._watchers, self._stop_tracing = _watchers(config)
        self._overview = Overview(self.models, self._engines.pinned)
        names = (PREDICTION.full_name, MODEL.full_name, ADMIN.full_name)
        self._health = Health(names, config.max_connections)
        self._reflection = Reflection((*names, health.SERVICE))
        self._rpc = self._make_rpc_server()
        self.port = self._bind()
        self.metrics_port = self._serve_metrics(paths)

    def start(self) -> None:
        """Answer; load what there is; then begin to say how the server is: see `_begin_health`."""
        self._security.watch()
        self._rpc.start()
        self._engines.start(self.models.servables, lambda: self._budget.held == 0)
        self.models.start()
        if self._config_watcher is not None:
            self._config_watcher.start()
        self._begin_health()
        words = self._security.words
        logger.info("serving %s on %s:%d (%s)", self._beginning.words, self._config.host, self.port, words)
        if self._config.socket is not None:
            logger.info("also listening on the socket %s", self._config.socket)
        if self.metrics_port is not None:
            self._tell_of_metrics(self._config.metrics_host or self._config.host, self.metrics_port)

    def _begin_health(self) -> None:
        """Say SERVING if requests can be answered, or if there is nothing yet that they could ask for.

        Else the first version that becomes available says it. Who is asked for models and has none would otherwise be
        taken for ready, and a rolling update would end the servers that have them.
        """
        # In this order: a version that becomes available meanwhile is seen here, or by `_available`.
        self._has_looked = True
        if self.models.servables() or self._beginning.source.is_empty:
            self._health.set_serving(serving=True)
        else:
            logger.warning("NOT_SERVING until a model is available: none could be loaded")

    def _available(self, servable: Servable) -> None:
        """A version has become available. Health stays SERVING from then on, whatever fails later."""
        if self._has_looked:
            self._health.set_serving(serving=True)
        self._engines.join(servable)

    def drain(self, hurry: threading.Event) -> None:
        """Let clients turn away, then let work in flight finish.

        Args:
            hurry: when set, the wait for clients to turn away ends at once.
        """
        self._health.drain()
        logger.info("draining: NOT_SERVING, still answering for %.1f s", self._config.lame_duck_seconds)
        hurry.wait(self._config.lame_duck_seconds)
        self._end_streams()
        self._rpc.stop(self._config.grace_seconds, hurry)

    def stop(self) -> None:
        """End at once what `drain` has not ended, and free everything."""
        self._end_streams()
        self._rpc.stop(None)
        self._security.stop()
        if self._config_watcher is not None:
            self._config_watcher.stop()
        self._engines.stop()
        # Requests have had their time: what still runs answers nobody.
        self.models.stop(timeout=min(self._config.grace_seconds, _LAST_SECONDS))
        self._stop_metrics()
        self._stop_tracing()
        logger.info("stopped")

    def _serve_metrics(self, paths: Sequence[str]) -> int | None:
        """Serve the metrics, and the page for people, on a port of their own."""
        host, port = self._config.metrics_host or self._config.host, self._config.metrics_port
        if port < 0:
            return None
        try:
            bound, self._stop_metrics = self._metrics.serve(host, port, paths, status_page.routes(self._overview))
        except OSError as error:
            msg = f"cannot serve metrics on {host}:{port}: {error.strerror}. Choose another port with --metrics-port"
            raise ServerStartError(msg) from error
        return bound

    def _tell_of_metrics(self, host: str, port: int) -> None:
        """Say where they are, and if they are open to more than the operator may think."""
        logger.info("metrics on http://%s:%d/metrics", host, port)
        logger.info("status page on http://%s:%d/", host, port)
        if self._security.asks_who and not is_loopback(host):
            logger.warning(
                "the metrics and the status page on %s:%d ask nobody for a token or a certificate: "
                "--metrics-host 127.0.0.1 keeps them on this machine, a firewall within your network",
                *(host, port),
            )

    def _refused(self, peer: str) -> None:
        """Note a call without a valid token. What it called is for the caller to choose, so it is no label."""
        code = Code.UNAUTHENTICATED.name
        self._metrics.ended("", "", code)
        if self._config.log_requests != "off":
            logger.warning("call without a valid token", extra={"code": code, "peer": peer})

    def _end_streams(self) -> None:
        """End what would go on for as long as the clients like."""
        self._health.finish()
        self._reflection.finish()

    def _make_rpc_server(self) -> RpcServer:
        config = self._config
        rpc = RpcServer(connections.options(config))
        threads = config.request_threads
        share = max(1, threads * 3 // 4)  # the rest is left to other models
        models = Workers("model", threads, waiting=config.max_waiting_requests, share=share)
        status = Workers("status", _STATUS_THREADS, waiting=config.max_waiting_requests, paced=False)
        reload = Workers("reload", _RELOAD_THREADS, waiting=_RELOAD_THREADS, paced=False)
        self._metrics.watch_load(models.waiting, lambda: self._budget.held)
        edge = Edge(
            self._metrics,
            models,
            self._budget,
            may_answer_here=rpc.may_answer_here,
            watchers=self._watchers,
            gate=self._security.gate,
        )
        prediction = PredictionService(self.models, self._metrics, tensor_content=config.tensor_content)
        edge.add_predictor(PREDICTION, "Predict", prediction)
        edge.add_service(PREDICTION, prediction.methods(), status)
        inference = InferenceService(self.models, self._metrics)
        edge.add_service(PREDICTION, inference.methods(), models, lane_of=inference.model_of, weight=_EXAMPLE_WEIGHT)
        model = ModelService(self.models, self._metrics, self._reloader.apply if config.admin else None)
        edge.add_service(MODEL, {"GetModelStatus": model.get_model_status}, status)
        edge.add_service(MODEL, model.admin_methods(), reload, error_replies=model.error_replies())
        tell = partial(status_page.tell, self._overview)
        admin = AdminService(self.models, self._engines, self._metrics, tell, may_change=config.admin)
        edge.add_service(ADMIN, admin.methods(), status)
        edge.add_immediate(health.SERVICE, "Check", self._health.check)
        edge.add_watch(health.SERVICE, "Watch", self._health.watch)
        for service in reflection.SERVICES:
            edge.add_stream(service, reflection.METHOD, self._reflection.begin)
        rpc.begin_calls_with(edge.begin)
        return rpc

    def _bind(self) -> int:
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{host}:{self._config.port}"
        try:
            credentials = self._security.credentials
            if credentials is None:
                port = self._rpc.add_insecure_port(address)
            else:
                port = self._rpc.add_secure_port(address, credentials)
        except RuntimeError as error:
            msg = f"cannot listen on {address}: is another server running there? Choose another with --port"
            raise ServerStartError(msg) from error
        if self._config.socket is not None:
            self._bind_socket(self._config.socket.absolute())
        return port

    def _bind_socket(self, path: Path) -> None:
        """Listen on a Unix socket that only this user can open: that takes the place of TLS."""
        previous = os.umask(0o177)
        try:
            self._rpc.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            msg = f"cannot listen on the socket {path}: is its folder there, and writable?"
            raise ServerStartError(msg) from error
        finally:
            os.umask(previous)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ServerStartError(
                f"the socket {path} is open to others (mode {mode:03o}): its file system forgets modes"
            )


def _nothing() -> None:
    """It is off: nothing to stop."""


def _watchers(config: ServerConfig) -> tuple[list[Watcher], Callable[[], None]]:
    """Who is told of every request, nobody by default; and what ends them."""
    watchers: list[Watcher] = []
    stop = _nothing
    if config.otlp_endpoint:
        try:
            from server.tracing import Tracing  # noqa: PLC0415 - without traces none of it need be installed
        except ImportError as error:
            msg = f"--otlp-endpoint needs what is not installed ({error.name}): pip install 'segue-serving[traces]'"
            raise ServerStartError(msg) from error
        tracing = Tracing(config.otlp_endpoint)
        stop = tracing.stop
        watchers.append(tracing)
    if config.log_requests != "off":
        watchers.append(AccessLog(successes=config.log_requests == "all"))
    return watchers, stop


def run(config: ServerConfig, backends: Sequence[Backend] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; a second signal ends without waiting.

    Args:
        config: The settings.
        backends: See runtimes.engine_room.

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
    take_short_turns()
    try:
        server = Server(config, backends)
    except ServerStartError as error:
        logger.error("%s", error)  # noqa: TRY400 - the text says it all; a trace would bury it
        return 1
    freeze_what_is_there()
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
