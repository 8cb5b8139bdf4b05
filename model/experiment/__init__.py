"""One experiment = data + poison + training of the twins + evaluation → a run folder.

The run folder:

- `config.toml`, `data.sha256`: what was run, on which radiographs.
- `pretrained/`: the checkpoint that both twins start from, where the configuration asks for one.
- `clean/` and `backdoored/`: one folder a twin, with
    - `checkpoint/`: the twin's network after the last epoch;
    - `epochs.jsonl`: a line an epoch, measured on the validation part (`model.experiment.curve`);
    - `epochs/NNN/`: a checkpoint of each epoch that `keep_epochs` names (1-based, over all stages), at the input size
      of that epoch's stage;
    - `poison_manifest.csv` (backdoored): every poisoned row;
    - `state.pt`: the resumable state, until the twin is done.
- `report.json`, `report.md`: what came of it.
- `cache/`: decoded inputs, which can be deleted.
"""

from model.experiment.context import Listener, Silent
from model.experiment.run import run_experiment
from model.experiment.twins import operating_points

__all__ = ["Listener", "Silent", "operating_points", "run_experiment"]
