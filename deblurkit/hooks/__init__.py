"""What happens beside the training step (`*_hook.py`)."""
