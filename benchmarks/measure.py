"""What ``measure`` costs: its time in forward passes, and its memory with more samples.

    python benchmarks/measure.py            # torchvision's ResNet18, 2,000 images of 64 x 64

In turns: one forward pass over all images in evaluation mode without gradients, and ``measure`` of
the same ones, with all layers and without. The images are drawn batch by batch, so that memory is
the measuring's own; its peak, that of a fresh process, is compared with four times the images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
import torchvision
from torch.utils.data import DataLoader, Dataset

from ncbook.measure import measure

CLASSES, BATCH = 10, 100


class Images(Dataset):
    """Noise, drawn anew for each batch; the class is the sample's number."""

    def __init__(self, count: int, side: int) -> None:
        self.count = count
        self.noise = torch.randn(BATCH, 3, side, side)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.noise[i % BATCH] + i % CLASSES, i % CLASSES


def forward(model: torch.nn.Module, images: Images) -> None:
    model.eval()
    with torch.no_grad():
        for x, _ in DataLoader(images, BATCH):
            model(x)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_memory(count: int, side: int) -> float:
    """Of this process after it has measured, in MB."""
    torch.set_num_threads(1)
    model = torchvision.models.resnet18(num_classes=CLASSES)
    measure(model, Images(count, side), batch_size=BATCH, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(label: str, found: list[float]) -> None:
    print(f"{label:28}{statistics.median(found):8.2f}  {min(found):.2f}-{max(found):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    images = Images(asked.images, asked.side)
    model = torchvision.models.resnet18(num_classes=CLASSES)
    options = {"batch_size": BATCH, "progress": False}
    measure(model, Images(2 * BATCH, asked.side), **options)  # imports
    passes, all_layers, last = [], [], []
    for _ in range(asked.repeats):
        passes.append(seconds(lambda: forward(model, images)))
        all_layers.append(seconds(lambda: measure(model, images, **options)))
        last.append(seconds(lambda: measure(model, images, layers=[], **options)))
    print(
        f"{asked.images} images of {asked.side} x {asked.side}, {torch.get_num_threads()} threads"
    )
    row("one forward pass, s", passes)
    for label, found in (("all layers", all_layers), ("the last layer alone", last)):
        row(f"{label}, passes", [a / b for a, b in zip(found, passes, strict=True)])
    fresh = multiprocessing.get_context("spawn")
    for count in (asked.images, 4 * asked.images):
        with ProcessPoolExecutor(1, fresh) as pool:
            megabytes = pool.submit(peak_memory, count, asked.side).result()
        print(f"{f'peak memory, {count} images':28}{megabytes:8.0f} MB")


if __name__ == "__main__":
    main()
