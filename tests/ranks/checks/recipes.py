"""Runs the recipes of docs/horovod.md and docs/redundancy.md as they stand there, each on its own model."""

import pathlib
import re
import tempfile

import horovod.torch as hvd
import torch
from common import fingerprint, flat
from torch.nn import functional

import horovod_byz as hb
from sharpness import SharpnessAware

DOCS = pathlib.Path(__file__).parents[3] / "docs"
PAGES = {"horovod.md": 2, "redundancy.md": 3}  # and the ranks that a page's recipes need


def _recipes():
    text = "\n".join((DOCS / page).read_text() for page, least in PAGES.items() if hvd.size() >= least)
    for section in re.split(r"^##? ", text, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL)):
            yield f"{title} {number}", block


def _scope(path):
    torch.manual_seed(0)
    images = torch.randn(64, 10)
    labels = (images[:, 0] > 0).long()
    data = torch.utils.data.TensorDataset(images, labels)
    own = torch.utils.data.Subset(data, range(hvd.rank(), 64, hvd.size()))
    own = torch.utils.data.Subset(own, range(64 // hvd.size()))
    model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    return {
        "torch": torch,
        "hvd": hvd,
        "hb": hb,
        "functional": functional,
        "SharpnessAware": SharpnessAware,
        "model": model,
        "data": data,
        "train": data,
        "loader": torch.utils.data.DataLoader(own, batch_size=8),
        "device": "cpu",
        "path": path,
    }


def _run(name, block, path):
    scope = _scope(path)
    before = flat(scope["model"])
    exec(compile(block, f"docs: {name}", "exec"), scope)
    scope["optimizer"].remove_hooks()
    after = flat(scope["model"])
    return {"bits": fingerprint(after), "moved": not torch.equal(before, after)}


def check_recipes():
    """Each recipe once, then the first one again: rank 0 finds its checkpoint, the others find none."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "checkpoint.pt")
        recipes = list(_recipes())
        results = {name: _run(name, block, path) for name, block in recipes}
        results["resumed"] = _run(*recipes[0], path)
    return results
