"""CLIP4Clip: frames of a clip become one embedding, by their mean or by a trained head."""
