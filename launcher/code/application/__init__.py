"""Which application is run: its function, its task, what `@hydra.main` got, and whether this machine has to import it."""
