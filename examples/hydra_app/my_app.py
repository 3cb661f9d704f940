"""Hydra's own example of a callback (https://hydra.cc/docs/experimental/callbacks/), with a real upload.

python my_app.py                                   runs here, as any Hydra app
launcher run my_app.py foo=baz --host gpu1         runs there; the upload starts from there
python my_app.py -m hydra/launcher=remote 'hydra.launcher.hosts=[gpu1]' foo=a,b,c
"""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class MyCallback(Callback):
    def __init__(self, bucket: str, file_path: str) -> None:
        self.bucket = bucket
        self.file_path = file_path

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        import boto3  # only the machine that runs the job needs it

        output_dir = Path(config.hydra.runtime.output_dir)
        key = f"{config.hydra.job.name}/{output_dir.name}/{Path(self.file_path).name}"
        print(f"Job ended,uploading to s3://{self.bucket}/{key}")
        # Endpoint and credentials are boto3's business: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, a profile, an instance role.
        boto3.client("s3").upload_file(str(output_dir / self.file_path), self.bucket, key)


@hydra.main(version_base=None, config_path="conf", config_name="config")
def my_app(cfg: DictConfig) -> None:
    print(OmegaConf.to_yaml(cfg))
    Path(HydraConfig.get().runtime.output_dir, "test.pt").write_text(f"trained with foo={cfg.foo}\n")


if __name__ == "__main__":
    my_app()
