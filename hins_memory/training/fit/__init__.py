"""The training loop: data, steps, checkpoints, processes."""
