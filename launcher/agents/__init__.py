"""The controller's end of the link to each host's agent: frames in, facts out."""
