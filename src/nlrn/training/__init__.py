"""Training: configuration, one step, the loop around it, and checkpoints."""
