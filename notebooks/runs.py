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
# # Every run, and what it took
#
# All figures of this book are drawn from one store of runs. Here it is as a whole: what was
# trained, how many hours that took on which machine, and a table with every setting, to sort and to
# filter.
#
# **What you will learn**
#
# - which data sets and networks have been trained with which optimizers, how many of the runs
#   learned their training set, and how many diverged;
# - the cost in hours of a processor core, next to the paper's hours of a graphics card;
# - with what each row was made, so that it can be made again, and how closely;
# - how to get the rows.

# %%
import os
import pickle
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction

import itables
import numpy as np
import pandas as pd
from IPython.display import HTML, display

from ncbook import data, figures, store, sweep, text, train

figures.start_chapter()
itables.init_notebook_mode(all_interactive=False, connected=False)
runs = store.load_runs()
LINE = "papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw"

# %% [markdown]
# (paper-table-3)=
# ## What is here
#
# The paper's Table 3 has one line for all: ResNet9 and VGG9, six optimizers, and MNIST, Fashion-MNIST
# and CIFAR-10. Its Appendix D counts 3,888 runs, of which some 2,500 reached 99 % training accuracy. Here is ours
# (each chapter has the lines that train its runs), with one row for each data set, network and length
# of training. *Learned* is the share of runs that reached 99 % training
# accuracy. Neural collapse is about those; a run that did not, or that diverged, is counted and stays
# in the store. *Hours* are those of a processor core.

# %% tags=["hide-input"]
BLOCK = ["dataset", "model", "width", "epochs"]


def blocks(runs):
    """One row a block: how many runs, optimizers, seeds, learned, diverged, and core hours."""
    diverged = runs["status"] == "diverged"
    learned = (runs["status"] == "ok") & (
        runs["train_acc"] >= figures.CONVERGED
    )
    table = runs.assign(
        learned=learned, diverged=diverged, hours=core_hours(runs)
    )
    return table.groupby(BLOCK).agg(
        runs=("seed", "size"),
        optimizers=("optimizer", "nunique"),
        seeds=("seed", "nunique"),
        learned=("learned", "mean"),
        diverged=("diverged", "sum"),
        hours=("hours", "sum"),
    )


# %% [markdown]
# A run's time in the store is its share of the time that its chunk took. A chunk trains several
# networks together on one core, or one network on more; the device says on how many. The product
# counts the hours of one core.


# %%
def core_hours(runs):
    """Hours of a processor core: a run's seconds times the threads it had."""
    threads = runs["device"].str.extract(r"(\d+) threads")[0].astype(float)
    return runs["wall_time_s"] * threads.fillna(1) / 3600


def show_blocks(runs):
    names = {"dataset": "data", "model": "network"}
    # Where the page is narrow these are broken at their soft hyphens.
    names |= {"optimizers": "opti\u00admizers", "diverged": "di\u00adverged"}
    table = blocks(runs).reset_index().rename(columns=names)
    table["data"] = (
        table["data"].str.removeprefix("folder:").str.replace("_", "_\u00ad")
    )
    formats = {"learned": "{:.0%}", "hours": "{:.1f}", "width": Fraction}
    return figures.shown(table, **formats).hide(axis="index")


figures.show_if_any(runs, LINE, show_blocks)

# %% [markdown]
# ## What it took
#
# The paper {cite}`optimizer2026` reports 3,888 trainings of 8 to 16 minutes each, on five cards of
# the type NVIDIA RTX 4090: 500 to 1,000 hours in all. It trains full networks on 50,000 or 60,000
# images. The runs here are far smaller, and up to nine networks of the small default share each step.

# %% tags=["hide-input"]
PAPER_RUNS, PAPER_HOURS = 3888, (500, 1000)  # section D.2


def tell_cost(runs):
    hours = core_hours(runs)
    made = runs["made"]
    first, last = (f"{day:%d %B %Y}" for day in (made.min(), made.max()))
    each = [3600 * total / PAPER_RUNS for total in PAPER_HOURS]
    on_cpu = runs["device"].str.startswith("cpu").sum()
    return (
        f"The store holds **{len(runs):,} runs**, {on_cpu:,} of them made without a "
        f"graphics card, from {first} to {last}. "
        f"They took **{hours.sum():,.0f} hours of a core** to train and to "
        f"measure: {3600 * hours.mean():,.0f} s a run in the mean, "
        f"{3600 * hours.median():,.1f} s in the median. The paper's took "
        f"{each[0]:,.0f} to {each[1]:,.0f} s of a graphics card each. To repeat "
        f"a tenth of the runs, drawn at random, takes {hours.sum() / 10:.1f} hours of a core."
    )


