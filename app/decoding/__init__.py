"""Files are decoded in confined processes, whenever they are: one that breaks its decoder breaks nothing else."""

from app.decoding.pixels import VIEWER_PX, Pixels, viewer_pixels
from app.decoding.pool import Decoder

__all__ = ["VIEWER_PX", "Decoder", "Pixels", "viewer_pixels"]
