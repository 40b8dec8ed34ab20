"""Tests of `server.admission`, with real threads and a clock that the test moves."""

import threading
from dataclasses import dataclass, field

import pytest

from server.admission import Budget, Pace, Workers
from server.errors import (
    CancelledInQueue,
    ExpiredInQueue,
    NoThread,
    QueueFull,
    SegueError,
    TooLate,
    TooManyBytes,
)
from tests.threads import no_threads

SECONDS = 20


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@dataclass(eq=False)
class Job:
    """Work that runs until it is let go, and tells what became of it."""

    deadline: float = float("inf")
    cancelled: bool = False
    name: str = ""
    log: list[str] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    error: SegueError | None = None

    is_typical: bool = True

    def run(self) -> bool:
        """See admission.Work."""
        self.log.append(self.name)
        self.began.set()
        assert self.go.wait(SECONDS)
        self.over.set()
        return self.is_typical

    def refuse(self, error: SegueError) -> None:
        """See admission.Work."""
        self.error = error
        self.over.set()


def done(**known: str) -> Job:
    """A job that ends as soon as it runs."""
    job = Job(**known)  # type: ignore[arg-type]  # a name is all that a caller gives
    job.go.set()
    return job


def test_requests_run_beside_each_other_up_to_the_threads() -> None:
    """So many are in work as there are threads; the next begins when one ends."""
    workers = Workers("test", 2, waiting=10)
    jobs = [Job() for _ in range(3)]
    for job in jobs:
        workers.submit("m", job)
    assert jobs[0].began.wait(SECONDS)
    assert jobs[1].began.wait(SECONDS)
    assert not jobs[2].began.is_set()
    assert workers.waiting() == 1
    jobs[1].go.set()
    assert jobs[2].began.wait(SECONDS)
    for job in jobs:
        job.go.set()
        assert job.over.wait(SECONDS)


def test_one_model_leaves_threads_to_others() -> None:
    """A model that is flooded holds no more than its share, and another's request runs at once."""
    workers = Workers("test", 3, waiting=10, share=2)
    flood = [Job() for _ in range(6)]
    for job in flood:
        workers.submit("busy", job)
    other = done()
    workers.submit("other", other)
    assert other.over.wait(SECONDS)
    assert flood[0].began.wait(SECONDS)
    assert flood[1].began.wait(SECONDS)
    assert not any(job.began.is_set() for job in flood[2:])
    for job in flood:
        job.go.set()
        assert job.over.wait(SECONDS)


def test_models_take_turns() -> None:
    """With all threads busy, what another model sent later does not wait for the whole queue of the first."""
    workers = Workers("test", 1, waiting=10, share=1)
    log: list[str] = []
    first = Job(name="a", log=log)
    workers.submit("a", first)
    assert first.began.wait(SECONDS)
    rest = [done(name="a"), done(name="a"), done(name="b")]
    for job in rest:
        job.log = log
        workers.submit(job.name, job)
    first.go.set()
    for job in rest:
        assert job.over.wait(SECONDS)
    assert log.index("b") <= 2


def test_a_full_queue_refuses() -> None:
    """What would wait beyond the bound is refused at once, and other models are not touched."""
    workers = Workers("test", 1, waiting=1)
    running = Job()
    workers.submit("m", running)
    assert running.began.wait(SECONDS)
    workers.submit("m", done())
    with pytest.raises(QueueFull, match=r"^The batch scheduling queue to which this task was submitted is full$"):
        workers.submit("m", done())
    workers.submit("other", done())
    running.go.set()


