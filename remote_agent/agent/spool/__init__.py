"""What the agent keeps on its disk: its log, the attempts, the blobs."""
