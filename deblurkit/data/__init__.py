"""Where samples come from: data sets (`*_dataset.py`), layouts, stores, sampling, prefetching, synthesis."""
