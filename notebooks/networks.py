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
# # Networks for images
#
# The default network of this book is small: three hidden layers on 8 × 8 digits. The paper
# {cite}`optimizer2026` trains convolutional networks and a transformer. This chapter presents them,
# layer by layer. Then it asks what half-precision arithmetic, which makes them several times faster,
# does to the numbers that the book is about.
#
# **What you will learn**
#
# - the layers and the parameter counts of ResNet9, VGG9, ViT and ResNet50, computed from the
#   networks themselves, and which details the paper leaves open;
# - that the exact law of NC0 holds for a ResNet9 as it does for a small MLP;
# - what bfloat16 is, what autocast rounds and what it leaves alone, and why the last layer must stay
#   in float32: in bfloat16 its weight decay would do *nothing*;
# - whether NC0 to NC3 and accuracy move by more than chance if the hidden layers compute in
#   bfloat16: the same runs in both precisions, seed by seed.

# %%
import math

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from scipy.stats import t as student
from torch import nn

from ncbook import data, figures, models, store, theory

figures.start_chapter()

# %% [markdown]
# ## Four networks
#
# Every network here is a body, which turns an image into features $h$ with $p$ entries, and a linear
# last layer $W h + b$ with one row of $W$ for each of the $K$ classes. All that neural collapse
# is about happens between these two. The table is computed from `models.build`; torch's *meta*
# device knows shapes without holding any numbers.

# %%
NETWORKS = {  # name: (classes K, channels of an image)
    "resnet9": (10, 1),
    "vgg9": (10, 1),
    "vit": (10, 3),
    "resnet50": (1000, 3),
}
LONG = ("ResNet9", "VGG9", "ViT", "ResNet50")
NAMES = dict(zip(NETWORKS, LONG, strict=True))


def count(module):
    """Number of parameters."""
    return sum(q.numel() for q in module.parameters())


def facts(name, classes, channels):
    """Image, p, W's shape, parameters, the last layer's share."""
    side = models.image_size(name)
    with torch.device("meta"):
        net = models.build(name, classes, channels)
    total, last = count(net), count(net.fc)
    K, p = net.fc.weight.shape
    image = f"{channels}×{side}×{side}"
    return image, p, f"{K}×{p}", total, last / total


# %% tags=["hide-input"]
columns = ["image", "p", "W", "parameters", "in the last layer"]
rows = {NAMES[name]: facts(name, *sizes) for name, sizes in NETWORKS.items()}
table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
formats = {"parameters": "{:,}", "in the last layer": "{:.2%}"}
figures.shown(table, **formats)

# %% [markdown]
# The last layer, on which the whole book turns, is a small part of each of them. MNIST and
# Fashion-MNIST have one channel and are resized from 28 × 28 to 32 × 32; CIFAR-10 has three.

# %% [markdown]
# ### ResNet9 and VGG9
#
# Both stack 3 × 3 convolutions, each followed by batch norm and ReLU, and halve the image by
# max-pooling. ResNet9 adds the input of a pair of convolutions to its output, twice. One row below is
# one convolution with its batch norm, a pooling, or the last layer; shapes are channels × height ×
# width after it.


# %%
WORDS = {
    "Conv2d": "convolution",
    "MaxPool2d": "max-pool",
    "Linear": "linear",
}


def layers(name, channels=1):
    """(layer, shape after it, parameters), in the order of a pass."""
    seen = []

    def note(module, _, out):
        kind = type(module).__name__
        if kind in WORDS:
            shape = "×".join(map(str, out.shape[1:]))
            seen.append([WORDS[kind], shape, count(module)])
        else:  # batch norm belongs to its convolution
            seen[-1][2] += count(module)

    with torch.device("meta"):
        net = models.build(name, 10, channels)
        x = torch.empty(1, channels, 32, 32)
    for module in net.modules():
        if not [*module.children()]:
            module.register_forward_hook(note)
    net.eval()(x)
    return seen


