"""The one tree of errors. They name the user's situation and know nothing of gRPC: services/statuses.py has the codes.

SegueError
  x InvalidRequest            the client sent something that cannot be answered, and could have known
    - MalformedRequest        the bytes are not the message that the method takes
    - MalformedTensor         one tensor of the message cannot be read
    - UnreadableText          a string is not text, and the runtime takes nothing else
  - MalformedResponse         the bytes that a server answered with are no PredictResponse
  x Overloaded                the server has no room for the request now
    - ExpiredInQueue          the request's time was over before its turn
    - CancelledInQueue        its client went away before its turn
    - QueueFull               as many requests wait as may
    - TooLate                 the answer would come after the request's deadline
    - NoThread                the system gives no thread that could do it
    - TooManyWatchers         as many streams watch the server's health as may
    - TooManyBytes            the requests in flight hold as much memory as they may
  x NotServed                 what was asked for is not here
    - ModelNotFound           no such model, or no such version of it
    - StatusNotFound          no such model or version has ever been seen
    - UnknownService          health was asked of a service that is not here
    - LabelPending            the label's version is still being loaded, at the start
  - LabelUnavailable          a new configuration gives a label to a version that does not serve
  x ReloadIncomplete          a new configuration is in force, but its models are not all there
    - ModelsUnavailable       some of them did not load
    - ReloadOverdue           they are still being loaded at the caller's deadline
    - ReloadSuperseded        another configuration has left them out, or the server is ending
  - SignatureNotFound         the model has no signature of that name
  - MethodUnsupported         the request asks for a kind of inference that there is not
  x PackageError              a model package, or the repository that holds packages, cannot be used
    - DamagedPackage          a version folder is incomplete, altered or not a package
    - InvalidName             a model name that cannot be a folder
    - NameLocked              another process is publishing under the same name
    - RepositoryUnwritable    the disk is full, or the folder may not be written to
    - FolderTaken             something else is where a result belongs, or it cannot be written there
  x BackendError              a runtime refused
    - GraphNotLoadable        the ONNX file does not load
    - GraphNotLowerable       the ONNX graph has no faithful form as a PyTorch module
    - RunFailed               the runtime failed on an input that passed every check of ours
    - WrongRows               what the runtime answered to a batch has not one row for each of the batch's
    - LeftToOthers            the runtime is well, but this input is not for it: another one may answer
    - OutOfMemory             the runtime could not allocate what the request needs
    - ProofFailed             the runtime's answers differ from TensorFlow's
"""


class SegueError(Exception):
    """Base of every error that Segue raises on purpose. Only leaves are raised."""

    def __init__(self, message: str) -> None:
        if type(self) in {SegueError, Overloaded, NotServed, ReloadIncomplete, PackageError, BackendError}:
            msg = f"{type(self).__name__} is abstract: raise one of its leaves"
            raise TypeError(msg)
        super().__init__(message)
        self.message = message


class InvalidRequest(SegueError):
    """The request cannot be answered as it is; the text says which part and what was expected."""


class MalformedRequest(InvalidRequest):
    """The bytes do not parse as the message of the method; `reason` says what about them is wrong."""

    def __init__(self, reason: str, message: str = "PredictRequest") -> None:
        super().__init__(f"the request is not a {message}: {reason}")
        self.reason = reason


class MalformedTensor(InvalidRequest):
    """A tensor does not hold what its dtype and shape claim.

    `message` is TensorFlow's text, for clients; str() adds the reason, for logs. `alias` is empty while the tensor is
    not known by one.
    """

    def __init__(self, alias: str, reason: str) -> None:
        super().__init__(f"tensor parsing error: {alias}")
        self.args = (f"{self.message} ({reason})",)
        self.alias = alias
        self.reason = reason


class UnreadableText(InvalidRequest):
    """A string of an input is not UTF-8. `name` is the input's: a backend's own, until who knows better says so."""

    def __init__(self, name: str, runtime: str) -> None:
        super().__init__(f"input {name!r} holds a string that is not UTF-8, which {runtime} cannot take")
        self.name = name
        self.runtime = runtime


class Overloaded(SegueError):
    """The server has no room for the request now."""


class ExpiredInQueue(Overloaded):
    """The request's time was over before its turn."""


