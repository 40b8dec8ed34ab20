"""`python -m converter`, and the console script: the command line, quiet when it is interrupted before it has begun."""

import signal


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to clean up yet, so Ctrl-C just ends us
    from converter import cli  # noqa: PLC0415 - see above

    cli.main()


if __name__ == "__main__":
    main()
