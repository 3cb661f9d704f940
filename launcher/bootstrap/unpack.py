# mypy: ignore-errors
# What stage-0 runs on a host that has received the bundle; it is the bundle's first entry, and never imported.
# Rule: a folder under the bundle's name is complete. It appears by a rename, after its files have reached the disk: a
# power cut must not leave empty files under a name that vouches for them. Given: bundle (a ZipFile), agents, target.
import os
import shutil
import tempfile
import time

for name in os.listdir(agents):  # what starters that were killed have left
    old = os.path.join(agents, name)
    try:
        if name.startswith(".new-") and os.lstat(old).st_mtime < time.time() - 86400:
            shutil.rmtree(old, True)
    except FileNotFoundError:
        pass
new = tempfile.mkdtemp("", ".new-", agents)
try:
    for name in bundle.namelist():
        path = os.path.join(new, name)
        os.makedirs(os.path.dirname(path), 0o700, True)
        with open(path, "xb") as file:
            file.write(bundle.read(name))
            file.flush()
            os.fsync(file.fileno())
    try:
        os.rename(new, target)
    except OSError:
        if not os.path.isdir(target):  # else a concurrent starter was faster
            raise
finally:
    shutil.rmtree(new, True)
