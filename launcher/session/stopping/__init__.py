"""How a run is stopped or left: signals, requests, and what is done then."""
