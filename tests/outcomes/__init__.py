"""Every way in which a job can end, its result, and the page about it."""
