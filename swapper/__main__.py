"""Where the `swapper` command begins, as a script of that name and as `python -m swapper`."""

from __future__ import annotations

import signal
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Import the command line and run it; an interrupt (SIGINT) meanwhile ends the process without a traceback."""
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where whoever started it ignores it
    if raises:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from swapper import cli  # a tenth of a second, in which nothing of the command has begun

    if raises:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
