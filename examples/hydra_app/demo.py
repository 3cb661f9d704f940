"""The example with everything it needs, on this machine: an S3 server, an SSH host, a sweep there, and what is in the bucket after it.

pip install '.[demo,s3]' && python examples/hydra_app/demo.py

Exit code 0 if every job's file is in the bucket.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from launcher.demo.server import DemoServer

HERE = Path(__file__).resolve().parent
FOOS = ("a", "b", "c")


def main() -> int:
    """Run it; returns the exit code."""
    s3_server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3_server.start()
    address, port = s3_server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{address}:{port}",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(variables)
    try:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="my_s3_bucket")
        with DemoServer() as host, tempfile.TemporaryDirectory(prefix="launcher-demo-s3-") as results:
            sweep(host, results, list(variables))
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket="my_s3_bucket").get("Contents", [])]
    finally:
        s3_server.stop()
    print("in the bucket:", *keys, sep="\n  ")
    return 0 if keys == [f"my_app/{num}/test.pt" for num in range(len(FOOS))] else 1


def sweep(host: DemoServer, results: str, variables: list[str]) -> None:
    """What a user would type; the hosts file says what ~/.ssh/config says elsewhere."""
    hosts = Path(results) / "hosts.yaml"
    hosts.write_text(
        f"{{demo: {{address: {host.alias}, slots: 2, python: {sys.executable}, ssh_config: {host.ssh_config}}}}}\n"
    )
    command = ["multirun", "my_app.py", f"foo={','.join(FOOS)}", "--hosts", str(hosts), "--folder", f"{results}/sweep"]
    forwarded = [word for name in variables for word in ("--env", name)]
    print("$ launcher", *command, *forwarded, flush=True)
    program = "from launcher.cli.main import main; main()"
    environment = {**os.environ, "XDG_STATE_HOME": f"{results}/state", "XDG_CACHE_HOME": f"{results}/cache"}
    subprocess.run([sys.executable, "-c", program, *command, *forwarded], cwd=HERE, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
