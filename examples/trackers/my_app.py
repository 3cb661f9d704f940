import hydra

import launcher


@hydra.main(version_base=None, config_path=None)
def train(cfg):
    loss = 1.0
    for step in range(5):
        loss *= 1 - cfg.lr
        launcher.report(step=step, loss=loss)
    if abs(loss) > 1:
        raise ValueError(f"lr={cfg.lr} diverges")
    return {"loss": loss}


if __name__ == "__main__":
    train()
