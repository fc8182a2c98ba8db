# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Measure your own network
#
# Has *your* classifier collapsed, and how far is each of its layers on the way? Name the network, its
# checkpoint and its data, and this page answers with every metric of the book, for the last layer and
# for each layer before it:
#
# ```bash
# papermill notebooks/measure.ipynb out.ipynb \
#     -p model torchvision:resnet18 -p checkpoint model.pt \
#     -p dataset folder:PATH
# ```
#
# Without parameters, as in the book, it trains a small network in front of you and measures that one.
#
# **What you will learn**
#
# - what to pass for a network of torchvision, of this package, or of your own;
# - how to read the report: the metrics, the shape of the last layer, and the way from layer to layer;
# - how to measure from Python instead, once or after each epoch: in a plain loop, in Lightning, and
#   with Hugging Face's Trainer;
# - what becomes one feature vector where a layer gives an image or a sequence.

# %% [markdown]
# ## The parameters
#
# | parameter | what it is | empty means |
# |---|---|---|
# | `model` | `torchvision:NAME`, a classifier of torchvision; `mlp` `resnet9` `vgg9` `vit` `resnet50`, of this package; or `MODULE:FUNCTION`, your own | the example below |
# | `checkpoint` | file of the weights, written by `torch.save` or safetensors | random weights |
# | `dataset` | `folder:PATH` `imagenet:PATH` `mnist` `fashion_mnist` `cifar10` `digits` `gaussians` | `digits` |
# | `normalise` | pixels by mean and deviation of the `dataset`, or of `imagenet`; or `none`: divided by 255 only (not for `imagenet:PATH`) | `dataset` |
# | `image_size` | side to which images are resized | what the network takes: 224 for torchvision's, their own size for this package's; give it for `MODULE:FUNCTION` |
# | `train_size` | size of a class-balanced subset | all samples |
# | `head` | name of the last layer | found |
# | `layers` | names of layers, as of `model.named_modules()` | each block |
# | `tokens` | of a transformer's tokens: `mean`, or `class`, the first one | `mean` |
# | `width`, `depth` | of this package's networks, as in {doc}`sweep` | 1, and the network's |
# | `batch_size` | samples that pass through the network at once | 256 |
# | `device` | `cpu`, `cuda` or `cuda:1` | a GPU if there is one |
#
# `folder:PATH` has images `PATH/train/<class>/*` and `PATH/test/<class>/*`. They must be the images that
# the network was trained on, without augmentation, and normalised as in training: if your training used
# ImageNet's constants, as torchvision's weights do, say `normalise imagenet`; if it used pixels from 0 to 1,
# as `ToTensor` alone gives them, say `normalise none`. Each image of a folder is cut to its largest centred
# square, and resized to `image_size`. What size a network of your own takes is not known here: without
# `image_size` it gets a folder's images as 32 × 32.
#
# `MODULE:FUNCTION` is a function or a class that returns the network, in a file `MODULE.py` in the folder
# where you start. It is called with `num_classes` if it takes that, and with nothing else. One that loads
# its weights itself, by Hugging Face's `from_pretrained` say, needs no checkpoint.
#
# A checkpoint is a `state_dict`, alone or in a dict, as Lightning and most training scripts save it; what
# `DataParallel` and `torch.compile` put before the names is taken off. No code in it is run: a file that
# holds a whole pickled module is refused.

# %% tags=["parameters"]
model = ""
checkpoint = ""
dataset = ""
normalise = ""
image_size = None
train_size = None
head = ""
layers = []
tokens = ""
width = None
depth = None
batch_size = None
device = ""

# %% [markdown]
# A misspelt name or a value out of range ends the notebook here, in one line.

# %%
from ncbook.measure import asked, measure, report

given = asked(globals())

# %%
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn

from ncbook import data, figures, models

figures.start_chapter()

# %% [markdown]
# ## An example: your network, in plain PyTorch
#
# Five hidden layers of 128 units, in a file of its own, as your network is. Yours lies in the folder
# where you start; this one goes to a temporary folder, so that the book leaves nothing behind. It is written
# in any case, since the second half of this page works with it.

# %%
folder = Path(tempfile.mkdtemp())
sys.path.append(str(folder))

