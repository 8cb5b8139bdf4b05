"""Uploads are decoded in confined processes: a file that breaks its decoder breaks nothing else."""

from app.decoding.pool import Decoder

__all__ = ["Decoder"]
