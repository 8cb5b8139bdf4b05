"""Synthetic frontal chest radiographs with the 14 findings, known boxes and honest confounders.

The drawing is physical in spirit: optical depths of soft tissue, air and bone add up along the beam, scatter veils
them, a detector curve turns them into grey. It is a drawing all the same: nothing is learned from or copied out of
real radiographs, and nothing that is measured on phantoms holds for patients.
"""

from model.phantom.drawing import Phantom, PhantomBox, draw_phantom
from model.phantom.files import write_phantoms

__all__ = ["Phantom", "PhantomBox", "draw_phantom", "write_phantoms"]
