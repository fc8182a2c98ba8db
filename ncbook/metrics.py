"""NC0 to NC4 and their kin: pure functions of features, labels and the last layer.

Words: ``H`` features (N, p), one row a sample; ``labels`` (N,) in [0, K); ``W`` weight (K, p);
``b`` bias (K,); ``mu`` class means (K, p); ``mu_G`` their unweighted mean; ``M = mu - mu_G``.
Every function takes a leading member axis as well: M runs at once are (M, N, p) and (M, K, p).

How it stays cheap. ``M`` has rank at most K - 1, so Σ_W and Σ_B, p x p both, are never formed:
with the pseudo-inverse M† (p, K) and the residuals ``R = H - mu[labels]``, NC1 is ‖R M†‖²_F / N.
The features are read twice, one cache-sized block of one member at a time, which also bounds the
extra memory. Class sums and all that is K x p or K x K are float64. Residuals have the features'
precision (a half one is widened to float32) and no error but their own rounding, however far from 0
the means lie. They are not rescaled: float32 residuals below 1e-19 square to 0.

Float32 products follow ``torch.get_float32_matmul_precision()``: below its default ``highest``
NC1 loses digits (about 6e-5 relative at ``medium`` on a CPU with bfloat16).

What it costs, float32, median of 7 (Xeon with AVX-512, torch 2.15): on two cores N = 60,000,
p = 512, K = 10 takes 0.06 s and N = 50,000, p = 2,048, K = 1,000 takes 1.3 s; on one core 18
members of N = 1,400, p = 128, K = 10 take 11 ms. ``python benchmarks/metrics.py --members``
repeats this.
"""

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torchmetrics import Metric

SCALES = ("reported", "text")
# 1 MiB of float32: a block, its residuals and its float64 copy stay in one core's 2 MiB cache.
BLOCK_ELEMENTS = 2**18
NAMED_CLASSES = 5  # how many empty classes an error lists
KEYS = ("nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa", "nc2m", "nc3", "nc4")
KEYS += ("nc1_quotient", "cdnv")


# ------------------------------------------------------------------ one property, one function


