"""Training with simulated Byzantine workers: configuration, data, models, the loop, run folders."""