# %% tags=["hide-input"]
def show_layers(name):
    """One network's layers as a table."""
    columns = [f"{NAMES[name]}: layer", "shape", "parameters"]
    table = pd.DataFrame(layers(name), columns=columns)
    return figures.shown(table, parameters="{:,}").hide(axis="index")


display(show_layers("resnet9"), show_layers("vgg9"))

# %% [markdown]
# The 9 in VGG9 is a name by tradition: it has six convolutions and one linear layer. Its last images
# of 256 × 2 × 2 are laid out flat, which gives $p = 1024$.

# %% [markdown]
# ### ViT and ResNet50
#
# The vision transformer cuts an image into 64 patches of 4 × 4, turns each into a vector with 512
# entries, a *token*, and adds one more token that stands for the class. Six blocks follow. In each,
# eight attention heads mix the tokens, and a small network with one hidden layer of 512 acts on each
# token by itself. The class token at the end is the feature $h$. ResNet50 is torchvision's, without
# pretrained weights.


# %%
def parts(net):
    """Parameters of each part of the body, and of the last layer."""
    named = {}
    for key, q in net.named_parameters():
        part = key.removeprefix("body.").split(".")[0]
        named[part] = named.get(part, 0) + q.numel()
    return named


# %% tags=["hide-input"]
def show_parts(name, classes, channels):
    """One line a network."""
    with torch.device("meta"):
        counts = parts(models.build(name, classes, channels))
    pieces = ", ".join(f"`{part}` {size:,}" for part, size in counts.items())
    return f"- {NAMES[name]}: {pieces}."


big = ("vit", "resnet50")
Markdown("\n".join(show_parts(name, *NETWORKS[name]) for name in big))

# %% [markdown]
# ## What the paper says, and what it leaves open
#
# The paper names the networks and gives the transformer's sizes. It does not print the layers of
# ResNet9 and VGG9. Where it is silent we follow its published code, as far as that can run, and say
# so here.
#
# | | from the paper's text | read in its published code | our choice |
# |---|---|---|---|
# | ResNet9 | the name | the channels and the pooling above | biases of convolutions, as torch has them by default |
# | VGG9 | the name | the channels above, but a last layer for 512 features | 1024, which is what arrives there |
# | ViT | patches into width 512, 6 layers, 8 heads, no dropout; based on a public repository | patch 4, inner width 512, a class token, a start from N(0, 0.02²), dropout 0.1 | no dropout, as in the text; no LayerNorm after the last block |
# | ResNet50 | the name | | torchvision's |
# | start | | torch's default, but for the ViT | the same |
#
# A convolution's bias is of no effect in training: batch norm subtracts it again. It does receive
# weight decay and goes to zero.
#
# `width` scales all hidden layers: `width 1/8` of a ResNet9 has 8 to 64 channels and trains on a
# laptop. `depth` sets the number of a ViT's blocks. The runs of this chapter are of width 1/8.

# %%
WIDTH = 1 / 8
with torch.device("meta"):
    whole = models.build("resnet9")
    narrow = models.build("resnet9", width=WIDTH)

# %% tags=["hide-input"]
display(
    Markdown(
        f"At width {WIDTH:g} a ResNet9 has {count(narrow):,} parameters in place "
        f"of {count(whole):,}, and p = {narrow.fc.in_features} features."
    )
)

# %% [markdown]
# ## The runs of this chapter
#
# **We do not train the paper's full networks here**, but ResNet9s of width 1/8 on 2,000 images of
# MNIST, 200 of each class, for 50 epochs, and the digits MLP for 200. One setting for each optimizer,
# with weight decay strong enough to show. Five seeds. A seed decides the start, the order of the
# minibatches and the subset of images. So two runs with one seed in two precisions begin equal and
# see the same images in the same order.

# %%
SETTINGS = {  # optimizer: (learning rate, weight decay); momentum 0.9
    "sgd": (0.0679, 5e-3),
    "sgdw": (0.0679, 0.05),
    "adam": (0.005, 0.05),
    "adamw": (0.005, 0.5),
}
RESNET = dict(dataset="mnist", model="resnet9", width=WIDTH)
RESNET |= dict(train_size=2000, epochs=50)
DIGITS = dict(dataset="digits", model="mlp", epochs=200)
PRECISIONS = ("float32", "bfloat16")


