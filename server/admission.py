"""What may wait, and for how long: bounded queues by model, workers that take turns among them, bytes in flight.

A request that cannot be answered in time is refused when it comes, not when its time is up: an overloaded server then
spends itself on answers that somebody still waits for. Pure threads; the clock is passed in.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from server.errors import (
    CancelledInQueue,
    ExpiredInQueue,
    NoThread,
    QueueFull,
    SegueError,
    TooLate,
    TooManyBytes,
)

logger = logging.getLogger(__name__)

# A model's pace is that of about so many of its last answers; a few at least must be known.
_ANSWERS_COUNTED = 32
_ANSWERS_KNOWN = 5.0
# A pace is an estimate: whoever is let in on the last moment would often be too late.
_MARGIN = 1.2


class Work(Protocol):
    """A request that can be run once."""

    @property
    def deadline(self) -> float:
        """When nobody waits for it any more, by the clock; or infinity."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        ...

    def run(self) -> bool:
        """Do it, and answer; whether the time that it took is one that such requests take."""
        ...

    def refuse(self, error: SegueError) -> None:
        """Answer that it will not be done; called instead of `run`."""
        ...


class Pace:
    """How many answers a model gives in a second while it has something to do; old observations fade."""

    def __init__(self, now: float) -> None:
        self._done = 0.0
        self._busy = 0.0
        self._last = now

    def pass_to(self, now: float, *, busy: bool, done: int = 0) -> None:
        """Note the time since the last call, during all of which the model had something to do or had nothing."""
        if busy:
            self._busy += max(0.0, now - self._last)
        self._last = now
        for _ in range(done):
            self._busy *= 1 - 1 / _ANSWERS_COUNTED
            self._done = self._done * (1 - 1 / _ANSWERS_COUNTED) + 1

    def seconds_for(self, requests: int) -> float:
        """How long that many take, one after the other or beside each other as they have of late; 0 if unknown."""
        return requests * self._busy / self._done if self._done >= _ANSWERS_KNOWN else 0.0


@dataclass(slots=True)
class _Lane:
    """One model's requests."""

    pace: Pace
    waiting: deque[Work] = field(default_factory=deque)
    offered: int = 0
    """Those of `waiting` that a thread may take now; with those that run they are at most the model's share."""
    running: int = 0
    share: int = 0


