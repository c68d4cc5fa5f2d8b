"""What does a method cost, and how is it run many times?  Computed costs, sweeps, and benchmarks."""
