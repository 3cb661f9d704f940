"""A sweep from Python: `python sweep.py` runs it here, `python sweep.py gpu1 user@gpu2:2222/4` there."""

import sys

import launcher


class BestSoFar(launcher.Callback):
    """Prints on the host what each job does, and on the controller which result is the best so far."""

    def __init__(self):
        self.best = None

    def on_job_start(self, config, **kwargs):
        print(f"job {config.hydra.job.num}: rate {config.rate}")

    def on_job_return(self, config, job_return, **kwargs):
        if job_return.status.name == "COMPLETED" and (self.best is None or job_return.return_value < self.best):
            self.best = job_return.return_value
            print(f"job {job_return.num} on {job_return.host} is the best so far: {self.best:.6f}")


def descend(cfg):
    x = 1.0
    for _ in range(cfg.steps):
        x -= cfg.rate * 2 * x
        if abs(x) > 1e6:
            raise OverflowError(f"rate {cfg.rate} is too large")
    return x * x


if __name__ == "__main__":
    configs = [{"rate": rate, "steps": 20} for rate in (0.01, 0.1, 0.3, 4.0)]
    returns = launcher.multirun(descend, configs, hosts=sys.argv[1:] or None, callbacks=[BestSoFar()])
    for one in returns:
        print(one.num, one.status.name, one.error or f"{one.return_value:.6f}", one.output_dir)