# %% tags=["hide-input"]
THREE = ("sgd", "adam", "adamw")
TRAIN = """both() { for p in float32 bfloat16; do
    papermill notebooks/sweep.ipynb out.ipynb -p precision $p \\
        -p momenta 0.9 -p seeds "[0, 1, 2, 3, 4]" "$@"
done; }
resnet() { both -p dataset mnist -p model resnet9 -p width 1/8 \\
    -p train_size 2000 -p epochs 50 "$@"; }
"""
each = {
    name: f"-p optimizer {name} -p lrs {lr} -p weight_decays {decay}"
    for name, (lr, decay) in SETTINGS.items()
}
lines = [f"resnet {each[name]}" for name in SETTINGS]
lines += [f"both {each[name]}  # digits" for name in THREE]
LINE = TRAIN + "\n".join(lines)
figures.folded(LINE)


# %%
def of_settings(runs, setting):
    """This chapter's runs of one network, in both precisions."""
    rows = []
    for name, (lr, decay) in SETTINGS.items():
        given = dict(lr=lr, weight_decay=decay, optimizer=name, momentum=0.9)
        for p in PRECISIONS:
            found = figures.of_setting(runs, **setting, **given, precision=p)
            rows.append(found.assign(precision=p))
    return pd.concat(rows)


stored = store.load_runs(optimizer=list(SETTINGS), momentum=0.9)
resnet = of_settings(stored, RESNET)
digits = of_settings(stored, DIGITS)


# %% tags=["hide-input"]
def show_counts(runs):
    """How many runs learned, of how many, by network, optimizer and precision."""
    by = ["model", "optimizer", "precision"]
    learned = runs["train_acc"] >= figures.CONVERGED
    groups = learned.groupby([runs[column] for column in by], sort=False)
    counts = groups.agg(["sum", "size"]).astype(str).agg(" of ".join, axis=1)
    table = counts.unstack(fill_value="–").rename_axis([None] * 2)
    table = table.rename_axis(columns=None)[list(PRECISIONS)]
    named = {model: NAMES.get(model, "MLP") for model in table.index.levels[0]}
    return figures.shown(table.rename(index=named | figures.LABELS))


def tell(runs):
    """What the table counts."""
    return (
        f"Runs in the store that reached {figures.CONVERGED:.0%} training accuracy, of how many; "
        f"{(runs['status'] == 'diverged').sum()} diverged."
    )


figures.show_if_any(pd.concat([resnet, digits]), "", show_counts, tell)

# %% [markdown]
# ## The exact law, on a ResNet9
#
# Under SGD the row sum $u = W^\top\mathbf 1$ of the last layer obeys
#
# $$ v \leftarrow \beta v + \lambda u, \qquad u \leftarrow u - \eta v, $$ (net-law)
#
# for any network under it, and under SGDW $u \leftarrow (1-\eta\lambda)u$ ({doc}`theorem_sgd`). So
# NC0 at the end over NC0 at the start is known before training. The two decays above are chosen so
# that the laws nearly agree: SGD's decay acts $1/(1-\beta) = 10$ times over, and SGDW gets ten times
# as much.


# %%
def steps(setting):
    """Minibatches of 128 in an epoch."""
    size = setting.get("train_size") or len(data.load("digits").train_y)
    return math.ceil(size / 128)


def law(optimizer, setting, epochs):
    """NC0 over its start after each of some epochs, by (net-law)."""
    lr, decay = SETTINGS[optimizer]
    n = steps(setting)
    rest = lr, 0.9, decay, n, setting["epochs"], optimizer == "sgdw"
    at = np.asarray(epochs) * n
    return np.abs(theory.row_sum_trajectory(at, *rest))


# %% tags=["hide-input"]
MARKS = {"float32": "o", "bfloat16": "x"}


