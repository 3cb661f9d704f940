"""A run while it lasts: opened or resumed, its futures, its hooks, its signals, its end."""
