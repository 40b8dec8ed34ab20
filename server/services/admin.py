"""segue.Admin: what is served by which backends and why, and an operator's say in it."""

from collections.abc import Callable, Sequence

from protos.segue import admin_pb2
from server.backends.interface import Precision
from server.errors import InvalidRequest
from server.lifecycle.engine_room import EngineRoom
from server.lifecycle.manager import ModelManager
from server.metrics import Metrics
from server.services.edge import Method
from server.services.statuses import parse
from server.services.transport import Rpc

Tell = Callable[[str], str]
"""What there is to say of a model as JSON, or of all for an empty name; raises StatusNotFound for an unknown one."""


class AdminService:
    """The methods of one server."""

    def __init__(
        self, models: ModelManager, engines: EngineRoom, metrics: Metrics, tell: Tell, *, may_change: bool
    ) -> None:
        """Make the service.

        Args:
            models: What is served.
            engines: The backends.
            metrics: Counts how requests end.
            tell: Tells what there is to say.
            may_change: Whether those who call may change anything.
        """
        self._models = models
        self._engines = engines
        self._metrics = metrics
        self._tell = tell
        self._may_change = may_change

    def methods(self) -> dict[str, Method]:
        """Methods by their names in the service."""
        changing: dict[str, Method] = {"SetBackends": self.set_backends} if self._may_change else {}
        return {"GetOverview": self.get_overview, **changing}

    def get_overview(self, data: bytes, _rpc: Rpc) -> bytes:
        """Answer with what the status page shows."""
        request = parse(admin_pb2.GetOverviewRequest, data)
        reply = admin_pb2.GetOverviewReply(json=self._tell(request.model))
        self._metrics.ended("GetOverview", request.model, "OK")  # a model of which there is something to say is known
        return reply.SerializeToString()

    def set_backends(self, data: bytes, _rpc: Rpc) -> bytes:
        """Prefer backends for a model, or let the server choose."""
        request = parse(admin_pb2.SetBackendsRequest, data)
        if request.model not in self._models.names():
            self._models.statuses(request.model)  # raises, with the text for an unknown model
        order = tuple(dict.fromkeys(request.backends))
        self._check_precisions(request.model, order)
        known = [backend.name for backend in self._engines.backends]
        if unknown := [name for name in order if name not in known]:
            raise InvalidRequest(f"this server has no backend {unknown[0]!r}; it has {', '.join(known)}")
        before = self._engines.pinned(request.model)
        self._engines.pin(request.model, order)
        self._metrics.ended("SetBackends", request.model, "OK")
        return admin_pb2.SetBackendsReply(before=before).SerializeToString()

    def _check_precisions(self, model: str, order: Sequence[str]) -> None:
        """Raise InvalidRequest if a backend computes in what the operator has not allowed for a model.

        Where no model may use a precision no backend has it: then the end of the name tells it.
        """
        known = {backend.name: backend.precision for backend in self._engines.backends}
        for name in order:
            base, _, word = name.rpartition("-")
            precision = known.get(name) or (Precision(word) if base in known and word in set(Precision) else None)
            if precision is not None and not self._engines.allows(model, precision):
                allowed = ", ".join(each for each in Precision if self._engines.allows(model, each))
                raise InvalidRequest(
                    f"model {model} may not be computed in {precision}, as {name} does; it may in {allowed}. "
                    f"To allow it, set {model}={precision} in the server's --precision"
                )