def draw_course(axis, rows):
    """The measurements of one optimizer and precision over the epochs."""
    name, precision = rows["optimizer"].iloc[0], rows["precision"].iloc[0]
    left = rows["nc0"] / rows["nc0_init"]
    look = dict(color=figures.COLOURS[name], ms=5, mfc="none")
    label = f"{figures.LABELS[name]}, {precision}"
    axis.plot(rows["epoch"], left, MARKS[precision], label=label, **look)


def draw_law(runs):
    """NC0 over the epochs for SGD and SGDW: the law, and every measurement."""
    history = store.load_history(run_id=list(runs["run_id"]))
    own = runs.set_index("run_id")[["nc0_init", "precision"]]
    history = history.join(own, on="run_id")
    figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    epochs = np.arange(RESNET["epochs"] + 1)
    for name in dict.fromkeys(runs["optimizer"]):
        look = dict(color=figures.COLOURS[name], lw=1)
        axis.plot(epochs, law(name, RESNET, epochs), **look)
    for _, rows in history.groupby(["optimizer", "precision"], sort=False):
        draw_course(axis, rows)
    axis.set(xlabel="epoch", ylabel="NC0, over its start", ylim=(0, 1.05))
    axis.set_title(f"ResNet9, {len(runs)} runs; lines: the law")
    figure.set_label("NC0 over the epochs under SGD and SGDW, on the curves of the law")  # fmt: skip
    figure.legend(loc="outside right center")
    plt.close(figure)
    return figure


# %%
def off_the_law(runs, setting):
    """How far NC0 at the end is from (net-law), relative."""
    last = setting["epochs"]
    ends = {o: float(law(o, setting, last)) for o in ("sgd", "sgdw")}
    left = runs["nc0"] / runs["nc0_init"]
    return (left / runs["optimizer"].map(ends) - 1).abs()


# %% tags=["hide-input"]
def tell_law(runs):
    """What the law predicts, and the largest deviation from it."""
    off = off_the_law(runs, RESNET)
    groups = runs.groupby(["optimizer", "precision"], sort=False)
    lines = [
        f"- {figures.LABELS[name]} in {precision}: by the law "
        f"{float(law(name, RESNET, RESNET['epochs'])):.4f} of NC0 is left, "
        f"and {len(rows)} run{'s are' if len(rows) > 1 else ' is'} off by at most "
        f"{off[rows.index].max():.0e} of that."
        for (name, precision), rows in groups
    ]
    last = "Convolutions, batch norm and residual connections: the law sees none of them."
    return "\n".join(lines) + f"\n\n{last}"


lawful = resnet[resnet["optimizer"].isin(["sgd", "sgdw"])]
lawful = lawful[lawful["status"] == "ok"]
figures.show_if_any(lawful, "", draw_law, tell_law)

# %% [markdown]
# ## What bfloat16 is
#
# A float32 number has 8 bits for its exponent and 23 for its fraction. **bfloat16** keeps the 8 and
# cuts the fraction to 7. So its range is that of float32, from $10^{-38}$ to $10^{38}$, but it has
# only two to three decimal digits. Neighbouring numbers lie $2^{-8}$ to $2^{-7}$ of themselves apart,
# and rounding errs by up to half of that.

# %% tags=["hide-input"]
some = torch.tensor([1, 1.003, 1.005, math.pi, 1234.5, 1e-30])
as_text = [[f"{v:.7g}" for v in x.tolist()] for x in (some, some.bfloat16())]
table = pd.DataFrame(as_text, ["float32", "bfloat16"])
figures.shown(table).hide(axis="columns")

# %% [markdown]
# Processors multiply such numbers several times faster, and half as many bytes have to move. What
# that is worth here `benchmarks/networks.py` measures, on your machine.
#
# **Autocast** is torch's way to use it. The parameters stay float32. Each convolution and each linear
# map of the body rounds its weights and its input to bfloat16, multiplies, sums the products in
# float32, and rounds the result. Batch norm's statistics, the optimizer and its averages stay float32.
# Gradients come back in float32, too, though computed from rounded numbers. In this book the last
# layer and the loss are outside of it:

