"""The smallest JEPA that still has everything, for tests."""

from jepa import EncoderConfig, JEPAConfig, PredictorConfig


def tiny_config(
    position: str = "rope",
    target_norm: str = "layer",
    context_loss: float = 0.0,
    regulariser: str = "none",
    regulariser_weight: float = 0.0,
    targets: str = "latents",
) -> JEPAConfig:
    """24 channels, 2 + 1 blocks, tokens of 2 x 8 x 8 pixels."""
    encoder = EncoderConfig(embed_dim=24, depth=2, num_heads=2, patch_size=8, tubelet_size=2, position=position)
    predictor = PredictorConfig(embed_dim=12, depth=1, num_heads=2)
    return JEPAConfig(encoder, predictor, targets, target_norm, context_loss, regulariser, regulariser_weight)
