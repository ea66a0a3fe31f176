"""Training with simulated Byzantine workers: data, models, the loop, run folders and their pictures."""
