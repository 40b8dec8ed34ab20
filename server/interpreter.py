"""How the interpreter is kept from holding up requests. Nothing here knows what they are."""

import gc


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
