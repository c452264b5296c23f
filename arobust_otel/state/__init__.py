"""What is known of a job: rings, topology, identity. Pure: no clock, no I/O, no randomness."""
