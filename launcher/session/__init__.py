"""A run while it lasts: how it is opened or resumed, its jobs as futures, its hooks and signals, and its end."""
