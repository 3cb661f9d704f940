"""A run as a trace of OpenTelemetry: its spans, and sending them."""
