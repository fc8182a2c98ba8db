"""The numbers written out in the chapter on networks are those of the networks and of the store."""

import re
from pathlib import Path

import pytest
import torch

from ncbook import figures, models, store
from ncbook.pages import table_1

ROOT = Path(__file__).parents[1]
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "networks.py").read_text(encoding="utf-8"))
SIZES = {"resnet9": (10, 1), "vgg9": (10, 1), "vit": (10, 3), "resnet50": (1000, 3)}


def size(module):
    return sum(q.numel() for q in module.parameters())


def test_sizes():
    with torch.device("meta"):
        nets = [models.build(name, *sizes) for name, sizes in SIZES.items()]
        narrow = models.build("resnet9", width=1 / 8)
    millions = [size(net) / 1e6 for net in nets]
    shares = [100 * size(net.fc) / size(net) for net in nets]
    assert f"have {min(millions):.1f} to {max(millions):.1f} million parameters" in PROSE
    assert f"holds {min(shares):.2f} % to {max(shares):.0f} %" in PROSE
    assert f"has {size(narrow):,} parameters and {narrow.fc.in_features} features" in PROSE


def test_how_many_seeds_the_picture_has():
    runs = store.load_runs(ROOT / "book" / "results", dataset="mnist", optimizer=["sgd", "sgdw"])
    runs = runs[(runs["momentum"] == 0.9) & runs["precision"].eq("float32")]
    by = ["model", "optimizer", "weight_decay"]
    seeds = runs[runs["model"] != "mlp"].groupby(by)["seed"].nunique()
    assert min(seeds["resnet9"].min(), seeds["vgg9"].min()) >= 3
    assert set(seeds["vit"]) == {1, 3}
    vit = runs[(runs["model"] == "vit") & (runs["optimizer"] == "sgd")]
    drawn = vit[vit["status"] == "ok"].groupby("weight_decay")["seed"].nunique()
    small = drawn[drawn.index <= 0.001]
    assert set(small[small == 3].index) == {5e-4}
    assert set(small.drop(5e-4)) == {1}
    assert "seeds or more, ViT has three at λ = 0.0005 and one at the others" in PROSE
    lost = vit[vit["status"] == "diverged"]
    assert len(lost) == 3
    assert set(lost["weight_decay"]) == {1e-4, 1e-3}


@pytest.mark.parametrize("model", ["resnet9", "vgg9", "vit"])
def test_nc0_follows_the_law_to_one_part_in_ten_thousand(model):
    runs = store.load_runs(ROOT / "book" / "results", model=model, status="ok")
    runs = runs[runs["optimizer"].isin(["sgd", "sgdw"]) & runs["train_size"].notna()]
    law = figures.exact_law(runs)
    off = (runs["nc0"] / runs["nc0_init"] / law - 1).abs()[law > 1e-3]
    assert len(off) >= 4
    assert off.max() < 1e-4
    assert "to one part in ten thousand" in PROSE


def test_after_the_papers_number_of_steps_rounding_shows():
    run = table_1.stored(ROOT / "book" / "results").query("optimizer == 'sgdw'")
    off = abs(run["nc0"] / run["nc0_init"] / figures.exact_law(run) - 1).item()
    assert f"93,800 steps it is {100 * off:.1f} %" in PROSE
