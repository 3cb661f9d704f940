"""What is said between controller, agent, zygote and job: frames, messages, and the objects in them."""