class CancelledInQueue(Overloaded):
    """The request's client went away before its turn."""


class QueueFull(Overloaded):
    """As many requests wait as may; another server, or a moment later, may do."""


class TooLate(Overloaded):
    """By what was seen of late the answer would come after the request's deadline; refused at once."""

    def __init__(self, model: str, ahead: int, needed: float, left: float) -> None:
        """Make one.

        Args:
            model: Its name.
            ahead: Requests that go first.
            needed: Seconds until the answer.
            left: Seconds until the deadline.
        """
        super().__init__(
            f"{ahead} requests for {model} go first: it would take {needed:.3f} s, and {max(0.0, left):.3f} s are left"
        )


class NoThread(Overloaded):
    """The system gives no thread that could do it: the process, its user or its container has as many as it may."""


class TooManyWatchers(Overloaded):
    """As many streams watch this server's health as may."""


class TooManyBytes(Overloaded):
    """The requests in flight hold as much memory as they may."""


class MalformedResponse(SegueError):
    """The bytes that a server answered with are no PredictResponse; `reason` says what about them is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server's answer is not a PredictResponse: {reason}")
        self.reason = reason


class NotServed(SegueError):
    """What was asked for is not here."""


class ModelNotFound(NotServed):
    """No such model, or no such version of it, is available."""


class StatusNotFound(NotServed):
    """GetModelStatus asked for a model or version that this server has never seen."""


class UnknownService(NotServed):
    """Health was asked of a service that this server does not have."""


class LabelPending(NotServed):
    """The label is configured, and its version is being loaded since the server started."""


class LabelUnavailable(SegueError):
    """A new configuration assigns a label to a version that is not available; nothing was changed."""


class ReloadIncomplete(SegueError):
    """A new configuration is in force, but the models that are new in it are not all available."""


class ModelsUnavailable(ReloadIncomplete):
    """Some of the new models did not load; the text says which versions and why."""


class ReloadOverdue(ReloadIncomplete):
    """The caller's deadline came before the new models were available; they go on loading."""


class ReloadSuperseded(ReloadIncomplete):
    """Another configuration left out models before they were available, or the server ends."""


class SignatureNotFound(SegueError):
    """The model has no signature of that name."""


class MethodUnsupported(SegueError):
    """The request asks for a kind of inference that there is not."""


class PackageError(SegueError):
    """A model package or the repository cannot be used.

    Where the user can do something about it, `advice` says what, and str() has both.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.args = (f"{message} {advice}".rstrip(),)
        self.advice = advice


class DamagedPackage(PackageError):
    """A version folder is incomplete, altered or not a package."""


class InvalidName(PackageError):
    """A model name that cannot be a folder of the repository."""


class NameLocked(PackageError):
    """Another process is publishing under the same name."""


class RepositoryUnwritable(PackageError):
    """The disk is full, or the repository may not be written to."""


class FolderTaken(PackageError):
    """The folder that a package shall be written to holds something else, or cannot be written."""


class BackendError(SegueError):
    """A runtime refused."""


class GraphNotLoadable(BackendError):
    """The ONNX file does not load in the runtime."""


class GraphNotLowerable(BackendError):
    """The ONNX graph has no form as a PyTorch module that would certainly give the same numbers.

    The text names the operator, its node, the reason and what to do. `operator` and `node` are empty where the graph as
    a whole is refused.
    """

    def __init__(self, operator: str, node: str, reason: str) -> None:
        place = f"{operator} (node {node!r}): " if operator else ""
        super().__init__(f"{place}{reason}. The model can be served with ONNX Runtime, which the proof already covers.")
        self.operator = operator
        self.node = node
        self.reason = reason


class RunFailed(BackendError):
    """The runtime failed on an input that passed every check of ours."""


class WrongRows(BackendError):
    """A batch's answer has not one row for each row of the batch, so nobody knows which are whose."""


class LeftToOthers(BackendError):
    """A backend does not take this input, on purpose and before it computes anything: another may answer.

    It is no failure and nothing is wrong. Where no other backend answers, a client gets this text.
    """


class OutOfMemory(BackendError):
    """The runtime could not allocate what the request needs."""


class ProofFailed(BackendError):
    """The runtime's answers to the golden inputs differ from TensorFlow's."""
