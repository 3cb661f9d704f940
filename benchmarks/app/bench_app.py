"""The application of the benchmarks: jobs that do nothing, hooks on both sides that do nothing, and one large value."""

import os
import time


def noop(config):
    """Do nothing, as fast as possible."""
    return


def plain_noop(number):
    """Do the same, for peers without configs."""
    return


def wait(config):
    """Take as long as the config says on this host."""
    time.sleep(config["seconds"] * float(os.environ.get("SLOWNESS", "1")))


def large(config):
    """Return a value of `config["size"]` bytes."""
    return bytes(config["size"])


class Hooks:
    """A callback on both sides."""

    def on_multirun_start(self, config, **kwargs):
        self.started = time.time()

    def on_job_start(self, config, **kwargs):
        self.job_started = time.time()

    def on_job_end(self, config, job_return, **kwargs):
        self.job_ended = time.time()

    def on_job_return(self, config, job_return, **kwargs):
        self.returned = time.time()

    def on_multirun_end(self, config, **kwargs):
        self.ended = time.time()


def gated(config):
    """End at once in the first job, and in the others when a file exists."""
    if config["number"]:
        for _ in range(36_000):
            if os.path.exists(config["gate"]):
                return
            time.sleep(0.05)
        raise TimeoutError("the gate was not opened")