# %%
torch.manual_seed(0)
net = models.build("resnet9", width=WIDTH)
images = torch.randn(16, 1, 32, 32)
with torch.autocast("cpu", torch.bfloat16):
    H = net.body(images)
logits = net.fc(H.float())  # W and b as they are
nn.functional.cross_entropy(logits, torch.arange(16) % 10).backward()
W = net.fc.weight
kinds = {
    "a convolution's weight": net.body[0].weight,
    "features H": H,
    "W, logits": logits,
    "a convolution's gradient": net.body[0].weight.grad,
    "gradient of W": W.grad,
}

# %% tags=["hide-input"]
table = pd.DataFrame({k: [str(x.dtype).removeprefix("torch.")] for k, x in kinds.items()})  # fmt: skip
figures.shown(table.T).hide(axis="columns")

# %% [markdown]
# ## Why the last layer stays in float32
#
# There are three reasons to keep $W$, $b$ and the metrics out of autocast.
#
# **The law needs no more than that.** With softmax outputs $S$ and one-hot labels $Y$ of $N$ samples,
# the gradient is $\nabla_W\mathcal L = \frac1N(S-Y)^\top H$. The rows of $S - Y$ sum to zero,
# whatever $H$ is. So features rounded to bfloat16 leave $\mathbf 1^\top\nabla_W\mathcal L = 0$, as
# long as $S$ and the product are computed in float32. The gradient just taken:

# %% tags=["hide-input"]
row_sum = (W.grad.sum(0).norm() / W.grad.norm()).item()
assert row_sum < 1e-6
Markdown(f"‖1ᵀ∇‖ / ‖∇‖ = {row_sum:.0e}, the rounding of float32.")

# %% [markdown]
# **Weight decay would be lost.** Decoupled decay multiplies $W$ by $1-\eta\lambda$. If $\eta\lambda$
# is less than about $2^{-9} = 0.002$, then $(1-\eta\lambda)W$ rounds back to $W$ in bfloat16: the
# decay does nothing, in any number of steps. Here are a thousand steps of it alone, with the largest
# learning rate of the paper's grid for SGDW, in both precisions:

# %%
ETA, STEPS = 0.0679, 1000


def kept(dtype, eta_lambda):
    """Share of ‖W‖ that is left after STEPS steps in one precision."""
    torch.manual_seed(0)
    start = torch.randn(10, 64).to(dtype)
    weight = start.clone()
    for _ in range(STEPS):
        weight *= 1 - eta_lambda
    return (weight.float().norm() / start.float().norm()).item()


# %% tags=["hide-input"]
decays = (5e-4, 5e-3, 0.05, 0.5)
table = pd.DataFrame(
    {
        "ηλ": [ETA * d for d in decays],
        "exact": [(1 - ETA * d) ** STEPS for d in decays],
        "float32": [kept(torch.float32, ETA * d) for d in decays],
        "bfloat16": [kept(torch.bfloat16, ETA * d) for d in decays],
    },
    pd.Index(decays, name="weight decay λ"),
)
assert (table["bfloat16"].iloc[:2] == 1).all()
figures.shown(table)

# %% [markdown]
# **NC0 would drown.** Rounding $W$ to bfloat16 changes each entry by up to $2^{-8}$ of itself, and
# the row sum with it. Take a $W$ whose rows sum to zero:

# %% tags=["hide-input"]
zero_sum = torch.randn(10, 64)
zero_sum -= zero_sum.mean(0)


def left(weight):
    """NC0 over ‖W‖."""
    return (weight.float().sum(0).norm() / weight.float().norm()).item()


Markdown(
    f"NC0/‖W‖ is {left(zero_sum):.0e} in float32 and {left(zero_sum.bfloat16()):.0e} "
    f"once W has been rounded to bfloat16. Nothing smaller could be seen."
)

