"""Recipe of the training of a localiser."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LocaliserRecipe:
    """Everything that decides the result except data and network, with the values of the bundled checkpoint."""

    seed: int = 0
    steps: int = 12_000
    libraries_per_step: int = 1
    """Libraries whose gradients are averaged in a step; several processes share them."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    frame_noise: float = 0.1
    """Standard deviation of the noise on frame features, as a share of that of the features."""
    text_noise: float = 0.05
    """The same for text features."""
    temperature: float = 0.01
    label_temperature: float = 0.01
    kind_weight: float = 1.5
    """Weight of queries with a kind, in the rendered world those that need time; others have 1."""
    choice_weight: float = 1.0
    """Weight of a cross-entropy of s1 + s2 over all anchors, which the paper does not have."""
    choice_scale: float = 12.0
    """Factor of s1 + s2 in it."""
    anchor_weight: float = 1.0
    """Weight of the losses that rank queries for each anchor."""
    sum_weight: float = 1.0
    """Weight of a ranking by s1 + s2, as in a search; the paper does not have it."""
    iou_weight: float = 0.6
    """20 / 32: the paper sums its ranking losses over 32 queries, here they are means."""
    regress_iou: float = 0.1
    """Pairs of query and anchor with a higher IoU train the edges."""
    content_frames: int = 16_384
    """Frames of a library that the second stage sees, counted once per anchor; bounds the memory of a long film. At a
    width of 512 they need about 0.5 GB. Libraries of ten minutes at 2 frames a second have fewer."""
    evaluate_every: int = 500
    """Steps between validations."""
    save_every: int = 500
    """Steps between saved states; there are at most two minutes between them too."""
