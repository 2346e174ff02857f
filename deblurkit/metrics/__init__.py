"""Metrics (`*_metric.py`)."""
