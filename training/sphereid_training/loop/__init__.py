"""The training loop: engine, schedule, objective, checkpoints."""