def test_what_nobody_waits_for_is_not_run() -> None:
    """A request whose deadline has passed in the queue, or whose client has gone, costs no run."""
    clock = Clock()
    workers = Workers("test", 1, waiting=10, clock=clock)
    running = Job()
    workers.submit("m", running)
    assert running.began.wait(SECONDS)
    expired, gone, last = Job(deadline=101.0), Job(cancelled=True), done()
    for job in (expired, gone, last):
        workers.submit("m", job)
    clock.now = 102.0
    running.go.set()
    assert last.over.wait(SECONDS)
    assert isinstance(expired.error, ExpiredInQueue)
    assert isinstance(gone.error, CancelledInQueue)
    assert not expired.began.is_set()
    assert not gone.began.is_set()


def answer(workers: Workers, clock: Clock, count: int) -> None:
    """Have so many requests for "m" answered one after the other, each in a second."""
    for _ in range(count):
        job = Job()
        workers.submit("m", job)
        assert job.began.wait(SECONDS)
        clock.now += 1.0
        job.go.set()
        assert job.over.wait(SECONDS)


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    """By the model's pace of a request each second, the fourth in the queue does not even wait if it has 2 s."""
    clock = Clock()
    workers = Workers("test", 1, waiting=100, clock=clock)
    answer(workers, clock, 20)
    queue = [Job() for _ in range(3)]
    for job in queue:
        workers.submit("m", job)
    with pytest.raises(TooLate, match="requests for m go first: it would take"):
        workers.submit("m", Job(deadline=clock.now + 2.0))
    patient = Job(deadline=clock.now + 60.0)
    workers.submit("m", patient)
    for job in (*queue, patient):
        job.go.set()
        assert job.over.wait(SECONDS)
    assert patient.error is None


def test_an_idle_model_refuses_nothing() -> None:
    """However short the deadline, a request that finds nobody before it is tried."""
    clock = Clock()
    workers = Workers("test", 1, waiting=1, clock=clock)
    job = done()
    job.deadline = clock.now + 1e-6
    workers.submit("m", job)
    assert job.over.wait(SECONDS)
    assert job.error is None


