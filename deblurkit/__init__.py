"""Video and image deblurring: networks, training, evaluation and restoration on one road."""

__version__ = "0.1.0"
