"""Former places of what old pickles ask for, such as `remote_agent.callback:Callback` (docs/stored.md). Nothing of ours imports them.

`remote_agent/__init__.py` has Python look into this folder, too, so `remote_agent.callback` is found here.
"""
