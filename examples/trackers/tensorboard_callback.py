"""What jobs report, as event files of TensorBoard here, while the jobs run: `tensorboard --logdir multirun`.

    launcher multirun my_app.py +lr=0.1,0.5 --host gpu1 --callback tensorboard_callback:TensorBoard

Hosts need no TensorBoard.
"""

from pathlib import Path

import launcher


class TensorBoard(launcher.Callback):
    only_on_controller = True

    def __init__(self):
        self.writers = {}

    def __getstate__(self):
        return {"writers": {}}  # a controller that resumes the run goes on in another file beside these

    def on_job_report(self, config, job, step, values, **kwargs):
        from tensorboard.summary import Writer

        if job.num not in self.writers:
            folder = Path(config.hydra.sweep.dir or config.hydra.run.dir) / "tensorboard" / str(job.num)
            self.writers[job.num] = Writer(str(folder))
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.writers[job.num].add_scalar(name, value, int(step or 0))
        self.writers[job.num].flush()

    def on_job_return(self, config, job_return, **kwargs):
        if job_return.num in self.writers:
            self.writers.pop(job_return.num).close()
