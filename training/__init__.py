"""Training and evaluation: fine-tuning of encoders, training of localisers, and the rendered world.

Why it is as it is: docs/decisions.md, "Training and evaluation".
"""
