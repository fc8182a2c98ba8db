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
# # Where the law ends: leaks and rounding
#
# **Question.** Where the exact law of {doc}`symmetry` does not hold, what sets NC0?
#
# **Answer.** The update's part along the flat direction, its *leak*. Under AdamW, SignumW and Lion it keeps a
# direction, and NC0 comes to a balance, the leak over $\lambda$, if there is time for it. Under Muon and SOAP it is rounding
# alone, which sets a floor, predicted with nothing fitted: Muon's from unit roundoff, within a factor of 2 in 45 of 74 runs
# (in 24 of the 32 in which the floor exceeds what the law leaves), SOAP's in bfloat16, where the size of the rounding
# cancels, in 18 of 18, at one learning rate. SOAP in float32 does not meet the assumptions.

# %%
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from ncbook import data, figures, optim, store, theory, train
from ncbook.theory import leaks, symmetry
from ncbook.train.loop import initial_network

figures.start_chapter()
size = np.linalg.norm
K, P, STEPS, EPOCHS = 10, 128, 11, 200  # of the book's MLP on digits
DIGITS_MLP = dict(dataset="digits", model="mlp", epochs=EPOCHS, momentum=0.9)
FACTORS = np.repeat(
    [train.learning_rate_factor(e, EPOCHS) for e in range(EPOCHS)], STEPS
)
stored = figures.uniform(store.load_runs(status="ok"))
history = store.load_history(status="ok", dataset="digits", model="mlp")
of_digits = figures.of_setting(stored, **DIGITS_MLP)
PICKED = ("lion", 0.001, 5), ("soapw", 0.005, 2), ("muonw", 0.02, 2)
first = of_digits[of_digits["optimizer"].isin([name for name, *_ in PICKED])]


def course(runs, name, lr, decay):
    """NC0 by epoch, median over the seeds, and what the law leaves of its start."""
    chosen = runs[(runs["optimizer"] == name) & (runs["lr"] == lr)]
    chosen = chosen[chosen["weight_decay"] == decay]
    rows = history[history["run_id"].isin(chosen["run_id"])]
    middle = rows.groupby("epoch")["nc0"].median()
    kept = np.cumprod(1 - lr * decay * FACTORS)[STEPS - 1 :: STEPS]
    return middle, middle.get(0, np.nan) * np.append(1, kept)


# %% tags=["hide-input"]
LINES = """train() {
    papermill notebooks/sweep.ipynb out.ipynb -p momenta 0.9 -p seeds "[0, 1, 2]" "$@"
}
for optimizer in muonw soapw lion mars adamw signumw; do
    train -p optimizer $optimizer
done
for optimizer in muonw soapw; do
    train -p optimizer $optimizer -p update_precision bfloat16
done"""


def draw_first(runs):
    """NC0 over the epochs and, dotted, the law, of one setting each."""
    figure, axis = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    for setting in PICKED:
        (middle, law), look = course(runs, *setting), figures.look(setting[0])
        look |= dict(label=f"{look['label']}, λ = {setting[2]}", linestyle="-")
        axis.plot(middle.index, middle, **look)
        axis.plot(law, ":", color=look["color"])
    axis.set(ylabel="NC0", yscale="log", ylim=(1e-8, 30))
    figures.epoch_axis(axis, EPOCHS)
    axis.legend(loc="lower left")
    plt.close(figure)
    return figure


figures.with_lines(first, LINES, draw_first)

