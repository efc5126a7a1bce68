"""Fine-tuning of an encoder on videos with captions."""
