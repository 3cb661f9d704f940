"""Each job as an offline run of W&B, all of one sweep in one group; later `wandb sync multirun/*/*/wandb/offline-run-*` sends them.

    launcher multirun my_app.py +lr=0.1,0.5 --host gpu1 --callback wandb_callback:Wandb

All of it is logged from here, so hosts need neither W&B nor its key.
"""

from pathlib import Path

import launcher


class Wandb(launcher.Callback):
    only_on_controller = True

    def __init__(self, project="sweeps"):
        self.project = project
        self.runs = {}

    def __getstate__(self):
        return {"project": self.project, "runs": {}}

    def run_of(self, num, config):
        import wandb

        if num not in self.runs:
            folder = Path(config.hydra.sweep.dir or config.hydra.run.dir)
            self.runs[num] = wandb.init(
                project=self.project, name=f"job {num}", group=folder.name, dir=str(folder), mode="offline",
                config={"overrides": list(config.hydra.overrides.task)}, reinit="create_new",
                settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
            )  # fmt: skip
        return self.runs[num]

    def on_job_report(self, config, job, step, values, **kwargs):
        self.run_of(job.num, config).log(dict(values), step=int(step or 0))

    def on_job_return(self, config, job_return, **kwargs):
        run = self.run_of(job_return.num, config)
        run.summary["host"] = job_return.host
        is_good = job_return.status.name == "COMPLETED"
        if is_good and isinstance(job_return.return_value, dict):
            run.summary.update(job_return.return_value)
        run.finish(exit_code=0 if is_good else 1)
        del self.runs[job_return.num]
