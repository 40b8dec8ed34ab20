"""What can go wrong with a conversion, named for the user's situation.

    ConversionError
    ├── NotAModel                 nothing at the path that could be converted
    ├── UnloadableModel           TensorFlow or Keras cannot load the source
    │   ├── WeightsOnly           the file holds weights without a model
    │   └── UntrustedCode         the file holds Python code that loading would run
    ├── SignatureMissing          no such signature, or none at all
    ├── UnsupportedOperator       an operator without an ONNX form
    ├── ExportFailed              the exporter failed for another reason
    ├── InputsRejected            the model, or its signature, refuses the inputs
    │   └── DamagedWarmup         the requests that the model brings along cannot be read
    ├── NondeterministicModel     two runs on one input differ
    ├── InvalidExport             what was exported is not valid ONNX, or ONNX Runtime does not load it
    ├── OutputsDiffer             ONNX Runtime's answers are not TensorFlow's
    ├── NotDeployed               published, but the server does not serve it as it should
    ├── PackageMissing            no such model, or version, in the repository
    ├── TorchMissing              the PyTorch path is not installed
    ├── DiskFull                  no room for the result
    ├── ServerRefused             the server cannot be reached, or does not do what it is asked to
    └── WorkerFault               the child process came to no ordinary end
        ├── WorkerCrashed
        ├── WorkerTimedOut
        └── WorkerOutOfMemory

Nothing here knows of exit codes or of how errors are shown: the command line decides that.
"""


class ConversionError(Exception):
    """A conversion that cannot go on; use a subclass.

    Attributes:
        cause: What is wrong, in a sentence or two.
        advice: What the user can do about it.
    """

    def __init__(self, cause: str, advice: str) -> None:
        complete = cause.endswith(".") or "\n" in cause
        self.cause = cause if complete else f"{cause}."  # some end in the words of others
        self.advice = advice
        super().__init__(f"{self.cause} {advice}".strip())


class NotAModel(ConversionError):
    """There is nothing at the path that could be converted."""


class UnloadableModel(ConversionError):
    """TensorFlow or Keras cannot load the source."""


class WeightsOnly(UnloadableModel):
    """The file holds weights without the model that they belong to."""


class UntrustedCode(UnloadableModel):
    """The file holds Python code, which loading would run."""


class SignatureMissing(ConversionError):
    """The model has no signature of that name, or none at all."""


class UnsupportedOperator(ConversionError):
    """The graph uses operators that have no ONNX form."""


class ExportFailed(ConversionError):
    """The exporter failed for a reason other than an unknown operator."""


class InputsRejected(ConversionError):
    """The model refuses the inputs, or they do not fit its signature."""


class DamagedWarmup(InputsRejected):
    """The requests that a SavedModel brings along for warming up cannot be read."""


class NondeterministicModel(ConversionError):
    """The model answers differently to the same input."""


class InvalidExport(ConversionError):
    """What was exported is not valid ONNX, or ONNX Runtime does not load it."""

    def __init__(self, where: str, complaint: str) -> None:
        super().__init__(
            f"The exported graph does not pass {where}: {complaint}",
            "The exporter wrote something that no runtime takes. Please report it, with the operator that it names; "
            "other signatures may be convertible (--signature).",
        )


class OutputsDiffer(ConversionError):
    """ONNX Runtime's answers are not TensorFlow's."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            cause,
            "Nothing was published. If the inputs were random, try representative ones (--inputs FILE.npz); if the "
            "difference is acceptable for this model, allow it with --atol and --rtol.",
        )


class NotDeployed(ConversionError):
    """The package is published, but the server does not serve it as it should."""


class PackageMissing(ConversionError):
    """The repository has no such model, or no such version of it."""


class TorchMissing(ConversionError):
    """The optional packages of the PyTorch path are not installed."""


class DiskFull(ConversionError):
    """There is no room for what the conversion writes."""


class ServerRefused(ConversionError):
    """The server cannot be reached, or does not do what it is asked to."""


class WorkerFault(ConversionError):
    """The child process came to no ordinary end."""


class WorkerCrashed(WorkerFault):
    """The child process died, or ended without a result."""


class WorkerTimedOut(WorkerFault):
    """The child process used more wall or processor time than it may."""


class WorkerOutOfMemory(WorkerFault):
    """The child process needed more memory than it may use, or than there is."""
