"""Networks, one per file (`*_arch.py`); imported by `deblurkit.registry.discover`."""