# %% [markdown]
# For the same reason all metrics are taken from one more forward pass in float32, with the trained
# weights as they are. What bfloat16 can change is the training: where the weights end up.

# %% [markdown]
# ## Does it change the result?
#
# The same settings and seeds in both precisions, and one pair for each seed. Let $d_i$ be the
# difference of a metric, bfloat16 less float32, at seed $i$, $\bar d$ its mean over the seeds, and
# $s$ the standard deviation of the float32 runs over the seeds. Our rule, fixed before the runs were
# made: the precision makes no difference *that matters* if
#
# $$ |\bar d| \le s , $$ (net-rule)
#
# that is, if it moves the mean by less than another seed would move a run. Whether there is any
# difference at all is another question. For that the table has the 95 % confidence interval of
# $\bar d$, by Student's t. Of twenty such intervals one misses zero by chance.
#
# The figures have a line a pair: float32 at its left end, bfloat16 at its right. In each cell of the
# table, from above: mean and $s$ of the float32 runs; $\bar d$ and half its interval; and
# $\bar d$ in units of $s$, by which {eq}`net-rule` holds if it lies between −1 and 1.

# %%
COMPARED = ("nc0", "nc1", "nc2", "nc3", "test_acc")


def pairs(runs, metric):
    """A row for each optimizer and seed, a column for each precision."""
    runs = runs[runs["optimizer"].isin(THREE) & (runs["status"] == "ok")]
    wide = runs.pivot(
        index=["optimizer", "seed"], columns="precision", values=metric
    )
    return wide.reindex(columns=list(PRECISIONS)).dropna()


def compared(runs, metric):
    """Mean and s in float32, mean difference, half its interval."""
    sides = pairs(runs, metric)
    d = (sides["bfloat16"] - sides["float32"]).groupby("optimizer")
    n, single = d.size(), sides["float32"].groupby("optimizer")
    half = student.ppf(0.975, n - 1) * d.std() / np.sqrt(n)
    named = dict(n=n, mean=single.mean(), s=single.std(), d=d.mean(), half=half)
    return pd.DataFrame(named).assign(metric=metric).reset_index()


def all_compared(runs):
    """A row for each metric and optimizer with pairs; see (net-rule)."""
    table = pd.concat([compared(runs, metric) for metric in COMPARED])
    table = table[table["n"] > 1]
    table["within s"] = table["d"].abs() <= table["s"]
    table["zero inside"] = table["d"].abs() <= table["half"]
    return table


# %% tags=["hide-input"]
LABELS = figures.METRICS | figures.ACCURACIES


def draw_metric(axis, runs, metric):
    """One line a seed from float32 (left) to bfloat16, for each optimizer."""
    for at, name in enumerate(THREE):
        sides = pairs(runs[runs["optimizer"] == name], metric).T.to_numpy()
        look = dict(ms=4, lw=1, color=figures.COLOURS[name])
        axis.plot([at - 0.2, at + 0.2], sides, "o-", **look)
    axis.set_xticks(range(3), [figures.LABELS[name] for name in THREE])
    axis.set_xlim(-0.5, 2.5)
    figures.log_values(axis)


def draw_pairs(runs, title):
    """A figure for each metric."""
    axes = figures.small_panels(len(figures.MAIN), 3.4)
    for axis, metric in zip(axes, figures.MAIN, strict=True):
        draw_metric(axis, runs, metric)
        name, count = LABELS[metric], len(pairs(runs, metric))
        axis.set_title(f"{title}: {name} at the end (n = {count} pairs)")
        axis.set_ylabel(name)
        axis.figure.set_label(f"{title}: {name} of each seed in float32 and in bfloat16")  # fmt: skip
    return figures.in_rows(*axes)


def cell(row):
    """One metric under one optimizer, in three lines."""
    lines = (
        f"{row.mean:.3g} ± {row.s:.1g}",
        f"{row.d:+.1g} ± {row.half:.1g}",
        f"{row.d / row.s:+.2f} s",
    )
    return "\n".join(lines).replace("-", "−")


