"""Training and evaluation: fine-tuning of encoders, training of localisers, and the rendered world."""