# %% [markdown]
# *NC0 during training, medians over the seeds; dotted, what the law leaves at the same settings. Lion's
# NC0 leaves the law from the start. Those of SOAP and Muon follow it, until each stops at a floor of its
# own, orders of magnitude apart.*
#
# **What you will learn**
#
# - why the flat direction is a *passenger*: it is driven by the training and never acts back on it;
# - what AdamW's, SignumW's and Lion's NC0 is: a balance, with a bound that is proved for signs;
# - how unit roundoff alone gives the floor of Muon and SOAP, and where it fails;
# - what coupled decay does under Muon, and two cases in which SOAP loses its symmetry.
#
# All stored runs of this chapter are of one network, the book's MLP on digits, with momentum 0.9: $K = 10$
# classes, $p = 128$ features, 200 epochs of 11 steps, the learning rate divided by ten after each third.
# Trainings that run in this page have the same network with a quarter of the width, but for the last figure's.
#
# ## The row sum is driven
#
# Decoupled decay takes $W$ to $(1-\eta_t\lambda)W - \eta_t D_t$, with a direction $D_t$ that the optimizer
# makes of the gradients. Call $\ell_t = \mathbf 1^\top D_t$ the *leak* of step $t = 1, \dots, T$. For every
# optimizer the row sum $u = W^\top\mathbf 1$, whose norm is NC0, obeys
#
# $$ u_t = (1-\eta_t\lambda)\,u_{t-1} - \eta_t\,\ell_t . $$ (leaks-driven)
#
# With $\rho(T,t) = \prod_{t<r\le T}(1-\eta_r\lambda)$, the share that decay leaves of what was there after
# step $t$, the training ends with a sum of discounted leaks:
#
# $$ u_T = \rho(T,0)\,u_0 - \sum_t \eta_t\,\rho(T,t)\,\ell_t , \qquad
# \sum_t \eta_t\,\rho(T,t) = \frac{1-\rho(T,0)}{\lambda} . $$ (leaks-sum)
#
# The reflection principle says that for SGD, Muon, Shampoo and SOAP (with $p \ge K-1$) all leaks are zero. Then
# {eq}`leaks-driven` is the exact law {eq}`law-of-all`. Now to the others. (That Adam moves the mean of all rows
# and SGD does not was found for the output embeddings of language models {cite}`stollenwerk2025`.)
#
# (leaks-passenger)=
# ## The gauge is a passenger
#
# **Theorem.** *Let the loss ignore a common shift of a sample's logits, and let $W$ be used in the last layer alone.
# Let the directions be functions of the gradients alone, as those of Adam, Signum, Lion and Muon are, and let the
# decay be decoupled. Train twice, with the same minibatches and all else equal: from $W_0$, and from
# $W_0 + \mathbf 1c^\top$. Then at every step both networks compute the same probabilities, their hidden layers and
# the optimizers' averages are equal, and the last layers differ by $\rho(t,0)\,\mathbf 1c^\top$.*
#
# *Proof.* By induction over the steps. If the last layers differ by $\mathbf 1c_{t-1}^\top$, all logits of a
# sample differ by one number, which the loss ignores. So the losses are the same function of all other
# parameters, and all gradients agree. Equal gradients make equal directions, and after step $t$ the last
# layers differ by $(1-\eta_t\lambda)\,\mathbf 1c_{t-1}^\top$. ∎
#
# So $\ell_t$ depends on the data, the hidden layers and the centred part of $W$, never on $u$. Take the gauge out of
# $W$ at the start, at the end or in between: no prediction changes, ever. Under *coupled* decay the optimizer sees
# $G + \lambda W$, the gauge enters its averages, and the theorem fails (but for SGD, which is linear: there the
# factor changes, and the averages, too, differ along $\mathbf 1$, and nothing else does). It fails for directions
# that depend on $\lVert W\rVert$, too, such as LAMB's.
#
# To watch it, we need a training that notes each row sum. (Blank pixels are exactly 0 in `IMAGES`: a weight on
# a constant pixel has no gradient under batch norm, but rounding instead, and signs would make ±1 of that.)

# %%
DIGITS = data.load("digits")
IMAGES = DIGITS.train_x.double() - DIGITS.train_x.double().amin(0)


def begun(name, lr, decay, shift=0.0, dtype=torch.float64, width=0.25):
    """A network, with one number added to its last weight, and its optimizer."""
    config = train.RunConfig(dataset="digits", model="mlp", width=width)
    net = initial_network(config, DIGITS).to(dtype)
    with torch.no_grad():
        net.fc.weight += shift
    given = dict(weight_decay=decay)
    if optim.rule(name).direction in optim.FOR_MATRICES:
        given["vector_lr"] = 1e-3
    return net, optim.Optimizer(net.parameters(), name, lr, **given)


def batches(epochs):
    """The factor of the learning rate and the samples of each step."""
    order = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        factor = train.learning_rate_factor(epoch, epochs)
        for batch in torch.randperm(len(IMAGES), generator=order).split(128):
            yield factor, batch


# %%
def trained(net, made, epochs):
    """u_0 … u_T, the learning rates, and norms of the last layer, a row each step."""
    weight, lr = net.fc.weight, made.param_groups[0]["lr"]
    rows, noted = [weight.detach().double().sum(0)], []
    for factor, batch in batches(epochs):
        made.param_groups[0]["lr"] = lr * factor
        made.zero_grad()
        logits = net(IMAGES[batch].to(weight.dtype))
        torch.nn.functional.cross_entropy(
            logits, DIGITS.train_y[batch]
        ).backward()
        made.step()
        average = made.state[weight]["slots"][0].double()
        seen = (
            average.norm(),
            average.sum(0).norm(),
            weight.grad.double().sum(0).norm(),
        )
        noted.append([lr * factor, *map(float, seen)])
        rows.append(weight.detach().double().sum(0))
    return torch.stack(rows).numpy(), *np.array(noted).T