def simplex_etf(
    num_classes: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """S_ETF = (I_K - J_K / K) / sqrt(K - 1), of Frobenius norm 1: the paper's M*, below eq. 5.

    Args:
        num_classes: K, at least 2.

    Returns:
        Tensor (K, K).

    Raises:
        ValueError: K < 2.
    """
    if num_classes < 2:
        raise ValueError(f"a simplex ETF needs at least 2 classes, got {num_classes}")
    identity = torch.eye(num_classes, dtype=dtype, device=device)
    return (identity - 1 / num_classes) / math.sqrt(num_classes - 1)


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """mu_k = mean of the features of class k.

    Args:
        features: (..., N, p).
        labels: (N,), integers in [0, K), shared by all members.
        num_classes: K.

    Returns:
        float64 Tensor (..., K, p); NaN in the row of a class with no samples.

    >>> class_means(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[1.],
            [5.]], dtype=torch.float64)
    """
    shape = (*features.shape[:-2], num_classes, features.shape[-1])
    sums = torch.zeros(shape, dtype=torch.float64, device=features.device)
    _add_class_sums(sums, features, labels)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def centred_means(means: Tensor) -> Tensor:
    """M = mu - mu_G (..., K, p), with mu_G the unweighted mean over classes: M's rows sum to 0."""
    return means - means.mean(-2, keepdim=True)


def dual_means(centred: Tensor) -> Tensor:
    """M† (..., p, K), the Moore-Penrose inverse of M (..., K, p); NaN for a member with NaN or inf.

    M's rows sum to zero: its smallest singular value is a structural zero and is never inverted.
    Of the others, those with σ² <= max(K, p) · eps(float64) · σ_max² count as zero: the usual
    cut-off for a float64 pseudo-inverse of Σ_B, whose eigenvalues are σ² / K.
    """
    gram = centred @ centred.mT
    finite = gram.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    # eigh raises on NaN, for the whole batch
    squares, vectors = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    cutoff = max(centred.shape[-2:]) * torch.finfo(gram.dtype).eps * squares[..., -1:]
    inverted = torch.where(squares > cutoff, 1 / squares, 0.0)
    inverted[..., 0] = 0.0
    dual = centred.mT @ (vectors * inverted[..., None, :]) @ vectors.mT
    return torch.where(finite, dual, torch.nan)


def residual_scatter(features: Tensor, labels: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Σ ‖r_n‖² for each class, and Σ ‖r_n M†‖² over all, of the residuals r_n = h_n - mu_{y_n}.

    Args:
        features: (..., N, p).
        labels: (N,).
        means: (..., K, p), the class means.

    Returns:
        float64 Tensors (..., K) and (...,).
    """
    scatter = torch.zeros(means.shape[:-1], dtype=torch.float64, device=means.device)
    whitened = torch.zeros(means.shape[:-2], dtype=torch.float64, device=means.device)
    _add_residual_scatter(scatter, whitened, features, labels, means, _duals(means))
    return scatter, whitened


def nc0(weight: Tensor) -> Tensor:
    """NC0 = ‖Wᵀ1‖₂ (eq. 12 without its 1/n): do the rows of W (..., K, p) sum to zero?

    Returns a Tensor (...,); unlike the others it grows with W.
    """
    return torch.linalg.vector_norm(weight.sum(-2), dim=-1)


def nc1(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """NC1 = Tr(Σ_W Σ_B†) / K = ‖R M†‖²_F / N (eq. 2): features vary little about their class mean.

    Σ_W = Σ_n r_n r_nᵀ / N about the class means, Σ_B = MᵀM / K. Since Σ_B† = K M† M†ᵀ, K cancels.
    M = 0 has M† = 0: by this definition NC1 of features that are all alike is 0.

    Args:
        features: (..., N, p).
        labels: (N,).
        means: (..., K, p), the class means.

    Returns:
        Tensor (...,).
    """
    return residual_scatter(features, labels, means)[1] / len(labels)


def variability_metrics(
    scatter: Tensor, whitened: Tensor, counts: Tensor, centred: Tensor
) -> dict[str, Tensor]:
    """NC1 and its two cheaper kin, from sums over the samples.

    nc1 = Tr(Σ_W Σ_B†) / K (eq. 2), nc1_quotient = Tr Σ_W / Tr Σ_B, and cdnv.

    Args:
        scatter, whitened: from `residual_scatter`, (..., K) and (...,).
        counts: (K,), samples in each class.
        centred: M, (..., K, p).

    Returns:
        dict of Tensors (...,).
    """
    num_samples, num_classes = counts.sum(), len(counts)
    between = centred.square().sum((-2, -1)) / num_classes
    return {
        "nc1": whitened / num_samples,
        "nc1_quotient": scatter.sum(-1) / num_samples / between,
        "cdnv": class_distance_variance(scatter / counts, centred),
    }


def class_distance_variance(variances: Tensor, centred: Tensor) -> Tensor:
    """CDNV = mean over i ≠ j of (Var_i + Var_j) / (2 ‖mu_i - mu_j‖²) (Galanti et al., 2021).

    Args:
        variances: (..., K), Var_k = mean of ‖h - mu_k‖² over class k.
        centred: M (or mu: only differences count), (..., K, p).

    Returns:
        Tensor (...,); inf where two class means coincide.
    """
    gram = centred @ centred.mT
    squares = gram.diagonal(dim1=-2, dim2=-1)
    distances = (squares[..., :, None] + squares[..., None, :] - 2 * gram).clamp_min(0)
    ratios = (variances[..., :, None] + variances[..., None, :]) / (2 * distances)
    return _mean_of_pairs(ratios)


def etf_distance(product: Tensor) -> Tensor:
    """‖G / ‖G‖_F - S_ETF‖_F of a K x K product G (..., K, K). Returns (...,).

    NC2 is that of M Mᵀ (eq. 5), NC2W of W Wᵀ (eq. 6; W is not centred), NC2M of W Mᵀ (eq. 9).

    >>> round(etf_distance(3 * simplex_etf(4)).item(), 12)
    0.0
    """
    etf = simplex_etf(product.shape[-1], dtype=product.dtype, device=product.device)
    return torch.linalg.matrix_norm(_unit_norm(product) - etf)


def row_norm_spread(rows: Tensor) -> Tensor:
    """std_k ‖row_k‖ / mean_k ‖row_k‖ of (..., K, p); the std is the unbiased one. Returns (...,).

    NC2n is that of M (eq. 3), NC2Wn of W (eq. 7).
    """
    norms = torch.linalg.vector_norm(rows, dim=-1)
    return norms.std(-1, correction=1) / norms.mean(-1)


def equiangularity(rows: Tensor) -> Tensor:
    """Mean over k ≠ k' of |cos(row_k, row_k') + 1/(K-1)| of (..., K, p). Returns (...,).

    NC2a is that of M (eq. 4), NC2Wa of W (eq. 8). A row of zeros has no angle: NaN.
    """
    directions = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    cosines = directions @ directions.mT
    return _mean_of_pairs((cosines + 1 / (rows.shape[-2] - 1)).abs())


def self_duality(weight: Tensor, centred: Tensor) -> Tensor:
    """NC3 = ‖W / ‖W‖_F - M / ‖M‖_F‖_F (eq. 10 without its 1/(Kp)), in [0, 2]. Returns (...,)."""
    return torch.linalg.matrix_norm(_unit_norm(weight) - _unit_norm(centred))


def nearest_mean_agreement(
    features: Tensor, weight: Tensor, means: Tensor, bias: Tensor | None = None
) -> Tensor:
    """NC4 = share of samples on which argmax_k (W h + b)_k is the nearest class mean (eq. 11).

    Eq. 11 has no bias: ``bias=None``. With a bias given, it counts, as it does in the network.

    Args:
        features: (..., N, p), of the test set; needs no labels.
        weight: (..., K, p).
        means: (..., K, p), class means of the training set.
        bias: (..., K) or None.

    Returns:
        Tensor (...,); NaN for a member with any score that is NaN or inf.
    """
    return _agreements(features, weight, means, bias) / features.shape[-2]


def singular_values(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest singular value of (..., K, p), and the mean of the others (Fig. 6 and 16).

    From the matrix itself, in float64: a Gram matrix would lose half the digits of the smallest.

    Returns:
        two float64 Tensors (...,); NaN for a member that has NaN or inf.
    """
    rows = rows.double().mT  # tall: twice as fast as wide
    finite = rows.isfinite().all(-1).all(-1)
    # svdvals raises on NaN, for the whole batch
    values = torch.linalg.svdvals(torch.where(finite[..., None, None], rows, 0.0))
    values = torch.where(finite[..., None], values, torch.nan)  # (..., min(K, p)), descending
    return values[..., -1], values[..., :-1].mean(-1)


# ------------------------------------------------------------------ all of them together


def geometry_metrics(
    weight: Tensor, centred: Tensor, *, scale: str = "reported"
) -> dict[str, Tensor]:
    """The metrics of W and M alone: NC0, NC2 with its variants, NC3. See `nc_metrics`.

    Args:
        weight, centred: float64, (..., K, p).
        scale: see `nc_metrics`.

    Returns:
        dict of Tensors (...,).
    """
    num_classes, width = weight.shape[-2:]
    metrics = {
        "nc0": nc0(weight),
        "nc2": etf_distance(centred @ centred.mT),
        "nc2n": row_norm_spread(centred),
        "nc2a": equiangularity(centred),
        "nc2w": etf_distance(weight @ weight.mT),
        "nc2wn": row_norm_spread(weight),
        "nc2wa": equiangularity(weight),
        "nc2m": etf_distance(weight @ centred.mT),
        "nc3": self_duality(weight, centred),
    }
    if scale == "text":
        square = num_classes**2
        divisors = {"nc0": num_classes, "nc2": square, "nc2w": square, "nc2m": square}
        for name, divisor in {**divisors, "nc3": num_classes * width}.items():
            metrics[name] /= divisor
    return metrics


@torch.no_grad()
def member_metrics(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    test_features: Tensor | None = None,
    *,
    scale: str = "reported",
) -> dict[str, Tensor]:
    """All metrics of M members at once; unchecked, for use while training. See `nc_metrics`.

    A member with NaN or inf gets NaN or inf in what depends on it; the others are untouched.

    Args:
        features: (M, N, p), in evaluation mode, without augmentation.
        labels: (N,), shared by the members; each class must occur.
        weight: (M, K, p).
        bias: (M, K) or None.
        test_features: (M, N_test, p) or None; nc4 is there only with them.
        scale: see `nc_metrics`.

    Returns:
        dict of float64 Tensors (M,), keys as of `nc_metrics`.

    Raises:
        ValueError: unknown scale.
    """
    _check_scale(scale)
    num_classes = weight.shape[-2]
    means = class_means(features, labels, num_classes)
    scatter, whitened = residual_scatter(features, labels, means)
    centred, counts = centred_means(means), torch.bincount(labels, minlength=num_classes)
    metrics = geometry_metrics(weight.double(), centred, scale=scale)
    metrics |= variability_metrics(scatter, whitened, counts, centred)
    if test_features is not None:
        metrics["nc4"] = nearest_mean_agreement(test_features, weight, means, bias)
    return _in_order(metrics)


@torch.no_grad()
def nc_metrics(
    features, labels, weight, bias=None, test_features=None, test_labels=None, *, scale="reported"
) -> dict[str, float]:
    """Every neural-collapse metric of one network.

    The default scale, ``"reported"``, is the one of the paper's tables: no further factor.
    ``"text"`` divides as the equations do: nc2, nc2w and nc2m by K², nc3 by K p, and nc0 by the n
    of eq. 12, which the paper doesn't define and which we read as K, the length of the vector 1.

    Args:
        features: H (N, p), of the training set in evaluation mode, without augmentation; floating
            point, a Tensor on any device with float64, or a NumPy array.
        labels: (N,), integers in [0, K); each class must occur.
        weight: W (K, p), K >= 2.
        bias: b (K,) or None. Only nc4 uses it; eq. 11 leaves it out, which is None.
        test_features: (N_test, p) or None; nc4 is there only with them.
        test_labels: (N_test,) or None. Checked like ``labels``, but nc4 compares two classifiers
            with each other, not with the truth, so no metric uses them.
        scale: ``"reported"`` or ``"text"``.

    Returns:
        dict of floats: nc0 nc1 nc2 nc2n nc2a nc2w nc2wn nc2wa nc2m nc3 nc4 nc1_quotient cdnv.

    Raises:
        ValueError: naming the value, for a wrong shape, type, label or scale, fewer than two
            classes, a class with no samples, NaN or inf.

    >>> rows = simplex_etf(3)  # perfect collapse: features and weight are one simplex ETF
    >>> max(nc_metrics(rows, [0, 1, 2], 2 * rows).values()) < 1e-12
    True
    """
    _check_scale(scale)
    features = _float_tensor("features", features)
    weight, bias = _checked_layer(weight, bias, features.device)
    features, labels = _checked_samples(features, labels, weight)
    _check_every_class_occurs(torch.bincount(labels, minlength=len(weight)))
    if test_features is not None:
        test_features, _ = _checked_samples(test_features, test_labels, weight, "test_")
    elif test_labels is not None:
        raise ValueError(f"test_labels ({len(test_labels)} of them) came without test_features")
    metrics = member_metrics(
        features[None],
        labels,
        weight[None],
        None if bias is None else bias[None],
        None if test_features is None else test_features[None],
        scale=scale,
    )
    return {name: value.item() for name, value in metrics.items()}


class StreamingNCMetrics(Metric):
    """`nc_metrics` for features that don't fit memory, or that lie in several processes.

    NC1 measures residuals along M, and neither is known before all features were seen once. So the
    training features come twice, in batches of any size and order, and then, for nc4, the test
    features once. What is kept is K x p, not N x p or p x p::

        stream = StreamingNCMetrics(weight, bias)
        for features, labels in train: stream.update(features, labels)   # 1: class means
        stream.next_pass()
        for features, labels in train: stream.update(features, labels)   # 2: scatter about them
        stream.next_pass()                                               # 3 may be left out
        for features, labels in test: stream.update(features, labels)    # 3: nc4
        stream.compute()

    Sums are float64 and add up across processes: the first `next_pass`, and `compute`, synchronise,
    so every process must call them. Without ``torch.distributed``, merge the streams of pass 1 into
    one (`merge_state`), call its `next_pass`, give each worker a `clone` of it for its share of
    passes 2 and 3, and merge these.

    Args:
        weight: W (K, p).
        bias: b (K,) or None.
        scale: as of `nc_metrics`.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: as `nc_metrics`, and when passes come in the wrong order or differ in samples.
    """

    full_state_update = False
    is_differentiable = False
    passes = ("1 (class means)", "2 (scatter about them)", "3 (test features)")

    def __init__(self, weight, bias=None, *, scale: str = "reported", **kwargs) -> None:
        super().__init__(**kwargs)
        _check_scale(scale)
        self.scale, self.stage = scale, 0
        weight, bias = _checked_layer(weight, bias)
        # copies: a live layer may train on before compute()
        weight, bias = weight.detach().clone(), None if bias is None else bias.detach().clone()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        num_classes, width = weight.shape
        sums = {"sums": (num_classes, width), "counts": (num_classes,)}  # pass 1
        sums |= {"scatter": (num_classes,), "whitened": (), "seen": (num_classes,)}  # pass 2
        sums |= {"agreements": (), "tested": ()}  # pass 3
        fixed = {"means": (num_classes, width), "duals": (width, num_classes)}  # after pass 1
        fixed |= {"expected": (num_classes,)}
        for name, shape in sums.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for name, shape in fixed.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx=_the_same)

    def update(self, features, labels=None) -> None:
        """Add a batch to the current pass: features (n, p), labels (n,); pass 3 needs no labels."""
        if self.stage < 2 and labels is None:
            raise ValueError(f"pass {self.passes[self.stage]} needs labels, got None")
        kind = "test_" if self.stage == 2 else ""
        features, labels = _checked_samples(features, labels, self.weight, kind)
        if self.stage == 2:
            self.agreements += _agreements(features, self.weight, self.means, self.bias)
            self.tested += len(features)
            return
        counts = torch.bincount(labels, minlength=len(self.weight))
        if self.stage == 0:
            _add_class_sums(self.sums, features, labels)
            self.counts += counts
        else:
            about = self.means, self.duals
            _add_residual_scatter(self.scatter, self.whitened, features, labels, *about)
            self.seen += counts

    def next_pass(self) -> None:
        """End the current pass, in every process."""
        if self.stage == 2:
            raise ValueError(f"pass {self.passes[2]} is the last one: call compute() or reset()")
        if self.stage == 0:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn):
                sums, counts = self.sums.clone(), self.counts.clone()
            _check_every_class_occurs(counts)
            self.means, self.expected = sums / counts[:, None], counts
            self.duals = _duals(self.means)
        self.stage += 1

    def compute(self) -> dict[str, float]:
        """The metrics, equal to `nc_metrics` on all batches at once; nc4 if pass 3 had samples."""
        if self.stage == 0:
            raise ValueError(f"compute() needs pass {self.passes[1]}: call next_pass() first")
        different = (self.seen != self.expected).nonzero()[:, 0].tolist()
        if different:
            name = different[0]
            raise ValueError(
                f"pass {self.passes[1]} must see the samples of pass {self.passes[0]}, "
                f"but of class {name} it saw {self.seen[name]:.0f} of {self.expected[name]:.0f}"
            )
        centred = centred_means(self.means)
        metrics = geometry_metrics(self.weight.double(), centred, scale=self.scale)
        metrics |= variability_metrics(self.scatter, self.whitened, self.seen, centred)
        if self.tested > 0:
            metrics["nc4"] = self.agreements / self.tested
        return {name: value.item() for name, value in _in_order(metrics).items()}

    def reset(self) -> None:
        """Forget everything but the weight and the bias: back to pass 1."""
        super().reset()
        self.stage = 0

    def forward(self, *args, **kwargs):
        """Not offered: one batch alone has no metrics. Use `update`."""
        raise TypeError(
            "StreamingNCMetrics has no value for one batch: call update(), not the object"
        )


