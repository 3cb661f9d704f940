"""Constants that two processes must agree on, besides the messages.

Rule: a value that one program writes and another one reads is defined here, once.
"""

__all__ = [
    "EXIT_FOLDERS",
    "EXIT_LATER",
    "EXIT_NO_AGENT",
    "HEARTBEAT",
    "MANIFEST_VERSION",
    "MANIFEST_WHOLE",
    "NEED",
    "REPORTS",
    "SPARE",
    "SPARE_ENVIRONMENT",
    "THREADS",
    "WARM",
]

#: Seconds. A peer that is silent for this long counts as dead. A ping is sent after a quarter of it.
HEARTBEAT = 20.0
#: The versions of the code manifest, which lists the files of a snapshot: in one piece, and in parts (`launcher/code/files/manifest.py`).
MANIFEST_WHOLE = 1
MANIFEST_VERSION = 2
#: Stage-0 writes this if the host does not have the bundle. It is not a frame, because no agent runs yet.
NEED = b"\x00\x01hydra-remote-launcher need bundle\n"
#: Exit codes of `remote_agent` on a host: its folders cannot be used; it has no agent of the run; another try may find that another process does
#: not serve the run any more. stderr has the reason.
EXIT_FOLDERS = 73
EXIT_NO_AGENT = 75
EXIT_LATER = 69
#: The argument of a zygote that is started ahead of time, and of a warm interpreter. Other zygotes get none, or a descriptor there.
SPARE = "spare"
#: In front of the key of an environment, in place of the Python of a spare.
SPARE_ENVIRONMENT = "environment:"
WARM = "warm"
#: The variable that tells the processes of a job the folder in which they report (`remote_agent/shared/report_ring.py`).
REPORTS = "HYDRA_REMOTE_LAUNCHER_REPORTS"
#: Variables that say how many threads numerical libraries start.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
