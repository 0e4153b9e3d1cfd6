"""Latents to video: the decoder, its training, and pictures that show what a JEPA predicted."""

from decoder.conditioning import LatentCondition, NoCondition, Observation, PixelCondition
from decoder.decoder import ClipConfig, Decoder, DecoderConfig, draw_video
from decoder.dit import DenoiserSize, VideoDiT, VideoDiTConfig
from decoder.flow import FlowConfig
from decoder.latents import LatentSource, LatentStats, measure_latents

__all__ = [
    "ClipConfig",
    "Decoder",
    "DecoderConfig",
    "DenoiserSize",
    "FlowConfig",
    "LatentCondition",
    "LatentSource",
    "LatentStats",
    "NoCondition",
    "Observation",
    "PixelCondition",
    "VideoDiT",
    "VideoDiTConfig",
    "draw_video",
    "measure_latents",
]
