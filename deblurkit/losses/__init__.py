"""Losses (`*_loss.py`)."""