# %% tags=["remove-output"]
# %%writefile {folder}/example_network.py
from torch import nn


def build(num_classes=10):
    """Flatten, five blocks, and the last layer."""
    net = nn.Sequential(nn.Flatten())
    for i in range(1, 6):
        into = 64 if i == 1 else 128
        parts = nn.Linear(into, 128), nn.BatchNorm1d(128), nn.ReLU()
        net.add_module(f"block{i}", nn.Sequential(*parts))
    net.add_module("head", nn.Linear(128, num_classes))
    return net


# %% [markdown]
# It learns 1,400 images of digits with AdamW at torch's default weight decay, in 40 epochs of 11 steps.


# %%
def epoch(net, optimizer, images, labels):
    """One pass over the data in random batches of 128."""
    net.train()
    for batch in torch.randperm(len(labels)).split(128):
        logits = net(images[batch])
        loss = nn.functional.cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# %%
def example(path, epochs=40):
    """Train the network on digits, and save its weights."""
    from example_network import build

    torch.manual_seed(0)
    digits, net = data.load("digits"), build()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005)
    for _ in range(epochs):
        epoch(net, optimizer, digits.train_x, digits.train_y)
    torch.save({"state_dict": net.state_dict()}, path)


# %% [markdown]
# From here on it is a network like any other: a name, a checkpoint and data. If the parameters name
# yours, this one is not trained here, and the report is about yours.

# %%
if not given["model"]:
    example(folder / "model.pt")
    given["model"] = "example_network:build"
    given["checkpoint"] = str(folder / "model.pt")

# %% [markdown]
# ## The report
#
# Two walks through the training samples, one through the test samples, and no copy of the features.

# %%
measured, about, classes = report(given)
Markdown(about)

# %% [markdown]
# ### The numbers
#
# NC1, NC2 and NC3 decide: the book calls a network *collapsed* if it learned its training samples and all
# three are below 0.1, a round number that is our convention. With two classes NC2 decides nothing: two
# centred means are always opposite and equally long, so it is zero by construction. Where each metric comes
# from: {doc}`metrics`.

# %%
figures.metrics_table(measured)

# %% [markdown]
# ### What it means in words

# %%
Markdown(figures.in_words(measured))

# %% [markdown]
# The *gauge* is what all rows of $W$ have in common. Softmax ignores it, so no prediction depends on it,
# and still it makes NC3 larger. Which optimizers leave it there: {doc}`symmetry`.
#
# The *nearest class mean* is a classifier without weights: it takes the class whose mean is closest. In
# a collapsed layer it is as good as the network itself.

# %% [markdown]
# ### The shape of the last layer
#
# Class means are the average features $h$ of each class, minus the mean of these averages. Cosines
# between them say how the classes lie: $-\frac1{K-1}$ for each two classes is the regular simplex.

# %%
figures.cosines(measured, classes)

# %% [markdown]
# *One square for each two classes. In a collapsed network all three pictures are the same: red on the
# diagonal, one blue everywhere else, the paler, the more classes there are ($-1/(K-1)$). Left: spots are
# pairs of classes that the features keep close together. Middle: if all squares are redder than on the
# left, the rows of $W$ share a direction, the gauge. Right: a pale diagonal means that $W$ does not look
# where the class means are, which is what NC3 counts.*

# %% [markdown]
# ### The spectrum
#
# The same in one line each. $K$ vectors at the corners of a regular simplex have $K-1$ equal singular
# values and one that is zero.

# %%
figures.spectrum(measured)

# %% [markdown]
# *The last singular value of the class means is zero in every network, since they are centred. That of $W$ is at most
# NC0$/\sqrt K$, so it is zero if the rows sum to zero (and may be otherwise, as with two equal rows). A slope before
# it means that some directions between the classes are longer than others: NC2 of the class means, NC2W of $W$.*

# %% [markdown]
# ### From layer to layer
#
# Each layer's output is taken as features, and measured as the last one's. Does collapse come at the end
# alone, or is it there before?

# %%
figures.by_layer(measured.layers)