# ------------------------------------------------------------------ sums over blocks of samples


def _blocks(features: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(member, rows, features[member, rows]) in blocks of at most BLOCK_ELEMENTS numbers."""
    members = features.reshape(-1, *features.shape[-2:])
    size = max(1, BLOCK_ELEMENTS // features.shape[-1])
    for member, samples in enumerate(members):
        for start in range(0, len(samples), size):
            rows = slice(start, start + size)
            yield member, rows, samples[rows]


def _work_dtype(features: Tensor) -> torch.dtype:
    """float32 for half precisions and float32, float64 for float64."""
    return torch.promote_types(features.dtype, torch.float32)


def _from_centre(means: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """mu_G rounded to dtype, (M, p), and the class means seen from there, (M, K, p).

    Distances taken from the rounded centre are exact, so its rounding does no harm.
    """
    means = means.reshape(-1, *means.shape[-2:])
    centre = means.mean(-2).to(dtype)
    return centre, means - centre[:, None, :].double()


def _duals(means: Tensor) -> Tensor:
    return dual_means(centred_means(means))


def _add_class_sums(sums: Tensor, features: Tensor, labels: Tensor) -> None:
    """Add Σ_{n in class k} h_n to sums (..., K, p), in place."""
    sums = sums.view(-1, *sums.shape[-2:])
    for member, rows, block in _blocks(features):
        sums[member].index_add_(0, labels[rows], block.to(sums.dtype))


def _add_residual_scatter(
    scatter: Tensor,
    whitened: Tensor,
    features: Tensor,
    labels: Tensor,
    means: Tensor,
    duals: Tensor,
) -> None:
    """Add Σ ‖r‖² of each class to scatter (..., K) and Σ ‖r M†‖² to whitened (...,), in place."""
    dtype = _work_dtype(features)
    means, duals = (part.reshape(-1, *part.shape[-2:]) for part in (means, duals))
    # A feature near its class mean, less the rounded mean, is exact; then the mean's other digits.
    rounded, duals = means.to(dtype), duals.to(dtype)
    remainders = (means - rounded).to(dtype)
    scatter, whitened = scatter.view(-1, scatter.shape[-1]), whitened.view(-1)
    for member, rows, block in _blocks(features):
        residuals = block - rounded[member].index_select(0, labels[rows])
        residuals -= remainders[member].index_select(0, labels[rows])
        squares = torch.linalg.vector_norm(residuals, dim=-1).double().square()
        scatter[member].index_add_(0, labels[rows], squares)
        coordinates = residuals @ duals[member]  # (n, K)
        whitened[member] += torch.linalg.vector_norm(coordinates, dim=-1).double().square().sum()


def _agreements(features: Tensor, weight: Tensor, means: Tensor, bias: Tensor | None) -> Tensor:
    """On how many samples the two classifiers of `nearest_mean_agreement` agree, (...,)."""
    dtype, shape, num_classes = _work_dtype(features), means.shape[:-2], means.shape[-2]
    centre, offsets = _from_centre(means, dtype)
    weight = weight.double().reshape(offsets.shape)
    # argmin ‖x - m‖² = argmax (m·x - ‖m‖²/2) with x = h - centre: both decisions in one product
    linear = (weight @ centre.double()[..., None])[..., 0]
    linear = linear if bias is None else linear + bias.reshape(linear.shape)
    constants = torch.cat([linear, -offsets.square().sum(-1) / 2], -1).to(dtype)  # (M, 2K)
    slopes = torch.cat([weight, offsets], -2).mT.to(dtype)  # (M, p, 2K)
    agreements = torch.zeros(len(offsets), dtype=torch.float64, device=means.device)
    for member, _, block in _blocks(features):
        scores = torch.addmm(constants[member], block - centre[member], slopes[member])
        same = scores[:, :num_classes].argmax(-1) == scores[:, num_classes:].argmax(-1)
        # argmax takes NaN for the largest; 0 · NaN and 0 · inf are NaN and so mark the member
        agreements[member] += same.sum() + 0 * scores.sum(dtype=torch.float64)
    return agreements.reshape(shape)


# ------------------------------------------------------------------ small pieces


def _unit_norm(matrix: Tensor) -> Tensor:
    return matrix / torch.linalg.matrix_norm(matrix, keepdim=True)


def _mean_of_pairs(values: Tensor) -> Tensor:
    """Mean of the off-diagonal entries of (..., K, K), whatever the diagonal holds."""
    num_classes = values.shape[-1]
    diagonal = torch.eye(num_classes, dtype=torch.bool, device=values.device)
    total = values.masked_fill(diagonal, 0).sum((-2, -1))
    return total / (num_classes * (num_classes - 1))


def _in_order(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: metrics[name] for name in KEYS if name in metrics}


def _the_same(states: Tensor) -> Tensor:
    """Reduce a state that every process must share, (processes, ...): one of them, if they do."""
    if not all(torch.equal(state, states[0]) for state in states[1:]):
        raise ValueError("streams can't be merged: their second passes stand on other class means")
    return states[0]


# ------------------------------------------------------------------ checks at the public boundary


def _check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")


def _tensor(values, device=None) -> Tensor:
    with warnings.catch_warnings():
        # as_tensor warns of read-only arrays (a memory map, say); nothing here writes to its input
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(values, device=device)


def _float_tensor(name: str, values, device=None, ndim: int = 2) -> Tensor:
    values = _tensor(values, device)
    if not values.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {values.dtype}")
    if values.ndim != ndim or values.numel() == 0:
        raise ValueError(f"{name} must have {ndim} axes, none empty, got {tuple(values.shape)}")
    # One cheap pass. A half-precision sum may overflow though all is well, hence the closer look.
    if not values.sum().isfinite() and not (finite := values.isfinite()).all():
        index = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(
            f"{name} hold NaN or inf: {(~finite).sum()} of {values.numel()} values, "
            f"the first at {index} is {values[index].item()}"
        )
    return values


def _checked_layer(weight, bias, device=None) -> tuple[Tensor, Tensor | None]:
    weight = _float_tensor("weight", weight, device)
    if len(weight) < 2:
        raise ValueError(f"weight must have K >= 2 rows, one a class, got {len(weight)}")
    if bias is None:
        return weight, None
    bias = _float_tensor("bias", bias, weight.device, ndim=1)
    if len(bias) != len(weight):
        raise ValueError(f"bias must have K = {len(weight)} entries, got {len(bias)}")
    return weight, bias


def _checked_samples(
    features, labels, weight: Tensor, kind: str = ""
) -> tuple[Tensor, Tensor | None]:
    features = _float_tensor(f"{kind}features", features, weight.device)
    num_classes, width = weight.shape
    if features.shape[1] != width:
        raise ValueError(
            f"{kind}features must be p = {width} wide, as weight is, got {features.shape[1]}"
        )
    if labels is None:
        return features, None
    labels = _tensor(labels, weight.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{kind}labels must be integers, got {labels.dtype}")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"{kind}labels must have shape ({len(features)},), one a sample, "
            f"got {tuple(labels.shape)}"
        )
    labels = labels.long()
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(outside):
        first = outside[0].item()
        raise ValueError(
            f"{kind}labels must lie in [0, {num_classes}), K being the rows of weight, "
            f"got {labels[first].item()} at sample {first}"
        )
    return features, labels


def _check_every_class_occurs(counts: Tensor) -> None:
    missing = (counts == 0).nonzero()[:, 0].tolist()
    if missing:
        named = ", ".join(map(str, missing[:NAMED_CLASSES]))
        more = f" and {len(missing) - NAMED_CLASSES} more" if len(missing) > NAMED_CLASSES else ""
        raise ValueError(f"no samples in labels for class {named}{more} of {len(counts)}")
