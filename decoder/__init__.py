"""Latents to video: the decoder, its training, and pictures that show what a JEPA predicted."""

from decoder.conditioning import LatentCondition, NoCondition, Observation, PixelCondition
from decoder.decoder import ClipConfig, Decoder, DecoderConfig, draw_video
from decoder.dit import DenoiserSize, VideoDiT, VideoDiTConfig
from decoder.flow import FlowConfig
from decoder.futures import Futures
from decoder.latents import LatentSource, LatentStats, measure_latents
from decoder.pixels import PixelModel

__all__ = [
    "ClipConfig",
    "Decoder",
    "DecoderConfig",
    "DenoiserSize",
    "FlowConfig",
    "Futures",
    "LatentCondition",
    "LatentSource",
    "LatentStats",
    "NoCondition",
    "Observation",
    "PixelCondition",
    "PixelModel",
    "VideoDiT",
    "VideoDiTConfig",
    "draw_video",
    "measure_latents",
]
