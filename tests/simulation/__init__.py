"""Scheduler and decider in seeded histories of faults: fake hosts, a fake clock, a controller that dies and comes back."""
