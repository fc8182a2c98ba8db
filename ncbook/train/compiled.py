"""Training steps compiled for this machine, kept in the user's cache folder for later processes.

On a CPU a step is compiled ahead of time into a shared library. A process loads that in 20 ms,
where torch.compile would trace the step again for 6 s, and checks no guards before each step. One
library serves every optimizer, chunk size and batch size of a network. A GPU has torch.compile.
"""

import hashlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ncbook import models, optim, paths

LOG = logging.getLogger(__name__)
CACHE = "TORCHINDUCTOR_CACHE_DIR"
UNCOMPILED = "training without torch.compile (slower)"
PROBE_BYTES = 2**23  # more than what one step's code takes
PROBE_CODE = b"#include <vector>\nint probe() { return std::vector<int>(1).size(); }\n"
# Without a GPU these warn that they have found none, or no compiler for one.
UNWANTED = ("torch.utils.cpp_extension", "torch.utils.flop_counter")
RECOMPILE_LIMIT = 64  # one long-lived process meets more than torch's default of 8 shapes
# The first library on a machine takes 22 to 25 s of one core instead of 40 s, and is the same to
# the byte: code that only calls the kernels need not be fast; one library does not repay compiled
# headers; every compiler of C++20 knows the instructions of processors, which torch would try out.
OPTIONS = {
    "aot_inductor.compile_wrapper_opt_level": "O0",
    "aot_inductor.precompile_headers": False,
    "compile_threads": 1,
    "cpp.vec_isa_ok": True,
}
EXAMPLE_SIZES = (89, 97, 101, 103, 107, 109, 113)
PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU", "Features")

Size = str | None  # what a tensor's first dimension counts, if it may have any size


class Compiled:
    """``function``, which changes tensors in place and returns nothing, compiled at its first call.

    Where that fails (no compiler, no disk left), a warning says why, and the function runs as it
    is. Its arguments are tensors, and dicts or tuples of them; ``sizes`` has one entry for each.
    ``key`` tells it from all other functions that the same code makes.
    """

    def __init__(
        self, function: Callable, key: Sequence, sizes: Sequence[Size], device: str
    ) -> None:
        self.function, self.key, self.sizes, self.device = function, key, sizes, device
        self._run: Callable | None = None

    def __call__(self, *arguments) -> None:
        if self._run is None and self.device == "cpu":
            self._run = self._library(arguments) or self.function
        elif self._run is None:
            self._run = compile_or_warn(self.function)
        self._run(*arguments)

    def is_kept(self, arguments: tuple) -> bool:
        """Whether an earlier process has compiled it."""
        return self.device == "cpu" and any(_libraries(self._name(arguments)))

    def _library(self, arguments: tuple) -> Callable | None:
        name = self._name(arguments)
        run = _load(name)
        if run is None and can_compile("cpu"):
            try:
                content = Path(_compile(self.function, arguments, self.sizes)).read_bytes()
                path = prepare_cache() / f"{name}-{hashlib.sha256(content).hexdigest()}.so"
                with paths.new_file(path) as file:
                    file.write(content)
                run = _load(name)
            except Exception as error:  # Dynamo, Inductor and the C++ compiler have many kinds
                LOG.warning("%s: %s", UNCOMPILED, str(error).partition("\n")[0])
        return run and (lambda *arguments: run(pytree.tree_leaves(arguments)))

    def _name(self, arguments: tuple) -> str:
        """A hash of all that decides the library's code."""
        given = [  # sizes and strides that it takes as given
            (str(t.dtype), [*zip(t.shape, t.stride(), strict=True)][bool(size) :])
            for size, argument in zip(self.sizes, arguments, strict=True)
            for t in pytree.tree_leaves(argument)
        ]
        parts = (_environment(), torch.get_num_threads(), self.key, self.sizes, given)
        return f"step-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"


@cache
def _environment() -> tuple:
    """The code that is compiled, what compiles it, and the processor that it is compiled for."""
    rooms = (Path(file).parent for file in (optim.__file__, models.__file__, __file__))
    sources = [path for room in rooms for path in sorted(room.glob("*.py"))]
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    processor = [platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0].splitlines()
        processor = sorted(line for line in lines if line.startswith(PROCESSOR))
    return code, torch.__version__, torch.backends.cpu.get_cpu_capability(), processor


def _libraries(name: str) -> list[Path]:
    """The files of this name; behind it each has a hash of its content."""
    return sorted(prepare_cache().glob(f"{name}-*.so"))


def _load(name: str) -> Callable | None:
    """The function in an undamaged library of this name, or None. To load a library that was cut
    off can kill the process, so its hash is compared first."""
    for path in _libraries(name):
        if hashlib.sha256(path.read_bytes()).hexdigest() == path.stem.rpartition("-")[2]:
            with suppress(RuntimeError):  # no library at all
                return torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
        path.unlink(missing_ok=True)
    return None


