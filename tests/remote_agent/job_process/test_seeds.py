"""Random numbers in jobs are as if each job had imported the application itself."""

from __future__ import annotations

import random
import sys

import pytest

from remote_agent.job_process.seeds import SeedWatch


def test_random_numbers_differ_unless_they_were_seeded(host):
    """A seed at import counts. Without one, no two jobs are alike."""
    host.write(
        {
            "seeded.py": "import random\nrandom.seed(3)\ndef task(cfg):\n    return random.random()\n",
            "free.py": "import random\nrandom.random()\ndef task(cfg):\n    return random.random()\n",
        }
    )
    host.start("seeded:task")
    assert [host.run().part() for _ in range(2)] == [random.Random(3).random()] * 2


@pytest.mark.slow
def test_unseeded_random_numbers_differ(host):
    """No two jobs are alike."""
    host.write({"free.py": "import random\nrandom.random()\ndef task(cfg):\n    return random.random()\n"})
    host.start("free:task")
    assert host.run().part() != host.run().part()


class _FakeNumpyRandom:
    def __init__(self, first):
        self.first = first
        self.seeded = 0

    def get_state(self):
        return ("MT19937", [self.first])

    def seed(self):
        self.seeded += 1


@pytest.mark.parametrize(("first", "seeded"), [(0x80000000, 1), (42, 0)])
def test_numpys_generator_is_seeded_in_each_job(monkeypatch, first, seeded):
    """Unless the application has chosen a seed."""
    fake = _FakeNumpyRandom(first)
    monkeypatch.setitem(sys.modules, "numpy.random", fake)
    SeedWatch().in_job()
    assert fake.seeded == seeded
