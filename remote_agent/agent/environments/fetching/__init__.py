"""What this host fetches itself of an environment, from addresses that the controller gave."""