def _compile(function: Callable, arguments: tuple, sizes: Sequence[Size]) -> str:
    """The path of a shared library with this function."""
    from unittest.mock import patch

    from torch.fx.experimental.proxy_tensor import make_fx

    if not torch.cuda.is_available():
        # Where Triton is installed, torch imports and hashes all of it, 1.7 s.
        sys.modules.setdefault("triton", None)
        for name in UNWANTED:
            logging.getLogger(name).setLevel(logging.ERROR)
    example = _example(arguments, sizes)
    flat, spec = pytree.tree_flatten(example)
    dynamic = tuple(
        size and {0: torch.export.Dim.DYNAMIC}
        for size, argument in zip(sizes, example, strict=True)
        for _ in pytree.tree_leaves(argument)
    )

    def on_flat(*flat: Tensor) -> tuple:
        function(*pytree.tree_unflatten(flat, spec))
        return ()

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # torch's own cannot be traced for a batch of any size
        with (
            patch.object(nn.functional, "batch_norm", _batch_norm),
            patch.object(nn.functional, "cross_entropy", _cross_entropy),
        ):
            graph = make_fx(on_flat, tracing_mode="symbolic")(*flat)
        module = torch.export.export(graph, tuple(flat), dynamic_shapes=dynamic).module()
        return torch._inductor.aot_compile(module, tuple(flat), options=OPTIONS)


def _example(arguments: tuple, sizes: Sequence[Size]) -> list:
    """Arguments whose variable sizes are those of no other dimension: what is equal in the example
    would be taken for equal in general."""
    taken = {n for t in pytree.tree_leaves(arguments) for n in t.shape}
    free = [n for n in EXAMPLE_SIZES if n not in taken]
    chosen = dict(zip(sorted(set(filter(None, sizes))), free, strict=False))

    def resized(size: Size, tensor: Tensor) -> Tensor:
        if size is None:
            return tensor.clone()
        shape, inner = (chosen[size], *tensor.shape[1:]), tensor.stride()[1:]
        outer = max((n * stride for n, stride in zip(shape[1:], inner, strict=True)), default=1)
        return torch.empty_strided(shape, (outer, *inner), dtype=tensor.dtype).zero_()

    pairs = zip(sizes, arguments, strict=True)
    return [pytree.tree_map(partial(resized, size), argument) for size, argument in pairs]


def _batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps) -> Tensor:
    """``nn.functional.batch_norm`` of (N, features) in training."""
    mean, count = x.mean(0), x.shape[0]
    centred = x - mean
    variance = centred.square().mean(0)
    unbiased = variance.detach() * count / (count - 1)
    running_mean.mul_(1 - momentum).add_(momentum * mean.detach())
    running_var.mul_(1 - momentum).add_(momentum * unbiased)
    return centred * (variance + eps).rsqrt() * weight + bias


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``nn.functional.cross_entropy`` of (N, K)."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    chosen = torch.where(labels[:, None] == classes, logits.log_softmax(1), 0)
    return -chosen.sum(1).mean()


def compile_or_warn(function: Callable) -> Callable:
    """``torch.compile``; where the compiler fails, a warning says so, and nothing is compiled."""
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, limit)
    chosen = [torch.compile(function)]

    def run(*arguments):
        try:
            return chosen[0](*arguments)
        except (torch._dynamo.exc.TorchDynamoException, OSError) as error:  # before the first step
            LOG.warning("%s: %s", UNCOMPILED, str(error).partition("\n")[0])
            chosen[0] = function
            return function(*arguments)

    return run


def prepare_cache() -> Path:
    """The folder for what torch compiles, which it needs even where nothing is compiled.

    Code is run from it. So where the user names no folder it is one that nobody else can write in,
    which torch's own default may not be.
    """
    folder = Path(os.environ.get(CACHE) or paths.private_folder("compiled"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        named, folder = folder, paths.private_folder("compiled")
        unusable = f"{CACHE}={named} cannot be written ({error.strerror})"
        LOG.warning("%s: %s is used instead", unusable, folder)
    os.environ[CACHE] = str(folder)
    return folder


def can_compile(device: str) -> bool:
    """Whether torch.compile has what it needs; a warning says what it lacks."""
    folder, lacks = prepare_cache(), _no_compiler() if device == "cpu" else None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        lacks = lacks or f"{CACHE}={folder} cannot be written ({error.strerror})"
    if lacks:
        LOG.warning("%s: %s", UNCOMPILED, lacks)
    return lacks is None


@cache
def _no_compiler() -> str | None:
    """Why no C++ program can be compiled: a compiler may be installed without all of its parts."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    command = [compiler, "-std=c++17", "-fPIC", "-shared", "-x", "c++", "-", "-o", os.devnull]
    try:
        subprocess.run(command, input=PROBE_CODE, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"no working C++ compiler {compiler!r}; CXX names another"
    return None
