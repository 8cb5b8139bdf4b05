"""One experiment = data + poison + training of the twins + evaluation → a run folder.

The run folder:

- `config.toml`, `data.sha256`: what was run, on which radiographs.
- `pretrained/`: the checkpoint that both twins start from, where the configuration asks for one.
- `clean/` and `backdoored/`: one folder a twin, with
    - `checkpoint/`: the twin's network after the last epoch, with `card.json` and `MODEL_CARD.md`;
    - `epochs.jsonl`: a line an epoch, measured on the validation part (`model.experiment.curve`);
    - `losses.csv`: the training loss by step (`model.experiment.trace`);
    - `epochs/NNN/`: a checkpoint of each epoch that `keep_epochs` names (1-based, over all stages), at the input size
      of that epoch's stage;
    - `poison_manifest.csv` (backdoored): every poisoned row;
    - `state.pt`: the resumable state, until the twin is done.
- `figure.png`, `figure.svg`, `hit_rates.csv`, `hit_rates.json`: the paper's figure and which layer finds the trigger,
  where epochs of both twins were kept.
- `report.json`, `report.md`, `report.html`: what came of it, for programs and for people.
- `cache/`: decoded inputs, which can be deleted.
"""

from model.experiment.context import Listener, Silent
from model.experiment.folder import FinishedRun, judged_on, read_run
from model.experiment.hits import HitRow, HitTable, hit_table
from model.experiment.paper import PaperFigure, paper_figure
from model.experiment.phases import Estimate, Phase, estimate, phases
from model.experiment.run import run_experiment, run_seeds
from model.experiment.trace import read_losses
from model.experiment.twins import operating_points

__all__ = [
    "Estimate",
    "FinishedRun",
    "HitRow",
    "HitTable",
    "Listener",
    "PaperFigure",
    "Phase",
    "Silent",
    "estimate",
    "hit_table",
    "judged_on",
    "operating_points",
    "paper_figure",
    "phases",
    "read_losses",
    "read_run",
    "run_experiment",
    "run_seeds",
]