class Workers:
    """Threads that run requests, turning from model to model so that none takes them all."""

    def __init__(
        self,
        name: str,
        threads: int,
        *,
        waiting: int,
        share: int = 0,
        paced: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make workers; threads are started when they are first needed.

        Args:
            name: Of the threads, for whoever looks at the process.
            threads: Requests in work at once.
            waiting: Requests of one model that may wait for a thread.
            share: Requests of one model in work at once; 0 is all.
            paced: Whether the pace of a model's last requests tells how long its next ones take.
            clock: Seconds, for deadlines.
        """
        self._name = name
        self._threads = threads
        self._most_waiting = waiting
        self._share = share or threads
        self._paced = paced
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._idle: list[threading.Lock] = []
        self._started = 0

    def submit(self, model: str, work: Work, at_once: int | None = None, together: int = 1) -> None:
        """Have a request run; returns at once.

        Args:
            model: Whose request it is: the name of one that is loaded, so that made-up names take no memory.
            work: What to run.
            at_once: Requests of that model that gain from being run beside each other; 0 is its share, None is what it
                was.
            together: Requests of that model that one run may answer.

        Raises:
            QueueFull: As many requests of that model wait as may.
            TooLate: By the model's pace its turn comes after its deadline.
            NoThread: It needs a thread, and none could be started.
        """
        with self._lock:
            now = self._clock()
            lane = self._lanes.get(model)
            if lane is None:
                lane = self._lanes[model] = _Lane(Pace(now))
            if at_once is not None or lane.share == 0:
                lane.share = min(at_once or self._share, self._share)
            self._admit(model, lane, work, now, together)
            lane.waiting.append(work)
            if not self._offer(lane):
                return
            sleeper = self._idle.pop() if self._idle else None
            if sleeper is None and self._started < self._threads:
                self._start_thread(lane)
        if sleeper is not None:
            sleeper.release()

    def waiting(self) -> int:
        """Requests that wait for a thread now."""
        with self._lock:
            return sum(len(lane.waiting) for lane in self._lanes.values())

    def _start_thread(self, lane: _Lane) -> None:
        """Start one more thread, or take back the request that was offered last. Called with the lock held."""
        name = f"{self._name}-{self._started + 1}"
        try:
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self._ready.pop()
            lane.offered -= 1
            lane.waiting.pop()
            raise NoThread("the server can start no thread for this request now") from error
        self._started += 1

    def _offer(self, lane: _Lane) -> bool:
        """Let a thread take one more of a model's requests, if its share allows it. Called with the lock held."""
        if len(lane.waiting) <= lane.offered or lane.offered + lane.running >= lane.share:
            return False
        lane.offered += 1
        self._ready.append(lane)
        return True

    def _admit(self, model: str, lane: _Lane, work: Work, now: float, together: int) -> None:
        """Refuse what would wait in vain. Called with the lock held."""
        lane.pace.pass_to(now, busy=lane.running > 0)
        if len(lane.waiting) >= self._most_waiting:
            raise QueueFull("The batch scheduling queue to which this task was submitted is full")
        ahead = lane.running + len(lane.waiting)
        # Those that one run may answer need not wait for one another, whatever the pace was when each came alone.
        needed = _MARGIN * lane.pace.seconds_for(ahead + 1) if self._paced and ahead >= together else 0.0
        if now + needed > work.deadline:
            raise TooLate(model, ahead, needed, work.deadline - now)

    def _serve(self) -> None:
        """What each thread does."""
        sleep = threading.Lock()
        sleep.acquire()
        while True:
            taken = self._take(sleep)
            if taken is None:
                sleep.acquire()  # until `submit` has something for a thread that sleeps
                continue
            lane, work = taken
            try:
                ran = self._run(work)
            except Exception:
                logger.exception("a request ended without an answer")
                ran = False
            del work, taken  # nothing of a request is kept while the thread sleeps
            self._finish(lane, ran=ran)

    def _run(self, work: Work) -> bool:
        """Run a request that somebody still waits for; returns whether that counts for the model's pace."""
        if work.cancelled:
            work.refuse(CancelledInQueue("the client has gone"))
        elif work.deadline <= self._clock():
            work.refuse(ExpiredInQueue("Run() timeout exceeded while waiting in batching queue"))
        else:
            return work.run()
        return False

    def _take(self, sleep: threading.Lock) -> tuple[_Lane, Work] | None:
        with self._lock:
            if not self._ready:
                self._idle.append(sleep)
                return None
            lane = self._ready.popleft()
            lane.pace.pass_to(self._clock(), busy=lane.running > 0)
            lane.offered -= 1
            lane.running += 1
            return lane, lane.waiting.popleft()

    def _finish(self, lane: _Lane, *, ran: bool) -> None:
        with self._lock:
            lane.pace.pass_to(self._clock(), busy=True, done=int(ran))
            lane.running -= 1
            self._offer(lane)  # this very thread takes it, or what is before it


class Budget:
    """Bytes that requests in flight may hold together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def take(self, size: int, *, own: int = 0) -> None:
        """Hold bytes until `give_back`. A request that is alone may hold more than there is, else it could never run.

        Args:
            size: How many.
            own: How many the same request holds already.

        Raises:
            TooManyBytes: Others hold too much.
        """
        with self._lock:
            others = self._held - own
            if others > 0 and self._held + size > self._most:
                msg = f"requests in flight hold {others} of {self._most} bytes, and this one takes {size + own}"
                raise TooManyBytes(msg)
            self._held += size

    def hold(self, size: int) -> None:
        """Hold bytes that are there already, such as an answer's: so that they count for those who come."""
        with self._lock:
            self._held += size

    def give_back(self, size: int) -> None:
        """End holding."""
        with self._lock:
            self._held -= size
