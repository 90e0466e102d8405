"""Between data and what a model is trained on."""
