"""What is stored here of runs: journal, record, index, whose a run is, and how it stands."""
