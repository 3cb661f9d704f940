"""A sweep as a run of MLflow, and each job as a child run, with its overrides, what it reports while it runs, and what it returns.

    MLFLOW_TRACKING_URI=sqlite:///mlflow.db launcher multirun my_app.py +lr=0.1,0.5 --host gpu1 --callback mlflow_callback:Mlflow

All of it is logged from here, so hosts need neither MLflow nor the password of its server.
"""

import math

import launcher


class Mlflow(launcher.Callback):
    only_on_controller = True

    def __init__(self, experiment="sweeps"):
        self.experiment = experiment
        self.parent = ""
        self.children = {}  # number of a job -> id of its run: a controller that resumes the run goes on with them

    def on_multirun_start(self, config, **kwargs):
        from mlflow import MlflowClient

        client = MlflowClient()
        found = client.get_experiment_by_name(self.experiment)
        self.experiment_id = found.experiment_id if found else client.create_experiment(self.experiment)
        self.parent = client.create_run(self.experiment_id, run_name=config.hydra.job.name).info.run_id

    def child(self, num, config):
        from mlflow import MlflowClient

        client = MlflowClient()
        if num not in self.children:
            tags = {"mlflow.parentRunId": self.parent}
            self.children[num] = client.create_run(self.experiment_id, tags=tags, run_name=f"job {num}").info.run_id
            for override in config.hydra.overrides.task:
                name, _, value = override.lstrip("+~").partition("=")
                client.log_param(self.children[num], name, value)
        return client, self.children[num]

    def on_job_report(self, config, job, step, values, **kwargs):
        client, run = self.child(job.num, config)
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                client.log_metric(run, name, value, step=int(step or 0))

    def on_job_return(self, config, job_return, **kwargs):
        client, run = self.child(job_return.num, config)
        client.set_tag(run, "host", job_return.host)
        if job_return.error is not None:
            client.set_tag(run, "error", str(job_return.error))
        is_good = job_return.status.name == "COMPLETED"
        if is_good and isinstance(job_return.return_value, dict):
            for name, value in job_return.return_value.items():
                client.log_metric(run, f"final.{name}", value)
        client.set_terminated(run, "FINISHED" if is_good else "FAILED")

    def on_multirun_end(self, config, **kwargs):
        from mlflow import MlflowClient

        MlflowClient().set_terminated(self.parent)
