"""Operators that torch lacks: exact definitions in pure PyTorch, written for speed and bounded memory."""