iso = dict(format="ISO8601", utc=True, errors="coerce")
timed = runs.assign(made=pd.to_datetime(runs["created_at"], **iso))
timed = timed.dropna(subset=["made", "wall_time_s", "device"])
figures.show_if_any(timed, "", tell_cost)

# %% [markdown]
# These are hours in which other work ran on the same cores, at a higher priority; on machines of
# their own the runs would have been faster.
#
# ## With what each row was made
#
# Every row names the version of ncbook and its commit, of torch and of Python, the device and, but for some early
# ones, the processor. On the same processor a run comes out the same up to rounding of its stored numbers, alone or
# with others; on another, whose kernels round differently, its numbers differ about as much as those of another
# seed would, or less ({ref}`below <runs-rounding>`). A test checks both, the latter on rows drawn at random.

# %% tags=["hide-input"]
MADE = ["device", "processor", "torch_version", "python_version", "git_commit"]


def show_provenance(runs):
    names = {
        "git_commit": "commit",
        "torch_version": "torch",
        "python_version": "Python",
    }
    rows = runs.assign(
        git_commit=runs["git_commit"].str[:10],
        processor=runs["processor"].fillna("not stored"),
    )
    table = rows.groupby(MADE, dropna=False).size().rename("runs").reset_index()
    return figures.shown(table.rename(columns=names)).hide(axis="index")


figures.show_if_any(runs, "", show_provenance)

# %% [markdown]
# (runs-rounding)=
# ## How far two processors part
#
# Another processor, or another number of threads, adds the same numbers in another order, and rounds other sums. How
# much can that matter? Train the digits network again from one start, with the same minibatches, in three ways: with
# the kernels that torch picks for this processor; with those that it has for every processor of this kind, however old;
# and with the next learning rate that float32 has, which differs in the eighth digit.

# %%
EPOCHS, SETTINGS = 60, {"sgd": 0.0679, "adam": 0.005}


def nc3_of(name, lrs, seed, train_members=train.train_members):
    """NC3 by epoch at λ = 0.05, one column a learning rate."""
    configs = sweep.grid(name, lrs, [0.9], [0.05], seeds=[seed], epochs=EPOCHS)
    how = dict(log_epochs=range(EPOCHS + 1), compiled=False)
    history = train_members(configs, data.load("digits"), **how)[1]
    table = pd.DataFrame(history)
    return table.pivot(index="epoch", columns="member", values="nc3")


paths = {name: {} for name in SETTINGS}
for name, lr in SETTINGS.items():
    next_one = float(np.nextafter(np.float32(lr), np.float32(1)))
    two = nc3_of(name, [lr, next_one], 0)
    paths[name] |= {"this processor": two[0], "next learning rate": two[1]}
    paths[name]["another seed"] = nc3_of(name, [lr], 1)[0]

# %% [markdown]
# A process chooses its kernels once, by its environment. So the old ones get a process of their own.

# %%
OLD = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


CALL = """
import pickle, sys
function, values, named = pickle.load(sys.stdin.buffer)
pickle.dump(function(*values, **named), sys.stdout.buffer)
"""


def train_there(*configs_and_data, **how):
    asked = pickle.dumps((train.train_members, configs_and_data, how))
    call, there = [sys.executable, "-c", CALL], os.environ | OLD
    done = subprocess.run(
        call, input=asked, capture_output=True, env=there, check=True
    )
    return pickle.loads(done.stdout)


for name, lr in SETTINGS.items():
    paths[name]["old kernels"] = nc3_of(name, [lr], 0, train_there)[0]

# %% tags=["hide-input"]
STYLES = {"old kernels": "-", "next learning rate": "--", "another seed": ":"}
apart = {}
for name, lines in paths.items():
    table = pd.DataFrame(lines)
    here = table.pop("this processor")
    apart[name] = table.div(here, axis=0).sub(1).abs()
    moved = [apart[name]["next learning rate"]]
    # Where torch has no other kernels than the old ones, nothing differs.
    moved += [line for line in [apart[name]["old kernels"]] if line.any()]
    assert all(line[1] < 1e-4 and line.max() > 1e-2 for line in moved)
