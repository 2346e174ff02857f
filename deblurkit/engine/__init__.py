"""Training, evaluation, restoring, launching, checkpoints."""
