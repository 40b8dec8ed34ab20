"""What can go wrong with a conversion, named for the user's situation.

    ConversionError
    ├── UnloadableModel           TensorFlow or Keras cannot load the source
    │   ├── WeightsOnly           the file holds weights without a model
    │   └── UntrustedCode         the file holds Python code that loading would run
    ├── SignatureMissing          no such signature, or none at all
    ├── UnsupportedOperator       an operator without an ONNX form
    ├── ExportFailed              the exporter failed for another reason
    ├── InputsRejected            the model, or its signature, refuses the inputs
    ├── NondeterministicModel     two runs on one input differ
    ├── DiskFull                  no room for the result
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
        super().__init__(f"{cause} {advice}".strip())
        self.cause = cause
        self.advice = advice


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


class NondeterministicModel(ConversionError):
    """The model answers differently to the same input."""


class DiskFull(ConversionError):
    """There is no room for what the conversion writes."""


class WorkerFault(ConversionError):
    """The child process came to no ordinary end."""


class WorkerCrashed(WorkerFault):
    """The child process died, or ended without a result."""


class WorkerTimedOut(WorkerFault):
    """The child process used more wall or processor time than it may."""


class WorkerOutOfMemory(WorkerFault):
    """The child process needed more memory than it may use, or than there is."""
