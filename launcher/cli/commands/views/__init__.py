"""The commands that show runs, or write what they were for other programs. None of them changes a run."""
