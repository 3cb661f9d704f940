"""Constants that two processes must agree on, besides the messages.

Rule: a value that one program writes and another one reads is defined here, once.
"""

__all__ = ["EXIT_FOLDERS", "EXIT_NO_AGENT", "HEARTBEAT", "MANIFEST_VERSION", "NEED", "SPARE"]

#: Seconds. A peer that was silent for so long is taken for dead; a ping goes out at a quarter of it.
HEARTBEAT = 20.0
#: Of the code manifest: which files a snapshot has.
MANIFEST_VERSION = 1
#: What stage-0 says when the host does not have the bundle. Not part of the wire: it is said before there is one.
NEED = b"\x00\x01hydra-remote-launcher need bundle\n"
#: Exit codes of what runs on a host, whose reason is on its stderr: its folders cannot be used; no agent of the run is there.
EXIT_FOLDERS = 73
EXIT_NO_AGENT = 75
#: Told to a zygote that is started ahead of time, in place of what it would otherwise inherit.
SPARE = "spare"
