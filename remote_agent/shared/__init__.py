"""What both sides and all processes of a host share."""
