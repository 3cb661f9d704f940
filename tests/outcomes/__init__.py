"""Every way in which a job can end, what comes of it, and the page that says so."""
