"""How networks are trained, one model per file (`*_model.py`)."""
