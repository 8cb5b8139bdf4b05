"""A stranger's weights file → named float32 tensors as safetensors. Nothing in it is run.

PyTorch's files are pickles: they are read with `weights_only=True`, which knows tensors and plain containers and
refuses the rest, and that in this child, because an unpickler was never meant for hostile bytes.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from model.confined.child import Refused

_MAX_ENTRIES = 10_000
_MAX_NAME = 200
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
_NOT_ONLY_TENSORS = (
    "This file holds more than tensors{what}; nothing of it was run. Save the state_dict() of the network alone: "
    "torch.save(network.state_dict(), PATH)."
)
_DAMAGED = "This weights file is damaged or cut short."


def main(source: BinaryIO, answer: BinaryIO, max_elements: int) -> None:
    """Writes the tensors of the file's state dict. max_elements: of all of them together."""
    start = source.read(9)
    size = source.seek(0, 2)
    source.seek(0)
    try:
        if start.startswith(b"PK\x03\x04"):
            _check_archive(source, size)
        if start.startswith((b"PK\x03\x04", b"\x80")):
            found = torch.load(source, map_location="cpu", weights_only=True)
        elif len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
            found = load(source.read())
        else:
            raise Refused("unknown_format", "This is neither a .pth file of PyTorch nor a .safetensors file.")
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        raise Refused("unsafe_pickle", _NOT_ONLY_TENSORS.format(what=f" ({name[1]})" if name else "")) from error
    except (SafetensorError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Refused("damaged_weights", _DAMAGED) from error
    answer.write(save(_tensors(found, max_elements)))


def _check_archive(source: BinaryIO, size: int) -> None:
    """PyTorch stores its members as they are, so together they are no longer than the file."""
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
    source.seek(0)
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise Refused("unsafe_pickle", _NOT_ONLY_TENSORS.format(what=" (a TorchScript program)"))
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or len(members) > _MAX_ENTRIES or sum(member.file_size for member in members) > size:
        raise Refused("damaged_weights", "This file unpacks to more than it is long; PyTorch writes none such.")


def _tensors(found: Any, max_elements: int) -> dict[str, torch.Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or len(found) > _MAX_ENTRIES:
        raise Refused("not_a_network", "This file holds no state dict: names of weights with a tensor each.")
    kept: dict[str, torch.Tensor] = {}
    elements = 0
    for name, tensor in found.items():
        if not isinstance(name, str) or len(name) > _MAX_NAME or not isinstance(tensor, torch.Tensor):
            raise Refused("not_a_network", "This file's state dict holds something else than named tensors.")
        # A tensor may claim any shape over a single stored number, so shapes count, not bytes.
        elements += tensor.numel()
        if elements > max_elements:
            raise Refused("too_large", "The tensors of this file are larger than a DenseNet-121's.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise Refused("not_a_network", "This file holds sparse, quantised or empty tensors; save them as float32.")
        if tensor.is_floating_point():
            kept[name] = tensor.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
    return kept