axes = figures.small_panels(2, 3.4)
for ax, (name, table) in zip(axes, apart.items(), strict=True):
    look = figures.look(name)
    for what, style in STYLES.items():
        line = table[what][1:].where(lambda distance: distance > 0)
        ax.plot(line, color=look["color"], linestyle=style, label=what)
    ax.set(yscale="log", xlabel="epoch", ylabel="distance of NC3, relative")
    ax.set(title=look["label"], ylim=(1e-10, 10))
figures.in_rows(*axes)

# %% [markdown]
# *How far other trainings are in NC3 from one with this processor's kernels: solid, the same one with kernels for old
# processors; dashed, with the next learning rate; dotted, of another seed. The learning rate falls after 20 and after
# 40 epochs.*
#
# While the learning rate is high, the difference grows until the two networks are as far apart as two seeds. Then the
# rate falls, and both settle, in the picture closer than two seeds. This is chaos and no error: a single number of
# this book comes out again on another processor about as closely as seeds agree, and what is claimed from several
# seeds should come out again.

# %% [markdown]
# ## The table
#
# One row a setting, with all that its runs have in common but the seed; each number the mean over the seeds. *n* is
# how many seeds there are, diverged ones not counted in the means. (Columns of the last layer are empty where it
# moves as the rest.) Click the arrows in a column's head to sort; type into the box above to search, or into a field
# below a column to filter by it.

# %% tags=["hide-input"]
FIRST = ["dataset", "model", "width", "precision", "optimizer", "epochs"]
FIRST += ["lr", "momentum", "weight_decay", "coupled_share"]
REST = {f.name for f in fields(train.RunConfig)}
REST -= {*FIRST, *figures.FILLED_IN, "seed"}
NUMBERS = ["train_acc", "test_acc", "nc0", "nc1", "nc2", "nc3", "nc4"]
HEADS = {
    "dataset": "data",
    "model": "network",
    "weight_decay": "λ",
    "lr": "η",
    "momentum": "β",
}
HEADS |= {"coupled_share": "coupled", "train_acc": "train", "test_acc": "test"}
HEADS |= {
    "train_size": "images",
    "batch_size": "batch",
    "centred_head": "last, centred",
}
HEADS |= {"head_optimizer": "last layer", "head_lr": "last, η"}
HEADS |= {"head_momentum": "last, β", "head_weight_decay": "last, λ"}
HEADS |= figures.METRICS


def settings(runs):
    """One row a setting: seeds, diverged ones, and the means of the others."""
    ends = runs.assign(diverged=runs["status"] == "diverged")
    told = sorted(c for c in REST if runs[c].nunique(dropna=False) > 1)
    grouped = ends.groupby(FIRST + told, dropna=False)
    counts = grouped.agg(n=("seed", "nunique"), diverged=("diverged", "sum"))
    assert (counts["n"] == grouped.size()).all()  # no two runs are one seed's
    return (
        counts.join(grouped[NUMBERS].mean()).reset_index().rename(columns=HEADS)
    )


# %% [markdown]
# Three digits are shown; the files below have all.


# %% tags=["hide-input"]
def show_settings(runs):
    table = settings(runs).dropna(axis="columns", how="all")
    words = table.select_dtypes(exclude="number").columns
    table[words] = table[words].map(text.html, na_action="ignore")
    with pd.option_context("display.float_format", "{:.3g}".format):
        itables.show(
            table,
            showIndex=False,
            column_filters="footer",
            allow_html=True,  # that of text.html
            classes="display compact nowrap",
            maxBytes=0,
            scrollX=True,
            autoWidth=False,
        )
    return f"{len(table):,} settings."


figures.show_if_any(runs, "", show_settings)

# %% [markdown]
# ## Get the rows

# %% tags=["hide-input"]
display(
    HTML(
        '<p><a href="../downloads/runs.csv" download>runs.csv</a> · '
        '<a href="../downloads/runs.parquet" download>runs.parquet</a>: one row a '
        "run, with its whole config, every metric at the start and at the end, and "
        "its provenance. In the CSV file an apostrophe stands before a text that a "
        "spreadsheet would compute.</p>"
    )
)
