"""What another process is told to make or to do: a job, a zygote, an environment; and what a job needs and a host has."""
