"""Segue's errors: one tree, named for the situation the user is in.

    SegueError
    ├── InvalidRequest          the caller sent something that can never be answered
    │   ├── MalformedRequest    the bytes are no PredictRequest
    │   └── MalformedTensor     one tensor of the request does not hold what it claims
    └── MalformedResponse       the bytes that a server answered with are no PredictResponse

They know nothing of gRPC: which status code and text a client gets is decided in `server.services` alone.
"""


class SegueError(Exception):
    """Whatever Segue itself finds wrong. Always raised as one of its subclasses."""

    def __init__(self, *args: object) -> None:
        if type(self) is SegueError:
            raise TypeError("SegueError names no situation: raise one of its subclasses")
        super().__init__(*args)


class InvalidRequest(SegueError):  # noqa: N818 - errors are named for the user's situation
    """The caller sent something that can never be answered; sending it again will not help."""


class MalformedRequest(InvalidRequest):
    """The bytes are no PredictRequest.

    Attributes:
        reason: What about them is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a PredictRequest: {reason}")
        self.reason = reason


class MalformedTensor(InvalidRequest):
    """One tensor does not hold what it claims to hold.

    Attributes:
        alias: The signature's name of the tensor; "" where the tensor has none.
        reason: What about it is wrong.
    """

    def __init__(self, alias: str, reason: str) -> None:
        super().__init__(f"tensor {alias!r}: {reason}")
        self.alias = alias
        self.reason = reason


class MalformedResponse(SegueError):  # noqa: N818 - errors are named for the user's situation
    """The bytes that a server answered with are no PredictResponse.

    Attributes:
        reason: What about them is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a PredictResponse: {reason}")
        self.reason = reason
