"""The form of an overview: what /status.json holds. Data alone; `overview` fills it in.

Times are seconds, moments are seconds since 1970. Fields are added; a change of meaning has another SCHEMA.
"""

from dataclasses import dataclass

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer begins with.

    Attributes:
        schema: The number of this form.
        release: Of the server.
        started: When the server was made.
        now: When this was told.
    """

    schema: int
    release: str
    started: float
    now: float


@dataclass(frozen=True, slots=True)
class Version:
    """One version: its state by TensorFlow Serving's name, and the error that has ended it, if one has."""

    version: int
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A model in the list.

    Attributes:
        name: Of the model.
        versions: The highest ones.
        versions_in_all: How many there are.
        pinned: The backends that an operator prefers, in order.
    """

    name: str
    versions: tuple[Version, ...]
    versions_in_all: int
    pinned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Some of the models, by name.

    Attributes:
        head: See Head.
        in_all: How many models there are.
        found: How many of them have what was looked for in their names.
        offset: How many of the found come before these.
        models: These.
    """

    head: Head
    in_all: int
    found: int
    offset: int
    models: tuple[ModelLine, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference from TensorFlow's golden answers that was measured on this machine, for one output."""

    signature: str
    output: str
    max_absolute: float
    max_relative: float


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend that might answer for the version.

    Attributes:
        name: Of the backend.
        stage: waiting, preparing, proving, eligible or rejected.
        reason: Why it is no further.
        precision: What it computes in; empty before it is loaded.
        seconds: What preparing, loading and proving took.
        proofs: By output.
        worst: The largest of their absolute differences; None without any.
    """

    name: str
    stage: str
    reason: str
    precision: str
    seconds: float
    proofs: tuple[Difference, ...]
    worst: float | None


@dataclass(frozen=True, slots=True)
class Runs:
    """A backend in a bucket.

    Attributes:
        backend: Its name.
        state: The policy's word; "serving" where there is no policy.
        reason: Why, in words.
        count: Runs of requests' batches that answered, since the version was loaded.
        p05: The 5th percentile of how long they took; this and the others are None if there were none.
        p50: The median.
        p95: The 95th percentile.
        mean: The mean.
        recent: What the policy expects of the next run.
        samples: Runs that this rests on, calibrations included.
        last_seen: When it ran last, as far as the policy knows.
    """

    backend: str
    state: str
    reason: str
    count: int
    p05: float | None
    p50: float | None
    p95: float | None
    mean: float | None
    recent: float | None
    samples: int
    last_seen: float | None


@dataclass(frozen=True, slots=True)
class Absent:
    """A backend that takes no part in a bucket: its state, such as "building", "proving" or "rejected", and why."""

    backend: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """Batches of similar size.

    Attributes:
        rows: The batch size that names the bucket.
        least: Rows of its smallest batch.
        most: Rows of its largest; None for the last bucket, which has no end.
        selected: The backend that serves.
        next_best: The quickest of the others that may serve; empty if there is none to compare with.
        gain: The share of next_best's time that is saved; below zero if next_best looks quicker.
        backends: All that take part.
        absent: Those that do not: not yet, or never.
    """

    rows: int
    least: int
    most: int | None
    selected: str
    next_best: str
    gain: float | None
    backends: tuple[Runs, ...]
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Runs that failed, of one backend and kind; another backend then had the batch, or none."""

    backend: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature: the buckets of which something is known, and how many more there are than are listed."""

    name: str
    buckets: tuple[Bucket, ...]
    buckets_left_out: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A switch from one backend to another.

    Attributes:
        at: When.
        signature: Of which signature.
        rows: The batch size that names the bucket.
        before: The backend that had served.
        after: The backend that serves since.
        reason: In words, with figures.
    """

    at: float
    signature: str
    rows: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model in detail.

    Attributes:
        head: See Head.
        name: Of the model.
        versions: The highest ones.
        versions_in_all: How many there are.
        pinned: The backends that an operator prefers, in order.
        version: The version that the rest is about; None if none is available.
        backends: All that were thought of for it.
        signatures: Its signatures, by name.
        signatures_left_out: How many more there are.
        decisions: The last switches, the newest first.
    """

    head: Head
    name: str
    versions: tuple[Version, ...]
    versions_in_all: int
    pinned: tuple[str, ...]
    version: int | None = None
    backends: tuple[Backend, ...] = ()
    signatures: tuple[Signature, ...] = ()
    signatures_left_out: int = 0
    decisions: tuple[Decision, ...] = ()
