"""The setup of each kind of run: a function with configs, a plain function of the command line, a Hydra app, a job again, a probe."""
