"""One signature's batches: which engine runs each, and what happens when it fails.

The choice itself is the policy's; here it is asked, told what came of it, and overruled by nobody.
"""

import itertools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from server import calls
from server.arrays import Array
from server.engines import choices
from server.engines.choices import Choices, Counts, SteppedIn, Switched
from server.engines.chooser import Chooser
from server.engines.engine import Engine
from server.engines.explained import Explanation, explained
from server.errors import LeftToOthers, RunFailed, SegueError
from server.histograms import Durations
from server.parity import are_finite
from server.selection.interface import Calibration, Failure, Outcome
from server.selection.states import State

logger = logging.getLogger("server")

# Until golden inputs that could not be read are read again: an outage ends within minutes, and a try reads the file.
_READ_AGAIN_SECONDS = 60.0

Clock = Callable[[], float]


def _tell_nobody(_news: Switched | SteppedIn) -> None:
    """Nobody wants to know."""


class Lane:
    """Runs the batches of one signature of one version."""

    def __init__(
        self,
        file: str,
        primary: Engine,
        *,
        buckets: Sequence[int],
        policy: Chooser | None = None,
        may_be_infinite: bool = False,
        clock: Clock = time.monotonic,
        tell: Callable[[Switched | SteppedIn], None] = _tell_nobody,
    ) -> None:
        """Make a lane.

        Args:
            file: The ONNX file of the signature.
            primary: The engine that is there from the start; its word holds where all fail.
            buckets: Increasing numbers of rows; a batch belongs to the first that holds it, or else to the last.
            policy: Chooses; None where there will never be another engine.
            may_be_infinite: TensorFlow itself answers golden inputs with NaN or infinity.
            clock: Seconds.
            tell: Is told of every switch, in the thread of the batch that is the first to go elsewhere, and of one
                failure a minute of each backend and kind, in the thread of the batch.
        """
        self.buckets = tuple(buckets)
        self.policy = policy
        self.durations: dict[tuple[str, int], Durations] = {}
        self.failures: Counter[tuple[str, str]] = Counter()
        """Runs that failed or were left to others, by backend and kind of failure; another answered the batch."""
        self.told = 0
        """Runs that the policy was told of: as long as it stays, `export` gives nothing new but ages."""
        self._choices = Choices()
        self._tell = tell
        self._file = file
        self._primary = primary
        self._engines = {primary.backend: primary}
        self._may_be_infinite = may_be_infinite
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._wish: Calibration | None = None
        self._read_again_at = -math.inf
        self._begun = 0
        self._running = 0
        if policy is not None:
            policy.backend_state(primary.backend, available=True, now=clock())

    def add(self, engine: Engine) -> None:
        """Let an engine take part."""
        with self._lock:
            if self.policy is not None:
                self.policy.backend_state(engine.backend, available=True, now=self._clock())
            self._engines[engine.backend] = engine

    def stage(self, backend: str, state: State, reason: str) -> None:
        """Say how far a backend is that takes no part yet, or why it never will."""
        if self.policy is not None:
            with self._lock:
                if backend not in self._engines:
                    self.policy.stage(backend, state, reason)

    def pin(self, order: Sequence[str] | None) -> None:
        """Prefer these engines, in this order; None lets the policy choose."""
        if self.policy is not None:
            with self._lock:
                self.policy.pin(order)

    def export(self) -> dict[str, Any]:
        """What the policy knows; empty without one."""
        if self.policy is None:
            return {}
        with self._lock:
            return self.policy.export(self._clock())

    def restore(self, data: object) -> None:
        """Let the policy know what it knew before.

        Raises:
            ValueError: That is not what `export` gives.
        """
        if self.policy is not None:
            with self._lock:
                self.policy.restore(data, self._clock())

    def explain(self) -> Explanation | None:
        """What the policy says of its choices; None without a policy."""
        if self.policy is None:
            return None
        with self._lock:
            now = self._clock()
            return explained(self.policy.snapshot(now), now)

    def counts(self) -> Counts:
        """What was counted so far."""
        runs = {key: durations.snapshot() for key, durations in tuple(self.durations.items())}
        with self._lock:
            chosen = self._choices
            return Counts(
                dict(chosen.selected),
                dict(chosen.switches),
                dict(self.failures),
                dict(chosen.seconds),
                runs,
            )

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer a batch; see LoadedGraph.run. A failure of one engine is another's turn."""
        bucket = self.bucket(feeds)
        if self.policy is None or not all(array.size for array in feeds.values()):
            # What is empty says nothing of how fast a backend is, and not every backend takes it.
            return self._run_unasked(bucket, feeds, outputs)
        with self._lock:
            self._begun += 1
            self._running += 1
        try:
            return self._choose_and_run(self.policy, bucket, feeds, outputs)
        finally:
            with self._lock:
                self._running -= 1

    def bucket(self, feeds: Mapping[str, Array]) -> int:
        """The bucket of a batch, by the first dimension of what it holds."""
        rows = max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
        return next((bucket for bucket in self.buckets if bucket >= rows), self.buckets[-1])

    def calibrate(self, feeds_of: Callable[[int], Mapping[str, Array] | None], outputs: Sequence[str]) -> bool:
        """Make a run that the policy wants to learn from, if it wants one and nothing else runs.

        Args:
            feeds_of: Golden inputs for a bucket; None if there are none of that size, nor will there be. Raises a
                SegueError if they cannot be read now: the policy's wish is kept, and tried again a minute later.
            outputs: All of the signature's.

        Returns:
            Whether a run was made, and nothing disturbed it, so that another may be wanted.
        """
        if self.policy is None:
            return False
        with self._lock:
            wanted, begun = self._wanted(self.policy), self._begun
        if wanted is None:
            return False
        try:
            feeds = feeds_of(wanted.bucket)
        except SegueError as error:
            self._read_later(error)
            return False
        self._read_again_at = -math.inf
        if feeds is None:
            with self._lock:
                self.policy.has_no_inputs(wanted.bucket)
                self._wish = None
            return False
        begin = time.perf_counter()
        failure = self._try(self._engines[wanted.backend], feeds, outputs)
        seconds = time.perf_counter() - begin
        with self._lock:
            self._choices.spent(wanted.backend, choices.CALIBRATE, seconds)
            alone = self._begun == begun
            if alone:  # a request beside it would have made it slow
                self._observe(wanted, seconds, failure)
            else:
                self.policy.disturbed(seconds)
            self._wish = None
        return alone

    def _wanted(self, policy: Chooser) -> Calibration | None:
        """What the policy waits for or wants next; None if that cannot be run now."""
        now = self._clock()
        if self._running or now < self._read_again_at:
            return None
        if self._wish is None:
            self._wish = policy.idle(now)
        return self._wish

    def _read_later(self, error: SegueError) -> None:
        if self._read_again_at == -math.inf:
            logger.warning(
                "golden inputs cannot be read, trying again every %d s: %s", _READ_AGAIN_SECONDS, error.message
            )
        self._read_again_at = self._clock() + _READ_AGAIN_SECONDS

    def _observe(self, wanted: Calibration, seconds: float, failure: Failure | None) -> None:
        assert self.policy is not None  # noqa: S101 - it has asked for the run
        self.policy.observe(Outcome(None, wanted.bucket, wanted.backend, seconds, failure), self._clock())
        self.told += 1

    def _try(self, engine: Engine, feeds: Mapping[str, Array], outputs: Sequence[str]) -> Failure | None:
        try:
            answers = engine.graphs[self._file].run(feeds, outputs)
        except LeftToOthers:
            return Failure.LEFT
        except SegueError:
            return Failure.ERROR
        except Exception:  # whatever a library raises is a failure, and the policy is told: else it asks for ever
            logger.exception("%s failed on golden inputs in a way that nobody foresaw", engine.backend)
            return Failure.ERROR
        return None if self._may_be_infinite or are_finite(answers) else Failure.NOT_FINITE

    def _run_unasked(self, bucket: int, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run on the first engine that takes the batch, without the policy."""
        try:
            return self._timed(self._primary, bucket, feeds, outputs)
        except LeftToOthers:
            with self._lock:
                others = [engine for engine in self._engines.values() if engine is not self._primary]
            for engine in others:
                with suppress(LeftToOthers):
                    return self._timed(engine, bucket, feeds, outputs)
            raise

    def _choose_and_run(
        self, policy: Chooser, bucket: int, feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> list[Array]:
        number = next(self._numbers)
        failed: dict[str, SegueError | list[Array]] = {}
        kinds: list[tuple[str, str]] = []
        try:
            while True:
                with self._lock:
                    if len(failed) == len(self._engines):
                        break
                    backend, exploring = policy.choose(bucket, self._clock(), tuple(failed))
                    engine = self._engines[backend]
                    switched = None
                    if not (failed or exploring) and self._choices.selected.get(bucket) != backend:
                        said = policy.snapshot(self._clock())["switches"]
                        switched = self._choices.move(bucket, backend, said)
                if switched is not None:
                    self._tell(switched)
                answers, error, failure, seconds = self._attempt(engine, bucket, feeds, outputs)
                with self._lock:
                    policy.observe(Outcome(number, bucket, backend, seconds, failure), self._clock())
                    self.told += 1
                    self._choices.spent(backend, choices.EXPLORE if exploring else choices.SERVE, seconds)
                    if failure is None:
                        self.failures.update(kinds)  # held against them only now that another has answered
                if failure is None:
                    self._tell_of(failed, kinds, bucket, backend)
                    return answers
                kinds.append((backend, failure.value))
                failed[backend] = error or answers
                del error
            return self._last_word(failed)
        finally:
            failed.clear()  # an error's traceback refers to this frame

    def _tell_of(
        self,
        failed: Mapping[str, SegueError | list[Array]],
        kinds: Sequence[tuple[str, str]],
        bucket: int,
        after: str,
    ) -> None:
        """Tell why backends did not answer a batch that another answered."""
        for backend, kind in kinds:
            with self._lock:
                is_news = self._choices.is_news(backend, kind, self._clock())
            if is_news:
                word = failed[backend]
                reason = word.message if isinstance(word, SegueError) else ""
                self._tell(SteppedIn(bucket, backend, after, kind, reason))

    def _attempt(
        self, engine: Engine, bucket: int, feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> tuple[list[Array], SegueError | None, Failure | None, float]:
        begin = time.perf_counter()
        try:
            answers = self._timed(engine, bucket, feeds, outputs)
        except LeftToOthers as error:
            return [], error, Failure.LEFT, time.perf_counter() - begin
        except SegueError as error:
            return [], error, Failure.ERROR, time.perf_counter() - begin
        except Exception as error:  # whatever a library raises, another backend may answer
            logger.exception("%s failed in a way that nobody foresaw", engine.backend)
            wrapped = RunFailed(f"{engine.backend} failed unexpectedly: {type(error).__name__}")
            return [], wrapped, Failure.ERROR, time.perf_counter() - begin
        seconds = time.perf_counter() - begin
        # Whoever asks with a NaN gets NaN from every engine.
        if self._may_be_infinite or are_finite(answers) or not are_finite(feeds.values()):
            return answers, None, None, seconds
        return answers, None, Failure.NOT_FINITE, seconds

    def _timed(self, engine: Engine, bucket: int, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        begin = calls.now()
        answers = engine.graphs[self._file].run(feeds, outputs)
        end = calls.now()
        durations = self.durations.get((engine.backend, bucket))
        if durations is None:
            durations = self.durations.setdefault((engine.backend, bucket), Durations())
        durations.observe(end - begin)
        if (call := calls.current()) is not None:
            call.run_on(engine.backend, bucket, (begin, end))
        return answers

    def _last_word(self, failed: Mapping[str, SegueError | list[Array]]) -> list[Array]:
        """What to say when every engine failed: what the primary says, or one that did not leave it to others."""
        word = failed[self._primary.backend]
        if isinstance(word, LeftToOthers):
            word = next((other for other in failed.values() if not isinstance(other, LeftToOthers)), word)
        try:
            if isinstance(word, SegueError):
                raise word
            return word
        finally:
            del word  # an error's traceback refers to this frame
