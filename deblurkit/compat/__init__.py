"""Other tools' checkpoints and option dialects; the only place that knows them."""
