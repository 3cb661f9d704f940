"""Which job goes to which host, and when. All of it is pure: facts and the time go in, events come out."""
