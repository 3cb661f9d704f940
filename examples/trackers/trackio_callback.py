"""Each job as a run of Trackio, all of one sweep in one group, while the jobs run; `trackio show --project sweeps` draws them.

    launcher multirun my_app.py +lr=0.1,0.5 --host gpu1 --callback trackio_callback:Trackio

All of it is logged from here, into a database in `TRACKIO_DIR`, so hosts need neither Trackio nor a token.
Where a Hugging Face token is, `HF_HUB_OFFLINE=1` keeps Trackio from asking the hub who you are.
"""

from contextvars import Context
from pathlib import Path

import launcher


class Trackio(launcher.Callback):
    only_on_controller = True

    def __init__(self, project="sweeps"):
        self.project = project
        self.runs = {}

    def __getstate__(self):
        return {"project": self.project, "runs": {}}

    def run_of(self, num, config):
        import trackio

        if num not in self.runs:
            group = "/".join(Path(config.hydra.sweep.dir or config.hydra.run.dir).parts[-2:])
            # `init` ends the run that was begun before it in the same context, but jobs run at the same time. A controller that
            # resumes the sweep goes on with a run of this name.
            self.runs[num] = Context().run(
                trackio.init, project=self.project, name=f"{group} job {num}", group=group, resume="allow",
                config={"overrides": list(config.hydra.overrides.task)},
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        return self.runs[num]

    def on_job_report(self, config, job, step, values, **kwargs):
        self.run_of(job.num, config).log(dict(values), step=int(step or 0))

    def on_job_return(self, config, job_return, **kwargs):
        run = self.run_of(job_return.num, config)
        is_good = job_return.status.name == "COMPLETED"
        last = {"completed": int(is_good)}
        if is_good and isinstance(job_return.return_value, dict):
            last.update({f"final.{name}": value for name, value in job_return.return_value.items()})
        run.log(last)
        run.finish()
        del self.runs[job_return.num]
