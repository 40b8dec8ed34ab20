"""How the interpreter is kept from holding up requests. Nothing here knows what they are."""

import gc
import sys

# Python's default is ten times that.
_TURN_SECONDS = 0.0005


def take_short_turns() -> None:
    """Have a thread that computes in Python give up the interpreter's lock early to one that waits for it.

    Whoever answers a request takes the lock a dozen times. Beside a thread that loads a model, each time may last as
    long as a turn: with turns of 5 ms a thread that wanted to run every millisecond waited up to 11 ms while OpenVINO
    loaded ViT-Base, with these 4 ms. Requests at full load were as many as before.
    """
    sys.setswitchinterval(_TURN_SECONDS)


def freeze_what_is_there() -> int:
    """Have the garbage collector leave alone whatever exists now, which is there for as long as the process.

    Call it when everything is imported and nothing is in work. Each full collection looks through all objects while it
    holds the interpreter's lock: through the 60,000 of a server's modules it took 40 ms (2 cores AMD EPYC), and with it
    every request that came meanwhile. What is made later is collected as ever.

    Returns:
        How many objects that is.
    """
    gc.collect()
    gc.freeze()
    return gc.get_freeze_count()