def show_compared(rows):
    """The table of the comparison."""
    rows = rows.assign(cell=[cell(row) for row in rows.itertuples()])
    table = rows.pivot(index="metric", columns="optimizer", values="cell")
    table = table.reindex(index=COMPARED, columns=[*THREE]).fillna("–")
    table = table.rename(index=LABELS, columns=figures.LABELS)
    return figures.shown(table.rename_axis("").rename_axis(None, axis=1))


def tell_compared(rows):
    """The count of (net-rule), the largest difference, and the intervals that miss zero."""
    size = rows["d"].abs() / rows["s"]
    worst = rows.iloc[size.argmax()]
    missed = rows[~rows["zero inside"]]
    names = [f"{LABELS[r.metric]} of {figures.LABELS[r.optimizer]}" for r in missed.itertuples()]  # fmt: skip
    return (
        f"Pairs: {rows['n'].min()} for each cell. "
        f"{int(rows['within s'].sum())} of {len(rows)} differences are within the spread over "
        f"seeds. The largest is that of {LABELS[worst['metric']]} under "
        f"{figures.LABELS[worst['optimizer']]}, {size.max():.2g} s. Of {len(rows)} intervals those "
        f"that miss zero: {', '.join(names) or 'none'}."
    )


def compare(runs, title):
    """Figure, table and words for one network."""
    rows = all_compared(runs)
    draw = lambda _: draw_pairs(runs, title)  # noqa: E731
    figures.show_if_any(rows, "", draw, show_compared, tell_compared)


compare(resnet, "ResNet9")

# %% [markdown]
# **How much does a pair remember?** Two runs of one pair begin equal. If they stayed close, $d_i$
# would be much smaller than the difference of two seeds, whose standard deviation is $\sqrt2\,s$. For
# NC0 under SGD the law forbids them to part. For all else training may amplify the first rounding. The
# table has the standard deviation of $d_i$ over $\sqrt2\,s$: near zero where a pair stays together,
# about one where it is no closer than two seeds.


# %%
def memory(runs):
    """Standard deviation of d over √2 s, by optimizer and metric."""
    table = {}
    for metric in COMPARED:
        sides = pairs(runs, metric)
        d = (sides["bfloat16"] - sides["float32"]).groupby("optimizer").std()
        spread = sides["float32"].groupby("optimizer").std()
        table[LABELS[metric]] = d / (math.sqrt(2) * spread)
    table = pd.DataFrame(table).dropna(how="all")
    return table.rename(index=figures.LABELS).rename_axis("")


figures.show_if_any(memory(resnet), "", figures.shown)

# %% [markdown]
# ### The small network, too
#
# The digits MLP of the book's sweeps, at the same learning rates and decays, for 200 epochs.

# %% tags=["hide-input"]
compare(digits, "Digits MLP")

# %% [markdown]
# ## What was shown


# %% tags=["hide-input"]
def conclude():
    """Both networks in one sentence each."""
    lines = [
        f"- {name}: {int(found['within s'].sum())} of {len(found)} differences between the "
        f"precisions are within the spread over seeds; {int(found['zero inside'].sum())} of the "
        f"intervals hold zero."
        for name, found in (
            ("ResNet9 of width 1/8", rows),
            ("Digits MLP", small),
        )
        if len(found)
    ]
    return "\n".join(lines)


rows, small = all_compared(resnet), all_compared(digits)
figures.show_if_any(pd.concat([rows, small]), "", lambda _: conclude())

# %% [markdown]
# - The networks' shapes are those of the paper's published code as far as it runs. What it leaves
#   open is in the table above.
# - The law of NC0 holds on a ResNet9 in both precisions, since the last layer is in float32 in both.
# - In bfloat16 throughout it could not hold: a weight decay of $\eta\lambda < 2^{-9}$ would never
#   act.
# - The comparison is about small networks, three settings and five seeds. It can show a difference as
#   large as the spread over seeds; a much smaller one it would miss. float32 remains the default of
#   every sweep; `-p precision bfloat16` asks for the other.