# %% [markdown]
# *Top: scatter within the classes over that between them. Middle: how often the nearest class mean is the
# right one. Bottom: the effective rank, that is, over how many directions the features spread. In a
# collapsed layer it is near $K-1$.*
#
# Papyan, Han and Donoho {cite}`papyan2020` looked at the last layer. That the layers before it collapse
# too, and the less the earlier they come, is known {cite}`rangamani2023,masarczyk2023`.
#
# **Here the report ends.** The rest of this page shows how to measure from Python, and works with the example
# network and digits, whatever the parameters name.

# %% [markdown]
# ## In your own training loop
#
# From Python it is one call. The data are a DataLoader, a Dataset or a pair of tensors; without
# augmentation, or NC1 counts it as scatter.

# %%
from example_network import build

torch.manual_seed(1)
digits, network = data.load("digits"), build()
train = digits.train_x, digits.train_y
test = digits.test_x, digits.test_y
found = measure(network, train, test_data=test, progress=False)
f"NC1 {found.metrics['nc1']:.2f}, {len(found.layers)} layers"

# %% [markdown]
# These weights are random, and NC1 is large. `found.layers` is a DataFrame with a row for each layer,
# `found.means` and `found.weight` are tensors. The network is in evaluation mode only meanwhile, and
# torch's random numbers go on as if nothing had been measured.
#
# `NCCallback` measures while a network trains, and keeps what it finds in two DataFrames, `metrics` and
# `layers`. In a plain loop it is called with the network and the number of epochs behind it:

# %%
from ncbook.measure import NCCallback

callback = NCCallback(train, test_data=test, every=5, layers=None)
optimizer = torch.optim.AdamW(network.parameters(), lr=0.005)
for done in range(21):
    callback(network, done)
    epoch(network, optimizer, *train)

# %% tags=["hide-input"]
figures.by_layer(callback.layers, by="epoch")

# %% [markdown]
# *The example while it trains, before the first epoch and after every fifth. After five epochs the middle
# panel has nearly reached its top. The upper one goes on falling, most in the last layers: first the
# network tells the classes apart, then it pulls each of them together.*
#
# In Lightning it is a callback of the Trainer, and its values go to the Trainer's loggers, too:
#
# ```python
# from lightning import Trainer
#
# callback = NCCallback(train_loader, test_data=test_loader)
# Trainer(max_epochs=50, callbacks=[callback]).fit(module, train_loader)
# callback.metrics.plot("epoch", ["nc1", "nc2", "nc3"], logy=True)
# ```
#
# Hugging Face's Trainer takes the same; a batch is then a dict with `labels`:
#
# ```python
# from transformers import Trainer
#
# callback = NCCallback(train_loader, tokens="class")
# trainer = Trainer(network, arguments, train_dataset=images)
# trainer.add_callback(callback)
# trainer.train()
# ```
#
# `train_loader` must not augment. If the one that you train with does, make a second one for the callback.

# %% [markdown]
# ## Images and sequences: what is averaged
#
# The metrics need one vector a sample. A convolution gives an image for each channel, a transformer a
# vector for each token, a GRU one for each step. In the layers before the head, all axes but samples and
# features are averaged. The head's own input is taken as it is. A mean over tokens or steps counts all of
# them, padding too if there is any: no mask is used.
#
# | layer | puts out | averaged over | features |
# |---|---|---|---|
# | linear layer, flatten | $(N, p)$ | nothing | $p$ |
# | convolution, pooling, block of a ResNet | $(N, C, H, W)$ | height and width | $C$ |
# | convolution over time | $(N, C, T)$ | time | $C$ |
# | block of a ViT | $(N, T, D)$ | tokens (or the first alone: `tokens class`) | $D$ |
# | GRU, LSTM | $(N, T, D)$ or $(T, N, D)$ | steps | $D$ |
#
# Three networks with random weights show it, one of each kind. The GRU reads an image row by row.


# %%
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        steps, _ = self.gru(x.flatten(1, 2))  # (N, 8, 32)
        return self.head(steps[:, -1])


KINDS = {  # network, and the side of its images
    "convolutional": (models.build("resnet9", width=1 / 16), 32),
    "ViT": (models.build("vit", width=1 / 8, depth=2), 32),
    "GRU": (Reader(), 8),
}