# %%
rows = {}
for name, decay in (("adamw", 1.0), ("lion", 1.0), ("adam", 0.05)):
    probabilities, ends = [], []
    for shift in (0.0, 0.3):
        net, made = begun(name, 0.005, decay, shift)
        u, lrs, *_ = trained(net, made, epochs=6)
        with torch.no_grad():
            probabilities.append(net.eval()(IMAGES).softmax(1))
        ends.append(u[-1])
    change = float((probabilities[1] - probabilities[0]).abs().max())
    law = K * 0.3 * np.prod(1 - lrs * decay) if name != "adam" else np.nan
    rows[name] = change, (ends[1] - ends[0]).mean(), law
assert max(rows["adamw"][0], rows["lion"][0]) < 1e-10 < 0.01 < rows["adam"][0]

# %% tags=["hide-input"]
columns = ["largest change", "row sums apart", "by the theorem"]
table = pd.DataFrame(rows, index=columns).T.rename(index=figures.LABELS)
six = dict.fromkeys(columns[1:], "{:.6f}")
figures.shown(table, **{"largest change": "{:.0e}"}, **six)

# %% [markdown]
# *One number, 0.3, was added to all of $W_0$: the largest change of any probability, and how far the row sums are
# apart at the end. With decoupled decay nothing that the network predicts changes, but for the last digits of
# float64; under coupled decay (Adam) it is another training.*
#
# ## What sets AdamW's NC0: a balance
#
# In {eq}`leaks-sum` the weights of all leaks sum to $(1-\rho(T,0))/\lambda$. If the leak keeps a direction, with
# mean $\bar\ell$, then after some $1/(\eta\lambda)$ steps leak and decay balance:
#
# $$ \text{NC0} \to \lVert\bar\ell\rVert / \lambda . $$ (leaks-balance)
#
# If leaks were independent from step to step, with mean zero, NC0 would be smaller, about
# $\sqrt{\eta\,\mathbb E\lVert\ell\rVert^2/(2\lambda)}$. That will be rounding's case; AdamW's leaks keep a
# direction. How large can it be? For signs there is a proof.
#
# **Bound.** *Under SignumW and Lion, with such a loss and $\eta_t\lambda \le 1$,*
#
# $$ \text{NC0}_T \le \rho(T,0)\,\text{NC0}_0 + (K-2)\sqrt p\;\frac{1-\rho(T,0)}{\lambda} . $$ (leaks-bound)
#
# *Proof.* Both take the sign of a weighted sum of gradients, and the columns of gradients sum to zero. A column of
# $K$ numbers that sum to zero has both signs or is zero, so its signs sum to at most $K-2$. There are
# $p$ columns, so $\lVert\ell_t\rVert \le (K-2)\sqrt p$; put that into {eq}`leaks-sum`. ∎
#
# This is proved for exact arithmetic. In float32, where a sample fits so well that one minus its probability rounds to
# zero, its gradient has no negative entry left, and with features of a ReLU all signs of a column can agree: then only
# $K$ in place of $K-2$ is proved. Every run of this chapter keeps the sharper bound all the same.
#
# It is tight: the sign descent of the paper's Theorem 3.3 ({doc}`theorem_signgd`), which has $p = K$ and starts at
# $W = 0$, attains it. In trainings of 45 epochs, with the mean leak of the second half of the first third:

# %%
alpha = theory.simulate_signgd(K, 0.01, 2.0, 300, coupled=False)[-1]
bound = leaks.sign_bound([0.01] * 300, 2.0, classes=K, width=K)
assert np.isclose((K * alpha) ** 0.5, bound, rtol=1e-12)  # α = NC0²/K

