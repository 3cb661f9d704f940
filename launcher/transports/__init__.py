"""Ways to a host: `base` is the seam, `ssh` goes through fabric, `local` starts a subprocess, `factory` chooses."""
