"""Running a batch: joined and filled up, and where that fails, request by request. Knows nothing of who waits."""

from collections.abc import Callable, Mapping, Sequence

from server import calls
from server.arrays import Array
from server.batching import joining
from server.batching.parameters import BatchingParameters
from server.batching.waiting import Waiting
from server.errors import OutOfMemory, SegueError, WrongRows

Run = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]


class Runner:
    """Runs the batches of one signature."""

    def __init__(self, run: Run, parameters: BatchingParameters, clock: Callable[[], float]) -> None:
        """Make a runner; arguments as for Batcher."""
        self._run = run
        self._parameters = parameters
        self._clock = clock

    def size(self, rows: int) -> int:
        """How many rows are run for so many; none for none, since there would be nothing to fill up with."""
        return self._parameters.padded(rows) if rows else 0

    def filled_up(self, feeds: Mapping[str, Array], outputs: Sequence[str], rows: int) -> list[Array]:
        """One request's answer, run with rows added up to the next allowed size.

        Raises:
            SegueError: What the run raised.
        """
        return [answer[:rows] for answer in self._run_rows([feeds], outputs, self.size(rows))]

    def answer(self, batch: Sequence[Waiting], first: Waiting) -> tuple[int, int, bool]:
        """Run a batch; if that fails, each request by itself. Returns the batch's rows and padding, and if it failed.

        All but the first request, whose thread this is, are woken.
        """
        started = calls.now()
        for item in batch:
            item.started = started
        rows = [item.rows for item in batch]
        total = sum(rows)
        size = self.size(total)
        try:
            answers = self._run_rows([item.feeds for item in batch], batch[0].outputs, size)
        except SegueError as error:
            self._answer_alone(batch, first, error)
            return total, size - total, True
        ran = _last_run()
        for item, answer in zip(batch, joining.split(answers, rows), strict=True):
            item.ran = ran
            item.succeed(answer)
        for item in batch:
            if item is not first:
                item.tell()
        return total, size - total, False

    def _answer_alone(self, batch: Sequence[Waiting], first: Waiting, error: SegueError) -> None:
        """After a batch has failed: find out which request is at fault.

        No local name may keep an error that is raised here: its traceback refers to this frame.
        """
        for item in batch:
            if len(batch) == 1:
                item.fail(error)
            elif gone := item.gone(self._clock()):
                item.fail(gone)
            else:
                try:
                    item.succeed(self.filled_up(item.feeds, item.outputs, item.rows))
                    item.ran = _last_run()
                except SegueError as own:
                    item.fail(own)
            if item is not first:
                item.tell()

    def _run_rows(self, requests: Sequence[Mapping[str, Array]], outputs: Sequence[str], rows: int) -> list[Array]:
        try:
            feeds = joining.join(requests, rows)
            answers = self._run(feeds, outputs)
        except MemoryError as error:
            raise OutOfMemory(f"no memory for a batch of {rows} rows: {error}") from error
        check_rows(answers, rows)
        return answers


def check_rows(answers: Sequence[Array], rows: int) -> None:
    """Refuse an answer that has not so many rows, also to one request: what it gets is no matter of who is with it.

    Raises:
        WrongRows: With the texts of TensorFlow Serving's batching_session.cc.
    """
    for answer in answers:
        if answer.ndim == 0:
            raise WrongRows("Batched output tensor has 0 dimensions")
        if len(answer) != rows:
            raise WrongRows(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors"
            )


def _last_run() -> calls.Run | None:
    """What the run that has just ended in this thread has noted; its thread works on the batch's first request."""
    call = calls.current()
    return call.last_run if call is not None else None