def test_work_that_fails_does_not_take_its_thread_along(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a request does, the next one has a thread."""

    class Broken(Job):
        def run(self) -> bool:
            raise RuntimeError("planted")

    workers = Workers("test", 1, waiting=10)
    workers.submit("m", Broken())
    job = done()
    workers.submit("m", job)
    assert job.over.wait(SECONDS)
    assert "a request ended without an answer" in caplog.text


def test_the_pace_counts_busy_time_only() -> None:
    """A model that nobody asks for an hour is not slow."""
    pace = Pace(0.0)
    now = 0.0
    for _ in range(20):
        pace.pass_to(now, busy=False)
        now += 0.1
        pace.pass_to(now, busy=True, done=1)
        now += 3600.0
    assert pace.seconds_for(10) == pytest.approx(1.0, rel=0.05)


def test_the_pace_follows_change() -> None:
    """What was long ago counts for little."""
    pace = Pace(0.0)
    now = 0.0
    for seconds in [0.01] * 1000 + [1.0] * 150:
        now += seconds
        pace.pass_to(now, busy=True, done=1)
    assert pace.seconds_for(1) == pytest.approx(1.0, rel=0.1)


def test_too_many_bytes_are_refused() -> None:
    """Requests together hold no more than the budget."""
    budget = Budget(100)
    budget.take(60)
    budget.take(40)
    with pytest.raises(TooManyBytes, match="requests in flight hold 100 of 100 bytes, and this one takes 1"):
        budget.take(1)
    budget.give_back(60)
    budget.take(60)
    assert budget.held == 100


def test_a_request_that_is_alone_may_be_larger_than_the_budget() -> None:
    """Else it could never be answered; what comes beside it must wait."""
    budget = Budget(100)
    budget.take(1000)
    budget.take(4000, own=1000)
    with pytest.raises(TooManyBytes):
        budget.take(1)
    budget.give_back(5000)
    assert budget.held == 0


def test_what_is_not_run_does_not_count_as_an_answer() -> None:
    """Requests that expire in the queue make no model look fast."""
    clock = Clock()
    workers = Workers("test", 1, waiting=100, clock=clock)
    answer(workers, clock, 40)
    running = Job()
    workers.submit("m", running)
    assert running.began.wait(SECONDS)
    gone = [Job(cancelled=True) for _ in range(50)]
    for job in gone:
        workers.submit("m", job)
    clock.now += 1.0
    running.go.set()
    assert all(job.over.wait(SECONDS) for job in gone)
    assert all(isinstance(job.error, CancelledInQueue) for job in gone)
    blocker = Job()
    workers.submit("m", blocker)
    assert blocker.began.wait(SECONDS)
    with pytest.raises(TooLate):
        workers.submit("m", Job(deadline=clock.now + 0.5))
    blocker.go.set()


def test_what_ended_before_its_run_does_not_count_as_an_answer() -> None:
    """Requests that were refused in the thread that would have run them make no model look fast."""
    clock = Clock()
    workers = Workers("test", 1, waiting=100, clock=clock)
    answer(workers, clock, 40)
    for _ in range(50):
        job = done()
        job.is_typical = False
        workers.submit("m", job)
        assert job.over.wait(SECONDS)
    blocker = Job()
    workers.submit("m", blocker)
    assert blocker.began.wait(SECONDS)
    with pytest.raises(TooLate):
        workers.submit("m", Job(deadline=clock.now + 0.5))
    blocker.go.set()


def test_without_a_thread_a_request_is_refused_and_leaves_nothing() -> None:
    """Its place is free again, and the next one is run when the system gives threads again."""
    workers = Workers("test", 1, waiting=1, share=1)
    for _ in range(3):
        with no_threads(), pytest.raises(NoThread, match="can start no thread"):
            workers.submit("m", Job())
    assert workers.waiting() == 0
    for _ in range(3):
        job = done()
        workers.submit("m", job)
        assert job.over.wait(SECONDS)
        assert job.error is None


def test_without_a_further_thread_those_that_there_are_go_on() -> None:
    """What is refused for want of a thread takes nothing from those that run, nor from those that wait."""
    workers = Workers("test", 2, waiting=4, share=1)
    running, waits, other = Job(), done(), Job()
    workers.submit("m", running)
    assert running.began.wait(SECONDS)
    workers.submit("m", waits)
    with no_threads(), pytest.raises(NoThread):
        workers.submit("other", other)
    assert workers.waiting() == 1
    running.go.set()
    assert waits.over.wait(SECONDS)
    other.go.set()
    workers.submit("other", other)
    assert other.over.wait(SECONDS)


def test_requests_that_one_run_answers_do_not_wait_for_one_another() -> None:
    """A pace of one at a time says nothing of a batch."""
    clock = Clock()
    workers = Workers("test", 1, waiting=100, clock=clock)
    for _ in range(10):
        job = Job()
        workers.submit("m", job, together=4)
        assert job.began.wait(SECONDS)
        clock.now += 1.0
        job.go.set()
        assert job.over.wait(SECONDS)
    running = Job()
    workers.submit("m", running, together=4)
    joined = [done() for _ in range(2)]
    for job in joined:
        job.deadline = clock.now + 1.5
        workers.submit("m", job, together=4)
    running.go.set()
    assert all(job.over.wait(SECONDS) for job in joined)


def test_workers_without_a_pace_refuse_nothing_for_its_sake() -> None:
    """A configuration that replaces one which takes long is not told to wait for it."""
    clock = Clock()
    workers = Workers("test", 1, waiting=10, paced=False, clock=clock)
    for _ in range(10):
        job = Job()
        workers.submit("", job)
        assert job.began.wait(SECONDS)
        clock.now += 20.0
        job.go.set()
        assert job.over.wait(SECONDS)
    running = Job()
    workers.submit("", running)
    urgent = done()
    urgent.deadline = clock.now + 1.0
    workers.submit("", urgent)
    running.go.set()
    assert urgent.over.wait(SECONDS)
    assert urgent.error is None
