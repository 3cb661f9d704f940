"""An app that says how it stands: `python my_app.py lr=0.3` runs it here, as any Hydra app."""

import time

import hydra

import launcher


@hydra.main(version_base=None, config_path=".", config_name="config")
def train(cfg):
    loss = 0.0
    for step in range(cfg.steps):
        time.sleep(cfg.seconds)
        loss = (cfg.lr - 0.3) ** 2 + 1 / (step + 1)
        launcher.report(step=step, loss=loss)
    return loss


if __name__ == "__main__":
    train()
