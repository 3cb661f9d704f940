"""A search with Optuna that waits for no batch: `python ask_and_tell.py` runs it here, `python ask_and_tell.py gpu1/4` there.

Each time that a job ends, its value is told to the study, and the study is asked for the next job. One job more than there are slots
is under way, so that a slot that becomes free has a job at once.
"""

import concurrent.futures
import sys

import optuna

import launcher


def loss(cfg):
    return (cfg.x - 2) ** 2 + (cfg.y + 1) ** 2


def suggest(trial):
    return {"x": trial.suggest_float("x", -10, 10), "y": trial.suggest_float("y", -10, 10)}


def search(session, study, task, suggest, trials, slots):
    asked, under_way = 0, {}
    while asked < trials or under_way:
        while asked < trials and len(under_way) <= slots:
            trial = study.ask()
            under_way[session.submit(task, suggest(trial))] = trial
            asked += 1
        ended, _ = concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
        for job in ended:
            trial = under_way.pop(job)
            if job.exception() is None:
                study.tell(trial, job.result())
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    with launcher.Session.open(hosts=sys.argv[1:] or ["local/4"]) as session:
        search(session, study, loss, suggest, trials=40, slots=4)
    print(f"{len(study.trials)} trials, the best {study.best_value:.3f} at {study.best_params}")
