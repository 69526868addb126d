"""CPU time and memory of processes, against what they say of themselves."""

from __future__ import annotations

import os
import threading
import time

from bench.parts.usage import cpu_ns, memory_mib


def test_cpu_time_is_that_of_all_threads_and_agrees_with_the_processs_own_clock() -> None:
    worked, end = threading.Event(), threading.Event()

    def work() -> None:
        until_s = time.thread_time() + 0.05
        while time.thread_time() < until_s:
            pass
        worked.set()
        end.wait()

    before_ns, own_ns = cpu_ns([os.getpid()]), time.process_time_ns()
    thread = threading.Thread(target=work)
    thread.start()
    worked.wait()
    used_ns, own_used_ns = cpu_ns([os.getpid()]) - before_ns, time.process_time_ns() - own_ns
    end.set()
    thread.join()
    assert used_ns >= 45_000_000
    # A thread that runs is charged at the tick.
    assert abs(used_ns - own_used_ns) < 15_000_000


def test_memory_grows_by_what_is_written() -> None:
    before_mib = memory_mib([os.getpid()])
    written = bytearray(b"x") * (32 << 20)
    assert 30 < memory_mib([os.getpid()]) - before_mib < 40, len(written)
