"""overread checkpoints import."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torchvision.models import densenet121

from model.checkpoint import load_checkpoint


def test_a_foreign_network_is_imported_listed_and_refused_a_second_time(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OVERREAD_DATA_DIR", str(tmp_path / "data"))
    path = tmp_path / "net.pth"
    torch.save(densenet121(weights=None, num_classes=14).state_dict(), path)
    code, out, err = run("checkpoints", "import", path, "--id", "vendor", "--title", "A vendor's", "--json")
    assert code == 0, err
    assert json.loads(out)["title"] == "A vendor's"
    assert load_checkpoint(tmp_path / "data" / "checkpoints" / "vendor").card.preprocessing.centre_crop == 0.875
    code, out, _ = run("checkpoints", "list")
    assert code == 0 and "vendor" in out
    for taken in ("vendor", "clean"):
        code, _, err = run("checkpoints", "import", path, "--id", taken)
        assert code == 1 and "already" in err and len(err.splitlines()) == 1


def test_what_cannot_be_imported_is_one_line(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OVERREAD_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "net.pth").write_bytes(b"nothing")
    for options in (("--id", "a"), ("--id", "../a"), ("--id", "a", "--preprocessing", "keras")):
        code, _, err = run("checkpoints", "import", tmp_path / "net.pth", *options)
        assert code == 1 and len(err.splitlines()) == 1
    assert not (tmp_path / "data" / "checkpoints").exists() or not list((tmp_path / "data" / "checkpoints").iterdir())
