"""Images of a streamed data set in batches, decoded by processes that live as long as the run."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_convert

from ncbook import data

# A batch to read: its split, its images, and the epoch of its random crops and flips.
Wanted = tuple[str, Sequence[int], int | None]


class Feed:
    """Batches of inputs on the device.

    Args:
        dataset: whose images.
        seed: of the run, for random crops and flips.
        loaders: processes that decode; 0 decodes here.
        device: of the inputs.
    """

    def __init__(
        self, dataset: data.Streamed, seed: int, loaders: int, device: torch.device
    ) -> None:
        self.dataset, self.device = dataset, device
        self._wanted: list[Wanted] = []
        # Not forked: a forked torch may hang on its thread pools. Kept from pass to pass: a new
        # Python takes seconds.
        lasting = {"persistent_workers": True, "multiprocessing_context": "spawn"}
        self._loader = DataLoader(
            _Reader(dataset, seed),
            batch_sampler=self._wanted,
            num_workers=loaders,
            collate_fn=default_convert,  # as it is
            pin_memory=device.type == "cuda",
            **(lasting if loaders else {}),
        )

    def batches(
        self, split: str, batches: Sequence[Tensor], epoch: int | None = None
    ) -> Iterator[Tensor]:
        """What a network takes of some images of ``train`` or ``test``, (n, 3, H, W) a batch.

        Args:
            split, batches: which images, by number.
            epoch: of the random crops and flips; None for the centre of each image.

        Raises:
            ValueError: an image that cannot be read; names it.
        """
        self._wanted[:] = [(split, batch.tolist(), epoch) for batch in batches]
        for images in self._loader:
            if isinstance(images, str):
                raise ValueError(images)
            images = images.to(self.device, non_blocking=True)
            yield self.dataset.inputs(images).contiguous(memory_format=torch.channels_last)


class _Reader(Dataset):
    def __init__(self, dataset: data.Streamed, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitems__(self, wanted: Wanted) -> Tensor | str:
        """Pixels, uint8; or what is wrong: an exception would come with a process's traceback."""
        split, indices, epoch = wanted
        try:
            seeds = [None if epoch is None else (self.seed, epoch, index) for index in indices]
            each = zip(indices, seeds, strict=True)
            return torch.stack([self.dataset.image(split, *one) for one in each])
        except ValueError as error:
            return str(error)
