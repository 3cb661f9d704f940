"""A search with Optuna that stops bad jobs early: `python search.py` runs it here, `python search.py gpu1/2 gpu2` there.

What a job reports goes to its trial, and a trial that is worse than the others at the same step is pruned. No job waits for another one, and
a host needs no Optuna.
"""

import concurrent.futures
import sys

import my_app

import launcher


class Prune(launcher.Callback):
    """Tells trials what their jobs report."""

    def __init__(self):
        self.trials = {}

    def __getstate__(self):
        return {"trials": {}}  # the study stays here

    def on_job_report(self, config, job, step, values, **kwargs):
        trial = self.trials[config.trial]
        trial.report(values["loss"], step)
        if trial.should_prune():
            job.stop()


def search(session, prune, study, trials, slots, **fixed):
    from optuna.trial import TrialState

    asked, under_way = 0, {}
    while asked < trials or under_way:
        while asked < trials and len(under_way) <= slots:
            trial = study.ask()
            prune.trials[trial.number] = trial
            config = {"lr": trial.suggest_float("lr", 0.0, 1.0), "trial": trial.number, **fixed}
            under_way[session.submit(my_app.train, config)] = trial
            asked += 1
        ended, _ = concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
        for job in ended:
            trial = under_way.pop(job)
            if job.exception() is not None:
                study.tell(trial, state=TrialState.FAIL)
            elif job.job_return().stopped:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, job.result())


if __name__ == "__main__":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2))
    prune = Prune()
    with launcher.Session.open(hosts=sys.argv[1:] or ["local/4"], callbacks=[prune]) as session:
        search(session, prune, study, trials=30, slots=4, steps=20, seconds=0.05)
    pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
    print(
        f"{len(study.trials)} trials, {pruned} of them stopped early; the best {study.best_value:.3f} at {study.best_params}"
    )
