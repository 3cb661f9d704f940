"""Starting zygotes, and talking to them."""
