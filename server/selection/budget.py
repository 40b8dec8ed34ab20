"""What may be spent: time on exploration, and switches. Only arithmetic; on what it is spent is decided elsewhere."""

REFILL = 0.0085  # of busy time; the promise is one hundredth, and a run may take longer than was expected of it
WHILE_OWING = 0.004
RUNS = 19.5  # the loan at the start, and what the purse holds, in runs of average length
DEBT = 0.5  # of a full purse: what one very slow run can leave owing
SWITCHES_AT_ONCE, SWITCHES_PER_HOUR, MOST_SWITCHES = 1.0, 3.5, 2.0  # per bucket; four an hour is what a person can read


class Restraint:
    """Switches that may be made, over all buckets. Where need is plain, a switch is made and owed.

    Only buckets that have batches earn any: a signature may have many that never do.

    Attributes:
        buckets: The most that had batches at a time; each brought a switch along.
        left: Switches; below 0 some are owed.
    """

    __slots__ = ("_seen", "buckets", "left")

    def __init__(self) -> None:
        self.buckets, self.left = 0, 0.0
        self._seen: float | None = None

    def allows(self, switches: int, now: float, busy: int) -> bool:
        """Whether so many are left, while so many buckets have batches."""
        if busy > self.buckets:
            self.left += SWITCHES_AT_ONCE * (busy - self.buckets)
            self.buckets = busy
        if self._seen is not None:
            self.left += SWITCHES_PER_HOUR * busy * (now - self._seen) / 3600
        self.left = min(self.left, MOST_SWITCHES * (busy + 1))
        self._seen = now
        return self.left >= switches

    def switched(self) -> None:
        """One was made."""
        self.left -= 1

    def proved_right(self) -> None:
        """One turned out well: it costs nothing, nor will the way back."""
        self.left += 2


class Budget:
    """Seconds that may be spent on exploration.

    The purse is filled by a share of all busy time and by a loan at the start, when everything has to be learnt and
    nothing has been earned. While the loan is not paid back, less is earned. The purse holds no more than the loan was.

    Attributes:
        busy: Seconds of all runs.
        explored: Seconds of runs made to learn.
        runs: How many.
        missing: Seconds that the purse lacks to be full, for what is full is found out in time.
        switches: That may be made.
    """

    __slots__ = ("busy", "explored", "missing", "runs", "switches")

    def __init__(self) -> None:
        self.busy = self.explored = self.missing = 0.0
        self.runs, self.switches = 0, Restraint()

    @property
    def full(self) -> float:
        """What a full purse holds, in seconds."""
        return RUNS * self.busy / self.runs if self.runs else 0.0

    @property
    def share(self) -> float:
        """Explored time over busy time, from 0 to 1."""
        return self.explored / self.busy if self.busy else 0.0

    def left(self, cost: float = 0.0) -> float:
        """How full the purse is after spending so many seconds: 1 is full, below 0 is owing."""
        full = self.full
        return 1 - (self.missing + cost) / full if full else 1.0

    def ran(self, seconds: float, *, exploring: bool) -> None:
        """A run ended."""
        self.busy += seconds
        self.runs += 1
        rate = REFILL if self.explored < REFILL * self.busy else WHILE_OWING
        missing = self.missing - rate * seconds
        if exploring:
            self.explored += seconds
            missing += seconds
        most = (1 + DEBT) * self.full
        self.missing = 0.0 if missing < 0 else min(missing, most)
