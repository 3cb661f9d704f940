"""Native threads: how they are counted, and what they mean for jobs."""

from __future__ import annotations

import os

import pytest

NATIVE = """
import ctypes

library = ctypes.CDLL(None)
for _ in range(COUNT):
    library.pthread_create(ctypes.byref(ctypes.c_ulong()), None, library.pause, None)


def task(cfg):
    return "here"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("count", "more"), [(1, "1 native thread"), (3, "3 native threads")])
@pytest.mark.parametrize("numpy", [False, True])
def test_native_threads_at_import_mean_a_fresh_process_per_job(host, count, more, numpy):
    """Python does not know them, and a fork would have locks that no thread releases. OpenBLAS's threads do not count."""
    host.write({"native.py": "import numpy\n" * numpy + NATIVE.replace("COUNT", str(count))})
    ready = host.start("native:task")
    assert ready.header["isolation"] == "spawn"
    assert f"started {more}, so every job" in ready.header["why"]
    assert host.run().part() == "here"


@pytest.mark.parametrize(
    "environ", [{}, *(pytest.param({"OPENBLAS_NUM_THREADS": count}, marks=pytest.mark.slow) for count in "12")]
)
def test_the_threads_of_openblas_do_not_count(host, environ):
    """It ends its pool before a fork and starts it again afterwards. numpy works in a forked job, as fast as ever."""
    host.write(
        {
            "blas.py": """
            import os, numpy
            matrix = numpy.ones((300, 300)) @ numpy.ones((300, 300))
            threads = len(os.listdir("/proc/self/task"))
            def task(cfg):
                return threads, float((matrix @ matrix)[0, 0])
            """
        }
    )
    ready = host.start("blas:task", environ=environ)
    assert ready.header["isolation"] == "fork"
    threads, value = host.run().part()
    assert value == 300.0**2 * 300
    expected = int(environ.get("OPENBLAS_NUM_THREADS", len(os.sched_getaffinity(0))))
    assert threads == min(expected, len(os.sched_getaffinity(0)))


@pytest.mark.slow
def test_the_thread_of_jemalloc_does_not_count(host):
    """It comes with pyarrow, and that with pandas. A forked job does without it: it allocates, frees, and starts threads of its own."""
    host.write(
        {
            "arrow.py": """
            import pyarrow, pyarrow.compute
            threads = {open(f"/proc/self/task/{one}/comm").read().strip() for one in __import__("os").listdir("/proc/self/task")}
            def task(cfg):
                assert pyarrow.default_memory_pool().backend_name
                pool = pyarrow.jemalloc_memory_pool()
                arrays = [pyarrow.array(range(100_000), memory_pool=pool) for _ in range(20)]
                table = pyarrow.table({"n": pyarrow.chunked_array(arrays)})
                count = table.group_by("n", use_threads=True).aggregate([("n", "count")]).num_rows
                del arrays, table
                pool.release_unused()
                return sorted(threads), count
            """
        }
    )
    ready = host.start("arrow:task")
    assert ready.header["isolation"] == "fork", ready.header["why"]
    threads, count = host.run().part()
    assert "jemalloc_bg_thd" in threads
    assert count == 100_000


class TestCountingThreads:
    """Which threads count as OpenBLAS's, and what happens if threads cannot be counted."""

    @pytest.fixture
    def look(self, monkeypatch):
        """Sets the threads for a test: `look(names, pool, configured)`."""
        from remote_agent.zygote import native_threads

        def made(names, asked=0, configured=0):
            monkeypatch.setattr(native_threads, "_PAUSE", 0)
            monkeypatch.setattr(native_threads, "_names", lambda: names.pop(0) if len(names) > 1 else names[0])
            monkeypatch.setattr(native_threads, "_openblas_threads", lambda libraries: (asked, configured))
            return native_threads.unforkable_threads(1)

        return made

    def test_a_pool_counts_with_the_size_that_it_reports(self, look):
        """And not more, so that other threads do not hide in it."""
        assert look([["python"] * 4], asked=3, configured=63) == ""
        assert look([["python"] * 18], asked=0, configured=63) == "started 17 native threads"

    def test_the_thread_of_jemalloc_is_left_out(self, look):
        """Others beside it count."""
        assert look([["python", "jemalloc_bg_thd"]]) == ""
        assert look([["python", "jemalloc_bg_thd", "pool"]]) == "started 1 native thread (such as pool)"

    def test_a_later_limit_does_not_change_the_pool(self, look):
        """The pool has its default number of threads, and not one more counts."""
        assert look([["python"] * 64], asked=0, configured=63) == ""
        assert look([["python"] * 65], asked=0, configured=63) == "started 64 native threads"

    def test_a_thread_that_is_just_ending_does_not_count(self, look):
        """A thread that was joined is still listed for a moment, so the list is read again."""
        assert look([["python", "worker"], ["python", "worker"], ["python"]]) == ""

    def test_the_reason_names_the_threads(self, look):
        """If they have names."""
        assert look([["python", "tf_XLA", "python"]]) == "started 2 native threads (such as tf_XLA)"

    def test_a_system_that_does_not_show_threads(self, monkeypatch):
        """An application in pure Python is forked. One that brings native code is not."""
        from remote_agent.zygote import native_threads

        monkeypatch.setattr(native_threads, "_TASKS", "/no/such/folder")
        monkeypatch.setattr(native_threads, "_loaded_extensions", list)
        assert native_threads.unforkable_threads(1) == ""
        monkeypatch.setattr(native_threads, "_loaded_extensions", lambda: ["numpy"])
        assert "numpy" in native_threads.unforkable_threads(1)
