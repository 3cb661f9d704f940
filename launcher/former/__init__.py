"""Former places of functions that old pickles ask for, such as `launcher.returns:_rebuild` (docs/stored.md). Nothing of ours imports them.

`launcher/__init__.py` has Python look into this folder, too, so `launcher.returns` is found here.
"""