rows = {}
for name, decay in (
    ("adamw", 5.0),
    ("adamw", 10.0),
    ("lion", 5.0),
    ("lion", 10.0),
):
    u, lrs, *_ = trained(*begun(name, 0.005, decay), epochs=45)
    drop = len(lrs) // 3
    known = leaks.leaks_of(u, lrs, decay)[drop // 2 : drop].mean(0)
    bound = leaks.sign_bound(lrs, decay, K, u.shape[1], size(u[0]))
    found = size(known) / decay, size(u[drop]), size(u[-1]), bound
    rows[f"{figures.LABELS[name]}, λ = {decay:g}"] = found
    assert abs(found[0] / found[1] - 1) < 0.1
assert all(rows[key][2] <= rows[key][3] for key in rows if key[:4] == "Lion")

# %% tags=["hide-input"]
columns = [
    "mean leak over λ",
    "NC0 at the drop",
    "at the end",
    "bound for signs",
]
figures.shown(pd.DataFrame(rows, index=columns).T)

# %% [markdown]
# By {eq}`leaks-driven` the first column is the norm of the average of $u$ over those steps, but for $u$'s change over
# them. That it nearly equals the second says that $u$ hardly moved: its leak has a mean, and decay balances it. So
# the balance is there when the learning rate first drops, and little moves after it. Is it so in the stored runs?
# Dividing their NC0 by $(1-\rho(T,0))/\lambda$, the sum of all weights, gives the constant leak that would have made
# it from a start at zero.

# %%
balanced = of_digits[
    of_digits["optimizer"].isin(["adamw", "signumw", "lion", "mars"])
]
total = [
    leaks.weights(r.lr * FACTORS, r.weight_decay)[0].sum()
    for r in balanced.itertuples()
]
balanced = balanced.assign(leak=balanced["nc0"] / total)


# %% tags=["hide-input"]
def draw_balance(runs):
    """NC0 at the end, and the constant leak that would make it, against λ."""
    axes, most = figures.small_panels(2), (K - 2) * P**0.5
    for name, own in figures.by_optimizer(runs):
        for rank, (_, rows) in enumerate(own.groupby("lr")):
            middle = rows.groupby("weight_decay")[["nc0", "leak"]].median()
            look = figures.look(name) | dict(marker="o", ms=3 + 2 * rank, lw=1)
            look |= {"label": look["label"] if rank == 0 else None}
            for axis, column in zip(axes, middle, strict=True):
                axis.plot(middle.index, middle[column], **look)
    decays, dots = np.geomspace(1, 10), dict(ls=":", color="#444444")
    axes[0].plot(decays, most / decays, label="bound for signs", **dots)
    axes[1].axhline(most, label="bound for signs", **dots)
    for axis, title in zip(axes, ["NC0 at the end", "leak"], strict=True):
        axis.set_xscale("symlog", linthresh=0.05, linscale=0.4)
        axis.set(xlabel="weight decay λ", ylabel=title, yscale="log")
        axis.set_xlim(-0.02, 14)
        axis.set_xticks([0, 0.05, 0.5, 5], ["0", "0.05", "0.5", "5"])
        axis.minorticks_off()
    return figures.in_rows(*axes)


figures.show_if_any(balanced, "", draw_balance)

# %% [markdown]
# *First NC0 at the end of the stored runs, medians over the seeds; the larger the dot, the larger the
# learning rate. Dotted: $(K-2)\sqrt p/\lambda$. Second, the constant leak that would have made it; a balance
# with a fixed leak would be a level line.*
#
# No run of a sign exceeds its bound (n = 144); where $\lambda\sum_t\eta_t$ is 4 or more, so that there was time for
# the balance, a run comes to 0.42 to 0.60 of it (n = 38). From the first drop of the learning rate to the end, 134
# epochs, NC0 changes by factors of 0.95 to 1.37 (n = 333). In most of these runs it could not move by more: a tenth
# of the sum of all learning rates is left. In the 49 in which decay still could move it ($\lambda\sum_t\eta_t > 1$
# after the drop) the factor is 1.00 to 1.02 under SignumW, a balance, 1.07 to 1.11 under AdamW and 1.07 to 1.36 under
# MARS, whose leaks still grow. None of the 49 is Lion's.
#
# From one $\lambda$ to another the NC0 of AdamW and MARS cannot be forecast, that of SignumW and Lion to a factor of
# about 2. From the least $\lambda > 0$ to the largest, at the largest learning rate, the leak grows 57 times under
# AdamW and 32 times under MARS, but only 1.4 times under SignumW and 1.8 times under Lion; at the smallest it is 5.8,
# 8.1, 2.0 and 1.0 times. (With little decay this leak averages over the whole training, with much over its end, so a
# part of the growth is the shorter window.) λ grows 20,000 times for AdamW and SignumW, 100 times for the other two.
# (What is left of the start counts as leak here. Whatever its direction, without it the four factors are 44 to 81, 29
# to 37, 1.4 and 1.7 to 2.0.) We suppose that with little decay the network fits its data, gradients change sign at
# random, and Adam's direction shrinks, while more decay keeps the gradients alive. So AdamW's NC0 need not fall with
# $\lambda$.
#
# ## The floor of low precision, from unit roundoff
#
# Muon, Shampoo and SOAP have $\ell_t = 0$ in exact arithmetic. Rounding leaves $\mathbf 1^\top D_t = \xi_t$. Let $s$
# be its spread, the root mean square of $\lVert\xi-\bar\xi\rVert$, and $\tau = 1 + 2\sum_k\operatorname{corr}(k)$ its *memory*
# in steps, with the correlation of $\xi_t$ and $\xi_{t+k}$. Then {eq}`leaks-driven` gives, at a constant learning
# rate, in the long run and for $\tau$ well below $1/(\eta\lambda)$,
#
# $$ \mathbb E\lVert u\rVert^2 \approx \frac{\eta\,\tau s^2}{2\lambda} +
# \frac{\lVert\bar\xi\rVert^2}{\lambda^2}, $$ (leaks-floor)
#
# and `symmetry.noise_floor` sums it step by step for any schedule. What are $s$ and $\tau$? Let $\delta$ be the
# root mean square of a rounding's error over that of the numbers, $2.3\cdot10^{-8}$ in float32 and 65,536 times that in
# bfloat16.
#
# **Muon.** Its average $m \leftarrow \beta m + (1-\beta)G$ is rounded three times a step, and an error along $\mathbf 1$
# stays for about $1/(1-\beta)$ steps. Two roundings more come with Nesterov's step:
#
# $$ \lVert\mathbf 1^\top m\rVert / \lVert m\rVert_F \approx \delta\sqrt{3/(1-\beta^2) + 2} . $$ (leaks-share)
#
# Five Newton–Schulz steps multiply a tiny singular value by $3.4445^5 = 485$, and their own products
# add roundings of a similar size (`leaks.newton_schulz_noise`). In bfloat16 the sum is 65,536 times that of
# products in float32, 1.6 for ten classes: there the five steps just begin to saturate, which takes 3 % off.
#
# **SOAP.** In its basis the coordinate along $\mathbf 1$ holds rounding alone, of size $n$ in each number, and is
# divided by its own root mean square plus $10^{-8}$. If $n \gg 10^{-8}$ the *size of the rounding cancels*. What a
# moving average leaves of independent numbers has the variance $(1-\beta)/(1+\beta)$, so
#
# $$ s = \sqrt{Kp\,\tfrac{1-\beta}{1+\beta}}\;\frac{n}{n+10^{-8}}, \qquad \tau = \frac{1+\beta}{1-\beta}, \qquad
# \mathbb E\lVert u\rVert^2 \to \frac{\eta K p}{2\lambda}
# \;\text{ if } n \gg 10^{-8}. $$ (leaks-soap)
#
# SOAP makes of an error far above $10^{-8}$ a direction as large as if it were a gradient. In float64, where $n$ is far
# below $10^{-8}$, the $10^{-8}$ puts the law back. In float32 $n$ is below it, too (measured below), so that the
# formula, which takes the quotient as one, assumes too much there.
#
# The prediction takes the settings and NC0 at the start alone. Here it is for *all* stored runs of MuonW and SOAPW
# in float32 and bfloat16.

# %%
low = figures.of_setting(stored, **DIGITS_MLP, update_precision="bfloat16")
rounded = pd.concat([of_digits, low])
rounded = rounded[rounded["optimizer"].isin(["muonw", "soapw"])]
rounded = rounded.assign(format=figures.products(rounded))
predicted = []
for run in rounded.itertuples():
    muon = run.optimizer == "muonw"
    s, memory = (
        leaks.muon_leak(K, run.format) if muon else leaks.soap_leak(K, P)
    )
    given = run.lr * FACTORS, run.weight_decay, s, run.nc0_init, memory
    predicted.append(symmetry.noise_floor(*given))
rounded = rounded.assign(predicted=np.array(predicted, float))
rounded["ratio"] = rounded["predicted"] / rounded["nc0"]


# %% tags=["hide-input"]
def draw_floor(runs):
    """NC0 predicted and at the end, one dot a run."""
    figure, axis = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
    for (name, form), rows in runs.groupby(["optimizer", "format"]):
        label = f"{figures.LABELS[name]}, {form} (n = {len(rows)})"
        look = dict(mec=figures.COLOURS[name], mfc="none", label=label)
        look |= dict(mfc=figures.COLOURS[name]) if form == "bfloat16" else {}
        axis.plot(rows["predicted"], rows["nc0"], "o", ms=5, **look)
    ends = np.array([runs["nc0"].min() / 3, runs["nc0"].max() * 3])
    axis.fill_between(ends, ends / 2, ends * 2, color="#dddddd", lw=0)
    axis.plot(ends, ends, color="#555555", lw=0.8)
    axis.set(xlabel="NC0 predicted, law and floor", xscale="log")
    axis.set(ylabel="NC0 at the end", yscale="log")
    axis.legend(loc="lower right")
    return plt.close(figure) or figure


def show_within(runs):
    """Runs within a factor of two, and the median of predicted over measured."""
    runs = runs.assign(within=runs["ratio"].between(1 / 2, 2))
    groups = runs.groupby(["optimizer", "format", "weight_decay"])
    seen = groups.agg(
        n=("within", "size"),
        inside=("within", "sum"),
        ratio=("ratio", "median"),
    )
    words = [f"{r.inside} of {r.n}\n× {r.ratio:.2g}" for r in seen.itertuples()]
    table = pd.Series(words, seen.index).unstack(["optimizer", "format"])
    table.columns = [f"{figures.LABELS[o]}\n{form}" for o, form in table]
    return figures.shown(table.rename_axis("λ"))


figures.show_if_any(rounded, "", draw_floor, show_within)

# %% [markdown]
# *Each dot is a run, over all stored learning rates and λ; the grey band is a factor of 2. The table counts runs
# inside of the band; small, the median of predicted over measured.*
#
# SOAP in float32 does not meet the assumption (below), so its 42 of 54 inside are no evidence. Of the other 92 runs
# 63 are inside: 42 of the 50 for which the floor exceeds what the law leaves, over 7 orders of magnitude, and 21 of
# the 42 for which it is less: Muon's floor can lie far above the law.
#
# **Three ways in which it fails.** *Muon with little decay*: with λ from 0 to 0.5 and learning rates of 0.02
# or more, in float32, the prediction is up to 157 times too low (n = 21 of 24), and in bfloat16 2.8 to 5.1 times with
# λ of 0.05 and 0.1 (n = 6). *SOAP in float32 with λ = 0.5
# and 2*: at learning rates of 0.005 or more it is 4.3 times too high (n = 12). *Muon at a small learning rate*:
# with λ = 5 and 0.005 it is 0.45 to 0.50 of NC0 (n = 3); storing $W$ rounds it, too, by about
# $\sqrt2\,\delta\lVert W\rVert_F$ a step over all of $u$, and with this it is 0.49 to 0.55, so
# that does not explain it. For the first two look at
# the rounding itself, in trainings in float32 with little decay and with much:


# %%
def rounding_of(name, lr, decay):
    """Rounding along 1 in the middle third of 30 epochs in float32, and the leak's spread."""
    u, lrs, norm, along, of_gradient = trained(
        *begun(name, lr, decay, dtype=torch.float32), epochs=30
    )
    part = slice(len(lrs) // 3, 2 * len(lrs) // 3)
    seen = leaks.leak_statistics(leaks.leaks_of(u, lrs, decay)[part])
    n = np.sqrt((of_gradient[part] ** 2).mean() / (K * u.shape[1]))
    return along[part].mean() / norm[part].mean(), n, seen.spread


rows = {}
for decay in (0.1, 5.0):
    share, _, spread = rounding_of("muonw", 0.02, decay)
    s = leaks.muon_leak(K)[0], leaks.muon_leak(K, share=share)[0]
    rows[f"MuonW, λ = {decay:g}"] = share, *s, spread
for decay in (0.1, 0.5, 5.0):
    _, n, spread = rounding_of("soapw", 0.005, decay)
    s = [leaks.soap_leak(K, 32, noise=known)[0] for known in (np.inf, n)]
    rows[f"SOAPW, λ = {decay:g}"] = n, *s, spread
assert rows["MuonW, λ = 0.1"][3] > 5 * rows["MuonW, λ = 5"][3]
for case in ("SOAPW, λ = 0.1", "SOAPW, λ = 0.5"):
    assert rows[case][3] < rows[case][1] / 2

# %% tags=["hide-input"]
columns = ["rounding", "s, a priori", "s, by rounding", "s, measured"]
table = pd.DataFrame(rows, index=columns).T
figures.shown(table, **dict.fromkeys(columns, "{:.2g}"))

# %% [markdown]
# *Rounding: for Muon the quotient of {eq}`leaks-share`, for SOAP $n$, measured in epochs 11 to 20 of 30. Then the
# leak's spread as assumed above, as computed from that rounding, and as measured.*
#
# With little decay the network fits its data, and Muon's average falls, but not its part along $\mathbf 1$: softmax
# in float32 rounds one minus a probability, whatever is left of the gradient. So the quotient is far above
# {eq}`leaks-share`, and the spread grows with it. How far, we cannot say before training. SOAP's $n$ is below
# $10^{-8}$, so the assumption above fails. With the measured $n$ the spread comes out closer with little decay, and
# too small with much. And that the stored runs with λ = 0.1 and below agree is no evidence: there, too, the spread is
# less than half of the assumed one, and something else, perhaps a mean, makes up for it.
#
# **Shampoo** is milder. Its $L$ has the eigenvalue 0 along $\mathbf 1$, so its root there is $(10^{-6})^{-1/4} = 32$,
# and in float32 the floor lies below $10^{-5}$ for $\lambda\ge2$. We have no a priori value for it.
#
# ## Coupled decay under Muon, and two exceptions of SOAP
#
# Under coupled decay Muon sees $A = G + \lambda W$, averaged, which along $\mathbf 1$ is $\lambda u$. Let $\varphi$ be
# its polynomial of five steps. If $u$ is orthogonal to the right singular vectors of the rest of $A$, it is a
# singular vector itself, and
#
# $$ \lVert u\rVert \leftarrow \lVert u\rVert - \eta\sqrt K\,\varphi(x), \qquad
# x = \frac{\lambda\lVert u\rVert}{\sqrt K\,\lVert A\rVert_F}, $$ (leaks-coupled)
#
# where $\varphi(x) \approx 485\,x$ below $10^{-3}$, and 0.7 to 1.2 above $10^{-2}$. So while
# $x$ is large NC0 falls by about $\eta\sqrt K$ a step, whatever $\lambda$ is, and where it is small, exponentially,
# by $485\,\eta\lambda/\lVert A\rVert_F$ a step. Muon averages twice, with $\beta = 0.9$, and so does the code:


# %%
def coupled_muon(start, lrs, decay, norms, beta=0.9):
    """NC0 before and after each step by (leaks-coupled), from ‖A‖_F at each step."""
    nc0, mean = [start], 0.0
    for lr, norm in zip(lrs, norms, strict=True):
        mean = beta * mean + (1 - beta) * decay * nc0[-1]
        ahead = beta * mean + (1 - beta) * decay * nc0[-1]
        x = min(abs(ahead) / (K**0.5 * norm), 1.0)
        step = lr * K**0.5 * np.sign(ahead) * leaks.newton_schulz(x)
        nc0.append(nc0[-1] - step)
    return np.abs(nc0)


# %%
falls = {}
for decay in (0.0005, 0.005, 0.05):
    u, lrs, norms, *_ = trained(*begun("muon", 0.02, decay, width=1.0), 9)
    predicted = coupled_muon(size(u[0]), lrs, decay, norms)
    falls[decay] = size(u, axis=1), predicted

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
shades = ("#e3a1bb", "#c2558a", "#7a1f55")
for shade, (decay, sides) in zip(shades, falls.items(), strict=True):
    axis.plot(sides[0], color=shade, label=f"λ = {decay:g}")
    axis.plot(sides[1], ":", color=shade)
axis.set(xlabel="step", ylabel="NC0", ylim=(0, 2))
axis.legend(title="Muon, coupled decay")
plt.close(figure)
figure

# %% [markdown]
# *The MLP of full width; dotted, {eq}`leaks-coupled` with the run's own $\lVert A\rVert_F$. The fast part is as
# predicted. Then remains what of $u$ lies along the $K-1$ right singular vectors of the rest of $A$, a share
# of about $\sqrt{(K-1)/p}$ of a random $u$, which falls more slowly.*
#
# SOAP is equivariant as long as $\mathbf 1$ is an eigenvector that its basis must contain. With fewer features than
# $K-1$, gradients have other null directions, and the basis mixes $\mathbf 1$ with them. With *coupled* decay SOAP
# sees $\lambda u$ along $\mathbf 1$, divides it by its own size plus $10^{-8}$, and so takes about
# $c = 10^8\,\eta\lambda$ times a tiny $u$ off in a step. Without momentum $u = 0$ is unstable where $c > 2$; with
# $\beta = 0.9$, by the recursion $z^2 - (1+\beta-(1-\beta)c)z + \beta$, where $c > 2(1+\beta)/(1-\beta) = 38$: at
# $\eta = 0.005$ from $\lambda = 8\cdot10^{-5}$ on. There rounding grows to the size of a step, in float64, too.

# %%
CASES = {
    "10 features, decoupled": ("soapw", 0.1, (10, 10)),
    "6 features, decoupled": ("soapw", 0.1, (10, 6)),
    "10 features, coupled, λ = 1e-7": ("soap", 1e-7, (10, 10)),
    "10 features, coupled, λ = 0.1": ("soap", 0.1, (10, 10)),
}
leaked = {}
for case, (name, decay, shape) in CASES.items():
    more = dict(name=name, lr=0.01, weight_decay=decay)
    found = symmetry.equivariance(
        lambda p, m=more: optim.Optimizer(p, **m), shape
    )
    leaked[case] = found.leak
assert [leak > 1e-5 for leak in leaked.values()] == [False, True, False, True]
table = pd.Series(leaked).to_frame("leak")
figures.shown(table, leak="{:.0e}")

# %% [markdown]
# *The leak of SOAP in 20 steps on random gradients of 10 classes, in float64, as in {doc}`symmetry`.*
#
# ## What was shown, and where it holds
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | Under decoupled decay the gauge never acts on what predicts | proved | any network and data, a loss that ignores a common shift of the logits, directions made of gradients alone |
# | Under signs NC0 is at most about $(K-2)\sqrt p/\lambda$ | proved in exact arithmetic; measured in 144 runs | the same; SignumW and Lion with $\eta\lambda\le1$. In float32 $K$ stands for $K-2$ in the proof. For AdamW only a far larger bound is proved ({doc}`theorem_signgd`) |
# | AdamW's, SignumW's and Lion's NC0 is a balance of leak and decay | measured | digits MLP, where there is time for it; AdamW's leak still grows by a tenth. SignumW and Lion reach 0.42 to 0.60 of the bound (n = 38, 3 of them Lion's); AdamW was followed step by step in two trainings |
# | AdamW's NC0 at one $\lambda$ does not give that at another | measured | its leak grows with $\lambda$; that of signs hardly does |
# | Muon's floor comes from unit roundoff, SOAP's from rounding of any size above $10^{-8}$ | argued; measured within a factor of 2: Muon in 45 of 74 runs, SOAP in bfloat16 in 18 of 18 | digits MLP; in bfloat16 one learning rate each. Not with little decay under Muon, nor for SOAP in float32, whose rounding is below $10^{-8}$; Shampoo's floor has no value |
# | Coupled decay under Muon takes NC0 down as {eq}`leaks-coupled` says | argued; computed in three trainings | down to the share of $u$ along the other singular vectors |
#
# ## Exercises
#
# **1.** *Two classes.* What does {eq}`leaks-bound` say for $K = 2$? Which optimizers that fail the test of
# {doc}`symmetry` pass it there?

# %% tags=["hide-input"]
# K − 2 = 0, so SignumW and Lion follow the exact law. The two rows of a gradient are g and −g, so any
# direction that is an odd function of single numbers has rows d and −d: Adam, MARS and signs all pass.
for name in ("adamw", "mars", "signumw", "lion"):
    for classes, leaky in ((2, False), (3, True)):
        result = symmetry.equivariance(
            lambda p, name=name: optim.Optimizer(p, name, lr=0.01),
            (classes, 8),
        )
        assert (result.leak > 1e-9) == leaky, name
print("With two classes all four pass.")

# %% [markdown]
# **2.** *A mean or none.* Drive a row sum of 128 numbers for 2,000 steps at $\eta = 0.01$ and $\lambda = 5$ with
# leaks of norm 10: always the same one, and independent ones. Compare NC0 with {eq}`leaks-balance` and
# {eq}`leaks-floor`.

# %% tags=["hide-input"]
rng = np.random.default_rng(0)
random = 10 * rng.standard_normal((2000, 128)) / 128**0.5
same = np.full(128, 10 / 128**0.5)
constant, independent = (
    size(leaks.driven_row_sum(drive, [0.01] * 2000, 5.0))
    for drive in (same, random)
)
assert np.isclose(constant, 10 / 5)
assert np.isclose(independent, 10 * np.sqrt(0.01 / (2 * 5)), rtol=0.2)
print(f"always the same: {constant:.2f}; independent: {independent:.2f}")

# %% [markdown]
# **3.** *The momentum of SOAP.* {eq}`leaks-soap` has $\beta$ in $s$ and in $\tau$, but the limit of
# $\mathbb E\lVert u\rVert^2$ has none. Show it for `soap_leak`, and for a simulated moving average.

# %% tags=["hide-input"]
# s²τ = Kp for each β: averaging makes the leak smaller, and lets it last as much longer.
for momentum in (0.0, 0.5, 0.9):
    s, memory = leaks.soap_leak(K, P, momentum)
    assert np.isclose(s**2 * memory, K * P)

series = rng.standard_normal((4000, 64))
for t in range(1, len(series)):
    series[t] = 0.8 * series[t - 1] + 0.2 * series[t]
seen = leaks.leak_statistics(series[100:])
assert np.isclose(seen.spread**2, 64 / 9, rtol=0.1)
assert np.isclose(seen.spread**2 * seen.memory, 64, rtol=0.2)
print(f"s²τ = {seen.spread**2 * seen.memory:.0f}, of 64 numbers")