# %% tags=["hide-input"]
def last_before_pooling(net, side):
    """Layer, shape and features of the last layer with more axes than two."""
    few = data.load("digits", train_size=40, image_size=side)
    rows = measure(net, (few.train_x, few.train_y), progress=False).layers[:-1]
    shapes = {}

    def hear(name, _, output):
        shapes[name] = tuple(output.shape)

    with models.layers.listening(net, list(rows["layer"]), hear):
        net.eval()(few.train_x)
    row = rows[[len(shapes[name]) > 2 for name in rows["layer"]]].iloc[-1]
    return row["layer"], str(shapes[row["layer"]]), row["width"]


rows = {kind: last_before_pooling(*built) for kind, built in KINDS.items()}
columns = ["a layer", "puts out, for 40 samples", "features"]
figures.shown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))

# %% [markdown]
# ## What this page can tell, and what not
#
# - It measures any network whose logits, $(N, K)$, are those of an `nn.Linear` that gets one vector a sample,
#   and whose data fit one of the names above; from Python, any DataLoader. A network whose head acts on
#   $(N, T, D)$, or is a $1 \times 1$ convolution, cannot be measured.
# - Features are never kept, but each layer holds a $p \times p$ matrix for its effective rank (none above 4,096
#   features). The data are another matter: `imagenet:PATH` and a DataLoader are read batch by batch; all images
#   of `folder:PATH` are in memory at once, with $N$ images of side $s$ in $3 N s^2$ bytes (100,000 of side 224:
#   15 GB).
# - "Collapsed" is one rule of this book, and a convention. Trust the numbers more than the word.
# - Averaging over space or tokens is a choice. A layer may separate classes in a way that an average
#   hides; its NC1 is that of the average.
# - NC1 of a layer counts scatter only in directions in which class means differ. It says nothing about
#   the others; the effective rank does.
# - A checkpoint is one network. Whether another seed would give the same, only other seeds can tell.

# %% [markdown]
# ## Exercises
#
# **1.** Take the gauge out of your network: subtract from $W$ the mean of its rows, and from $b$ its mean.
# Which metrics change, and does any prediction?

# %% tags=["hide-cell"]
before = measure(network, train, layers=[], progress=False)
logits = network.eval()(digits.test_x)
with torch.no_grad():
    network.head.weight -= network.head.weight.mean(0)
    network.head.bias -= network.head.bias.mean()
after = measure(network, train, layers=[], progress=False)
assert after.metrics["nc0"] < 1e-5 < before.metrics["nc0"]
assert after.metrics["nc2"] == before.metrics["nc2"]  # features alone
for name in ("nc2w", "nc3"):  # become those of the centred W, and change
    was, centred = before.metrics[name], before.metrics[f"{name}_centred"]
    assert abs(after.metrics[name] - centred) < 1e-5 < abs(was - centred)
probabilities = network(digits.test_x).softmax(1)
assert torch.allclose(probabilities, logits.softmax(1), atol=1e-5)

# %% [markdown]
# *NC0 and the gauge share become zero, NC3 and NC2W become those of the centred W, and no prediction changes
# (solution above).*
#
# **2.** What is the effective rank of a perfectly collapsed layer of $K = 10$ classes?

# %% tags=["hide-cell"]
from ncbook import metrics

corners = metrics.simplex_etf(10).float()
labels = torch.arange(10).repeat(5)
head_alone = nn.Sequential(nn.Linear(10, 10))
ideal = measure(head_alone, (corners[labels], labels), progress=False)
rank = ideal.layers["effective_rank"].iloc[-1]
assert abs(rank - 9) < 1e-3
f"effective rank {rank:.2f}"

# %% [markdown]
# *Nine: $K - 1$ equal singular values, and no other direction (solution above).*
#
# **3.** Measure the network of exercise 1 on augmented images: every second one moved by a pixel. Which way
# does NC1 go, and what would you conclude if you did not know?

# %% tags=["hide-cell"]
moved = digits.train_x.clone()
moved[::2] = moved[::2].roll(1, dims=3)
loose = measure(network, (moved, digits.train_y), layers=[], progress=False)
assert loose.metrics["nc1"] > 2 * after.metrics["nc1"]

# %% [markdown]
# *It grows: the moved images lie apart from the others of their class. A collapsed network would look as
# if it had not collapsed (solution above).*
