"""A contender for tests: each request takes a millisecond."""

import time

from benchmarks.turns import take_turns

if __name__ == "__main__":
    take_turns(lambda _: time.sleep(0.001))
