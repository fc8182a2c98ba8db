// Figures that compute in the page. No library, no request: what they draw is worked out here, in
// double precision, by the formulas of ncbook.theory and ncbook.metrics. tests/test_live.py holds
// the two against each other.
//
// A page may have any number of figures, and may hold this script any number of times: the first
// copy makes window.ncbookLive, and each copy starts the figures that have not started yet.
// figure.live tells what a figure shows: {values, numbers, curves: {name: [[x, y], ...]}}.
(() => {
"use strict";

// ------------------------------------------------------------------ the laws: numbers in, numbers out

// (1 − x)^t
const power = (x, t) => (t === 0 ? 1 : Math.exp(t * Math.log1p(-x)));

// α_t/α_0 for t = 0 … steps: SGD and SGDW by the exact row-sum law, and Theorem 3.1's bound.
// As theory.row_sum_stepped, its square, and theory.theorem31_bound.
function law({ lr, momentum, weight_decay, steps }) {
  const sgd = new Float64Array(steps + 1), sgdw = sgd.slice(), bound = sgd.slice();
  const rate = momentum > 0 ? (lr * weight_decay) / Math.log(momentum) : 0;
  let u = 1, v = 0;
  for (let t = 0; t <= steps; t++) {
    sgd[t] = u * u;
    v = momentum * v + weight_decay * u;
    u -= lr * v;
    sgdw[t] = power(lr * weight_decay, 2 * t);
    bound[t] = momentum > 0 ? Math.exp(rate * t) : power(lr * weight_decay, t);
  }
  return { sgd, sgdw, bound, critical: (1 - Math.sqrt(lr * weight_decay)) ** 2 };
}

// NC0 for t = 0 … steps of sign descent from W = 0 on collapsed features, with the mean
// cross-entropy's gradient: theory.simulate_signgd, decoupled_alpha, turning_points.
function signgd({ num_classes: K, lr, weight_decay: decay, steps }) {
  const coupled = coupledWalk(K, lr, decay, steps), decoupled = coupled.slice();
  for (let t = 0; t <= steps; t++) {
    const weight = decay ? -Math.expm1(t * Math.log1p(-lr * decay)) / decay : t * lr;
    decoupled[t] = Math.sqrt(K) * (K - 2) * weight;
  }
  const turns = decay ? turningPoints(K, lr, decay) : { rise_ends: Infinity, fall_ends: Infinity };
  return { coupled, decoupled, limit: (Math.sqrt(K) * (K - 2)) / decay, ...turns };
}

// The gradient off the diagonal, g > 0, at a + b = gap; on it stands −(K − 1) g.
function offDiagonal(gap, K) {
  const scale = Math.sqrt(K - 1), small = Math.exp(-Math.min(gap / scale, 700));
  return small / (1 + (K - 1) * small) / (K * scale);
}

// a = i·lr and b = j·lr stay whole multiples of lr. A state that returns after two steps does so
// for ever, as the next depends on nothing else.
function coupledWalk(K, lr, decay, steps) {
  const path = new Float64Array(steps + 1);
  let i = 0, j = 0, before = [NaN, NaN], last = [0, 0];
  for (let t = 1; t <= steps; t++) {
    const g = offDiagonal(lr * (i + j), K);
    i += Math.sign((K - 1) * g - decay * lr * i);
    j += Math.sign(g - decay * lr * j);
    path[t] = Math.sqrt(K) * lr * Math.abs(i - (K - 1) * j);
    if (i === before[0] && j === before[1]) {
      for (t++; t <= steps; t++) path[t] = path[t - 2];
    }
    [before, last] = [last, [i, j]];
  }
  return path;
}

// T₁ and T₂ in steps: where the force on b, and then the force on a, is spent.
function turningPoints(K, lr, decay) {
  const highest = offDiagonal(0, K) / decay;
  const rise = root((w) => offDiagonal(2 * w, K) - decay * w, highest);
  const fall = root((a) => (K - 1) * offDiagonal(a + a / (K - 1), K) - decay * a, (K - 1) * highest);
  return { rise_ends: rise / lr, fall_ends: fall / lr };
}

// The root in [0, high] of a falling function, halved until no number lies between.
function root(f, high) {
  let low = 0;
  for (;;) {
    const middle = (low + high) / 2;
    if (middle <= low || middle >= high) return middle;
    if (f(middle) > 0) low = middle;
    else high = middle;
  }
}

// NC0 over its start for t = 0 … steps under decoupled decay, with η times 0.1 after each of two
// shares of the steps: no push (theory.row_sum_trajectory), independent pushes of a root mean square
// (theory.symmetry.noise_floor), and a constant push away from zero.
function balance({ weight_decay, lr, push, steps }, shares) {
  const exact = new Float64Array(steps + 1).fill(1), rounding = exact.slice(), leak = exact.slice();
  const drops = shares.map((share) => Math.floor(share * steps + 1e-9));
  for (let t = 0, rate = lr; t < steps; t++) {
    if (drops.includes(t)) rate *= 0.1;
    const kept = Math.abs(1 - rate * weight_decay);
    exact[t + 1] = kept * exact[t];
    rounding[t + 1] = Math.hypot(kept * rounding[t], rate * push);
    leak[t + 1] = kept * leak[t] + rate * push;
  }
  return { exact, rounding, leak, drops, limit: push / weight_decay };
}

// Matrices are lists of rows.
const dot = (x, y) => x.reduce((sum, value, k) => sum + value * y[k], 0);
const norm = (A) => Math.sqrt(A.reduce((sum, row) => sum + dot(row, row), 0));
const scaled = (A, factor) => A.map((row) => row.map((value) => factor * value));
const minus = (A, B) => A.map((row, n) => row.map((value, k) => value - B[n][k]));
const mean = (A) => A[0].map((_, k) => A.reduce((sum, row) => sum + row[k], 0) / A.length);
const mixed = (A, B, share) => A.map((r, n) => r.map((x, k) => x + share * (B[n][k] - x)));
const unit = (A) => scaled(A, 1 / norm(A));

// The layer on its way: a share `collapse` of the end, the rest of the start, and `shift` times
// one vector added to every row of W.
function layer({ collapse, shift }, data) {
  const H = mixed(data.features, data.labels.map((k) => data.simplex[k]), collapse);
  const W = mixed(data.weight, data.simplex, collapse)
    .map((row) => row.map((value, k) => value + shift * data.direction[k]));
  const mu = data.simplex.map((_, k) => mean(H.filter((_, n) => data.labels[n] === k)));
  return { H, W, mu, labels: data.labels };
}

// NC0 to NC3 in three dimensions, as metrics.nc_metrics.
function collapseMetrics({ H, W, mu, labels }) {
  const centre = mean(mu), M = mu.map((row) => row.map((value, k) => value - centre[k]));
  const scatter = inverse(M[0].map((_, i) => M[0].map((_, j) => dot(column(M, i), column(M, j)))));
  const within = minus(H, labels.map((k) => mu[k]));
  const K = M.length, off = (i, j) => ((i === j) - 1 / K) / Math.sqrt(K - 1);
  const gram = unit(M.map((x) => M.map((y) => dot(x, y))));
  return {
    nc0: norm([mean(W)]) * K,
    nc1: within.reduce((sum, r) => sum + dot(r, scatter.map((row) => dot(row, r))), 0) / H.length,
    nc2: norm(gram.map((row, i) => row.map((value, j) => value - off(i, j)))),
    nc3: norm(minus(unit(W), unit(M))),
  };
}

const column = (A, k) => A.map((row) => row[k]);
const cross = (x, y) => [0, 1, 2].map(
  (k) => x[(k + 1) % 3] * y[(k + 2) % 3] - x[(k + 2) % 3] * y[(k + 1) % 3]);

// Of a symmetric 3 × 3 matrix.
function inverse([x, y, z]) {
  const adjugate = [cross(y, z), cross(z, x), cross(x, y)];
  return scaled(adjugate, 1 / dot(x, adjugate[0]));
}

// --------------------------------------------------------------------------------- numbers in words

const raised = (n) => "10" + String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻");
const plainly = (x, digits) => x.toLocaleString("en", { maximumSignificantDigits: digits });

function words(x, digits = 3) {
  if (x === 0 || !Number.isFinite(x)) return x === 0 ? "0" : "never";
  if (Math.abs(x) >= 1e-3 && Math.abs(x) < 1e6) return plainly(x, digits);
  const [front, back] = x.toExponential(digits - 1).split("e");
  return (Number(front) === 1 ? "" : plainly(Number(front), digits) + " × ") + raised(Number(back));
}

// ------------------------------------------------------------------------------------------ drawing

const SVG = "http://www.w3.org/2000/svg", SWING = 12;

function element(name, attributes = {}, text = "", space) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
const shape = (name, attributes, text) => element(name, attributes, text, SVG);
const line = (x1, y1, x2, y2, more) => shape("line", { x1, y1, x2, y2, ...more });
const round = (x) => Math.round(x * 100) / 100;

// A position in pixels for each value, and the values that get a tick.
function axis(low, high, from, to, log) {
  const at = log ? Math.log10 : (x) => x;
  const place = (x) => from + ((at(x) - at(low)) / (at(high) - at(low))) * (to - from);
  const most = Math.max(2, Math.floor(Math.abs(to - from) / (from < to ? 75 : 34)));
  const ticks = log ? decades(low, high, most) : steps(high, most);
  return { place, low, high, ticks, text: log && high > 2000 * low ? tenTo : (x) => plainly(x, 6) };
}

function decades(low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.ceil((last - first + 1) / most), found = [];
  for (let n = Math.ceil(first / every) * every; n <= last; n += every) {
    found.push(10 ** n);
    if (last - first < 2) found.push(...[2, 5].map((m) => m * 10 ** n));
  }
  return found.filter((x) => x >= low * 0.999 && x <= high * 1.001);
}

function steps(high, most) {
  const power = 10 ** Math.floor(Math.log10(high / most));
  const every = [1, 2, 5, 10].map((m) => m * power).find((step) => high / step <= most);
  return Array.from({ length: Math.floor(high / every + 1e-9) + 1 }, (_, n) => n * every);
}

const tenTo = (x) => (x === 1 || x === 10 ? String(x) : raised(Math.round(Math.log10(x))));

// What can be seen of a curve: of all steps in one pixel column the highest and the lowest. Where it
// swings, a column is as wide as a swing that can be seen: narrower ones would fill the plane.
function thinned(values, x) {
  const highs = [], lows = [];
  const before = (t, pixel) => t < values.length && x.place(t) < pixel;
  for (let t = Math.ceil(x.low); t < values.length;) {
    const pixel = Math.floor(x.place(t));
    let low = t, high = t, turns = 0;
    for (let s = t + 1; turns < 2 && before(s + 1, pixel + SWING); s++) {
      turns += (values[s] - values[s - 1]) * (values[s + 1] - values[s]) < 0;
    }
    for (const end = pixel + (turns < 2 ? 1 : SWING); before(t, end); t++) {
      if (values[t] < values[low]) low = t;
      if (values[t] > values[high]) high = t;
    }
    highs.push([high, values[high]]);
    lows.push([low, values[low]]);
  }
  return { highs, lows };
}

// Axes, marks, curves and dots. A curve is named at its end, right of the axes, or where it leaves them.
// Where it swings faster than the eye could follow, its line is the top of a shaded band.
function plot(svg, { width, height, x, y, curves, dots = [], marks = [], names }) {
  const longest = Math.max(...curves.map(({ label }) => label.length));
  const left = 44, right = width - 14 - 9 * longest, top = 34, bottom = height - 38;
  const across = axis(x.low, x.high, left, right, x.log), up = axis(y.low, y.high, bottom, top, true);
  svg.append(shape("text", { x: 2, y: 12 }, names.y));
  svg.append(shape("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, names.x));
  for (const tick of up.ticks) {
    const at = round(up.place(tick));
    svg.append(line(left, at, right, at, { class: "grid", "data-y": tick }));
    svg.append(shape("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, up.text(tick)));
  }
  for (const tick of across.ticks) {
    const at = round(across.place(tick));
    svg.append(line(at, bottom, at, bottom + 4, { class: "axis", "data-x": tick }));
    svg.append(shape("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, across.text(tick)));
  }
  svg.append(shape("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` }));
  for (const mark of marks.filter(({ at }) => at >= x.low && at <= x.high)) {
    const at = round(across.place(mark.at));
    svg.append(line(at, top, at, bottom, { class: "turn" }));
    svg.append(shape("text", { x: at, y: top - 6, "text-anchor": mark.anchor }, mark.text));
  }
  const labels = [], drawn = {};
  // What lies below the axes is drawn on their lower edge.
  const pixel = ([t, value]) => [round(across.place(t)), round(up.place(Math.max(value, y.low)))];
  for (const curve of curves) {
    const { highs, lows } = thinned(curve.values, across), line = highs.map(pixel).join("L");
    drawn[curve.name] = highs;
    const band = lows.map(pixel).reverse().join("L");
    svg.append(shape("path", { class: `band ${curve.name}`, d: `M${line}L${band}z` }));
    svg.append(shape("path", { class: `curve ${curve.name}`, d: `M${line}` }));
    labels.push({ text: curve.label, ...whereNamed(curve.values, across, up, right, bottom) });
  }
  for (const { name, outline, points } of dots) {
    const put = (point) => shape("path", {
      class: "dot", d: outline(3), transform: `translate(${pixel(point)})`, "data-run": name });
    svg.append(...points.map(put));
  }
  for (const { text, x, y } of apart(labels, top, bottom)) {
    svg.append(shape("text", { class: "name", x, y }, text));
  }
  return drawn;
}

function whereNamed(values, across, up, right, bottom) {
  let last = values.length - 1;
  while (last > 0 && !(values[last] > up.low)) last--;
  const at = across.place(Math.max(last, across.low));
  if (at < right - 80) return { x: at + 8, y: bottom - 8 };
  const end = Math.max(...values.subarray(Math.max(0, values.length - 2)));
  return { x: right + 6, y: up.place(Math.max(end, up.low)) + 4 };
}

// No two names on one another: from the lowest up, each goes above those that it would cover.
function apart(labels, top, bottom) {
  const placed = [];
  for (const label of labels.sort((p, q) => q.y - p.y)) {
    let y = Math.min(Math.max(label.y, top), bottom);
    for (const other of placed) {
      if (Math.abs(other.x - label.x) < 80 && y > other.y - 15) y = other.y - 15;
    }
    placed.push({ ...label, y });
  }
  return placed;
}

// ---------------------------------------------------------------------------------- the five figures
// Each draws into an SVG and returns the numbers below it, and the curves that it drew.

// The lowest power of ten that still shows where curves end: in few leaps, so that the eye keeps hold.
function lowest(curves) {
  const ends = curves.map((values) => Math.max(...values.subarray(Math.floor(values.length * 0.9))));
  return [0.1, 1e-3, 1e-6, 1e-12].find((edge) => Math.min(...ends) > 1.5 * edge) ?? 1e-12;
}

function drawLaw(svg, size, values) {
  const { sgd, sgdw, bound, critical } = law(values), T = values.steps;
  const curves = [
    { name: "bound", label: "bound", values: bound },
    { name: "sgdw", label: "SGDW", values: sgdw },
    { name: "sgd", label: "SGD", values: sgd },
  ];
  const y = { low: lowest([sgd, sgdw, bound]), high: 1.2 };
  const names = { x: "step t", y: "α(t) / α(0)" };
  const drawn = plot(svg, { ...size, x: { low: 0, high: T }, y, curves, names });
  const after = `after ${plainly(T, 6)} steps`;
  // None ever is zero: it is too small for a number.
  const left = (value) => ({ value, ...(value === 0 && { text: "under 10⁻³⁰⁰" }) });
  return { curves: drawn, numbers: [
    { name: "sgd", label: `SGD's α/α(0), ${after}`, ...left(sgd[T]) },
    { name: "sgdw", label: "SGDW's", ...left(sgdw[T]) },
    { name: "bound", label: "Theorem 3.1's bound", ...left(bound[T]) },
    { name: "critical", label: "β*, where SGD is fastest", value: critical, digits: 4 },
  ] };
}

function drawSigngd(svg, size, values) {
  const { coupled, decoupled, limit, rise_ends, fall_ends } = signgd(values), T = values.steps;
  const curves = [
    { name: "decoupled", label: "decoupled", values: decoupled },
    { name: "coupled", label: "coupled", values: coupled },
  ];
  // One step moves NC0 by at most √K·K·η: the axes begin well below one such step.
  const tail = Math.sqrt(values.num_classes) * values.lr;
  const top = coupled.reduce((most, value) => Math.max(most, value), decoupled[T]);
  const low = 10 ** Math.floor(Math.log10(tail / 2)), high = 10 ** Math.ceil(Math.log10(1.5 * top));
  const y = { low, high };
  if (limit <= y.high) {
    curves.unshift({ name: "limit", label: "limit", values: decoupled.slice().fill(limit) });
  }
  const marks = [
    { at: rise_ends, text: "T₁", anchor: "end" },
    { at: fall_ends, text: "T₂", anchor: "start" },
  ];
  const names = { x: "step t", y: "NC0" };
  const drawn = plot(svg, { ...size, x: { low: 1, high: T, log: true }, y, curves, marks, names });
  const last = [coupled[T], coupled[T - 1]].sort((p, q) => p - q).map((value) => words(value));
  const text = new Set(last).size > 1 && T > fall_ends ? last.join(" and ") + ", in turn" : undefined;
  return { curves: drawn, numbers: [
    { name: "coupled", label: `coupled, after ${plainly(T, 6)} steps`, value: coupled[T], text },
    { name: "decoupled", label: "decoupled", value: decoupled[T] },
    { name: "limit", label: "decoupled, in the limit", value: limit, never: "no limit" },
    { name: "rise_ends", label: "T₁, where coupled turns", value: rise_ends, digits: 4 },
    { name: "fall_ends", label: "T₂, where its fall ends", value: fall_ends, digits: 4 },
  ] };
}

// Dots are drawn only of runs whose setting is the sliders': under another they would tell nothing.
function drawBalance(svg, size, values, { settings, shares }) {
  const { exact, rounding, leak, drops, limit } = balance(values, shares), T = values.steps;
  const here = ({ at }) => Object.keys(at).every((name) => at[name] === values[name]);
  const runs = settings.find(here)?.runs ?? [];
  const curves = [
    { name: "exact", label: "exact", values: exact },
    { name: "rounding", label: "rounding", values: rounding },
    { name: "leak", label: "leak", values: leak },
  ];
  const dots = runs.map(({ label, step, left }, n) => (
    { name: label, outline: OUTLINES[n], points: step.map((t, k) => [t, left[k]]) }));
  const all = [exact, rounding, leak, ...runs.map(({ left }) => Float64Array.from(left))];
  const top = Math.max(...all.map((one) => one.reduce((most, value) => Math.max(most, value))));
  const y = { low: lowest(all), high: top > 1.1 ? 10 ** Math.ceil(Math.log10(1.1 * top)) : 1.2 };
  const marks = drops.map((at, n) => ({ at, text: `η/${10 ** (n + 1)}`, anchor: "middle" }));
  const names = { x: "step t", y: "NC0(t) / NC0(0)" };
  const drawn = plot(svg, { ...size, x: { low: 0, high: T }, y, curves, dots, marks, names });
  return { curves: drawn, numbers: [
    { name: "exact", label: `exact, left after ${plainly(T, 6)} steps`, value: exact[T] },
    { name: "rounding", label: "with rounding", value: rounding[T] },
    { name: "leak", label: "with a leak", value: leak[T] },
    { name: "limit", label: "a leak's limit, push/λ", value: limit, never: "no limit" },
    ...runs.map(({ label, left }, n) => (
      { name: label, label: `${"●■▲◆"[n]} ${label}, measured`, value: left.at(-1) })),
  ] };
}

// Stored runs, one curve an optimizer: the slider chooses among what the data have. The axes are the
// same for all its stops, so that what moves is the runs.
function drawTraining(svg, size, { weight_decay }, data) {
  const n = data.weight_decays.indexOf(weight_decay), all = Object.values(data.left).flat(2);
  const decade = (x, toward) => 10 ** toward(Math.log10(x));
  const seen = all.filter((x) => x > 0);
  const y = { low: decade(Math.min(...seen), Math.floor), high: decade(Math.max(...seen), Math.ceil) };
  const curves = Object.keys(data.labels).filter((name) => data.left[name][n]).map((name) => (
    { name, label: data.labels[name], values: everyEpoch(data.epochs, data.left[name][n]) }));
  const names = { x: "epoch", y: "NC0, as a share of its start" };
  const x = { low: 0, high: data.epochs.at(-1) };
  const drawn = plot(svg, { ...size, x, y, curves, names });
  return { curves: drawn, numbers: Object.keys(data.labels).map((name) => {
    const value = data.nc3[name][n] ?? NaN, share = Math.min(1, value / data.nc3_start);
    const label = `NC3, ${data.labels[name]}`;
    return { name, label, value, digits: 2, never: "no run learned", ...(share >= 0 && { share }) };
  }) };
}

// A straight line on the log axis from each measured epoch to the next.
function everyEpoch(epochs, values) {
  const whole = new Float64Array(epochs.at(-1) + 1);
  epochs.forEach((end, n) => {
    const begin = epochs[Math.max(0, n - 1)], last = values[Math.max(0, n - 1)];
    for (let t = begin; t <= end; t++) {
      whole[t] = t === end ? values[n] : last * (values[n] / last) ** ((t - begin) / (end - begin));
    }
  });
  return whole;
}

const VIEW = { turn: 0.5, tilt: 0.3 };

function turned([x, y, z], { turn, tilt }) {
  const [c, s, d, e] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  const deep = c * z - s * x;
  return [c * x + s * z, d * y - e * deep, e * y + d * deep];
}

// One outline a class, so that colour is not all that tells them apart.
const OUTLINES = [
  (r) => `M${-r},0a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0,${-1.3 * r}L${1.2 * r},${0.9 * r}H${-1.2 * r}z`,
  (r) => `M0,${-1.4 * r}L${1.4 * r},0L0,${1.4 * r}L${-1.4 * r},0z`,
];

function drawSimplex(svg, { width, height }, values, data, view) {
  const now = layer(values, data), { H, W, mu, labels } = now;
  const centre = mean(mu), size = norm(mu.map((row) => row.map((v, k) => v - centre[k]))) / norm(W);
  const reach = Math.min(width, height) / 2 / data.reach, things = [];
  const seen = (point) => {
    const [x, y, z] = turned(point, view);
    return [round(width / 2 + reach * x), round(height / 2 - reach * y), z];
  };
  const put = (depth, made) => things.push([depth, made]);
  const outline = (point, k, r, more) => {
    const [x, y, z] = seen(point), near = 1 + 0.15 * z;
    put(z, shape("path", { d: OUTLINES[k](round(r * near)), transform: `translate(${x},${y})`, ...more }));
  };
  mu.forEach((one, k) => mu.slice(0, k).forEach((other) => {
    const [p, q] = [seen(one), seen(other)];
    put((p[2] + q[2]) / 2 - 0.3, line(p[0], p[1], q[0], q[1], { class: "edge" }));
  }));
  H.forEach((point, n) => outline(point, labels[n], 3.2, { class: `sample class${labels[n]}` }));
  mu.forEach((point, k) => outline(point, k, 7.5, { class: `mean class${k}` }));
  W.forEach((row, k) => put(...arrow(seen([0, 0, 0]), seen(row.map((v) => v * size)), k)));
  things.sort((p, q) => p[0] - q[0]).forEach(([, made]) => svg.append(made));
  mu.forEach((point, k) => {
    // A class's number stands 20 pixels outside of its mark.
    const [x, y] = seen(point), right = x - width / 2, down = y - height / 2;
    const out = 20 / (Math.hypot(right, down) || 1);
    const at = { x: round(x + out * right), y: round(y + out * down + 4) };
    svg.append(shape("text", { class: "name", "text-anchor": "middle", ...at }, k + 1));
  });
  const found = collapseMetrics(now), start = collapseMetrics(layer({ collapse: 0, shift: 0 }, data));
  return { curves: {}, numbers: Object.keys(found).map((name) => ({
    name, label: name.toUpperCase(), value: found[name], share: Math.min(1, found[name] / start[name]),
    // Rounding leaves some 1e-16 of what is zero.
    text: found[name] < 1e-12 ? "0" : found[name].toPrecision(2),
  })) };
}

function arrow(from, to, k) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1, head = Math.min(11, length);
  const [x, y] = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
  const base = [to[0] - head * x, to[1] - head * y], across = [-0.4 * head * y, 0.4 * head * x];
  const left = [base[0] + across[0], base[1] + across[1]];
  const corners = [left, to.slice(0, 2), [base[0] - across[0], base[1] - across[1]]];
  const made = shape("g", { class: `arrow class${k}` });
  made.append(line(from[0], from[1], round(base[0]), round(base[1])));
  made.append(shape("path", { d: "M" + corners.map((at) => at.map(round)).join("L") + "z" }));
  return [to[2] / 2 + 0.01, made];
}

// ------------------------------------------------------------------------------ a figure, and its life

const KINDS = {
  law: { draw: drawLaw, height: 340 },
  signgd: { draw: drawSigngd, height: 340 },
  balance: { draw: drawBalance, height: 380 },
  simplex: { draw: drawSimplex, height: 400, turns: true, plays: "collapse" },
  training: { draw: drawTraining, height: 380 },
};
let made = 0;

function start(figure) {
  const spec = JSON.parse(figure.dataset.live), kind = KINDS[spec.kind];
  const view = { ...VIEW }, sliders = {}, body = figure.querySelector(".ncbook-live-body");
  const svg = shape("svg", { role: "img", "aria-label": spec.description });
  const numbers = element("div", { class: "numbers", role: "status" });
  const panel = element("div", { class: "sliders" }), id = `ncbook-live-${++made}`;
  let drawnAt, playing = 0;

  function draw() {
    const values = {};
    for (const { name, values: all } of spec.controls) values[name] = all[sliders[name].input.value];
    drawnAt = body.clientWidth;
    const width = Math.max(240, drawnAt), height = Math.min(kind.height, Math.round(0.9 * width));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const shown = kind.draw(svg, { width, height }, values, spec.data, view);
    numbers.setAttribute("aria-live", playing ? "off" : "polite");
    numbers.replaceChildren(...shown.numbers.map(numberShown));
    const found = Object.fromEntries(shown.numbers.map(({ name, value }) => [name, value]));
    figure.live = { values, numbers: found, curves: shown.curves, view: { ...view } };
  }

  function set(name, index) {
    const { input, output, control } = sliders[name];
    input.value = index;
    output.textContent = words(control.values[input.value], 6);
    input.setAttribute("aria-valuetext", output.textContent);
  }

  for (const control of spec.controls) {
    const own = `${id}-${control.name}`, max = control.values.length - 1;
    const input = element("input", { id: own, name: control.name, type: "range", min: 0, max, step: 1 });
    const output = element("output", { for: own });
    sliders[control.name] = { input, output, control };
    input.addEventListener("input", () => { set(control.name, input.value); draw(); });
    panel.append(element("label", { for: own }, control.label), input, output);
    set(control.name, control.start);
  }

  const buttons = element("div", { class: "buttons" });
  const button = (text, act) => {
    const one = element("button", { type: "button" }, text);
    one.addEventListener("click", act);
    buttons.append(one);
  };
  const stop = () => { cancelAnimationFrame(playing); playing = 0; };
  if (kind.plays) {
    panel.addEventListener("input", stop);
    button("Play", () => (playing ? stop() : play(sliders[kind.plays].control)));
  }
  button("Reset", () => {
    stop();
    Object.assign(view, VIEW);
    for (const control of spec.controls) set(control.name, control.start);
    draw();
  });
  for (const { at, runs } of spec.data.settings ?? []) {
    button(`Show ${runs.map(({ label }) => label).join(", ")}`, () => {
      for (const name in at) set(name, sliders[name].control.values.indexOf(at[name]));
      draw();
    });
  }

  // From where it is to the end; from the start if it is there. At once for who wants no motion.
  function play({ name, values }) {
    const end = values.length - 1, still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const from = Number(sliders[name].input.value) % end, began = performance.now();
    const frame = (time) => {
      const share = still ? 1 : Math.min(1, Math.max(0, time - began) / 3000);
      set(name, Math.round(from + share * (end - from)));
      draw();
      playing = share < 1 ? requestAnimationFrame(frame) : 0;
    };
    playing = requestAnimationFrame(frame);
  }

  body.replaceChildren(svg, numbers, panel, buttons);
  // JupyterLab would take a slider's arrow keys to go to another cell.
  body.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  if (kind.turns) turnable(svg, view, draw);
  draw();
  // In the next frame: to change the height while sizes are being reported is an error.
  const redraw = () => body.clientWidth !== drawnAt && draw();
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(body);
}

function numberShown({ name, label, value, digits, share, text, never }) {
  const one = element("div", { "data-name": name, "data-value": value }, label);
  const said = text ?? (never && !Number.isFinite(value) ? never : words(value, digits));
  one.append(element("b", {}, said));
  if (share !== undefined) one.append(element("i", { style: `width: ${round(100 * share)}%` }));
  return one;
}

function turnable(svg, view, draw) {
  const turn = (across, up) => {
    view.turn += across;
    view.tilt = Math.max(-1.5, Math.min(1.5, view.tilt + up));
    draw();
  };
  const keys = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  svg.setAttribute("tabindex", 0);
  svg.classList.add("turns");
  svg.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    turn(...keys[event.key]);
  });
  let held;
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    held = event;
  });
  svg.addEventListener("pointermove", (event) => {
    if (!event.buttons || !held) return;
    turn((event.clientX - held.clientX) / 120, (event.clientY - held.clientY) / 120);
    held = event;
  });
}

// Colours of the optimizers as in ncbook.figures (Okabe and Ito), two of them lighter on dark pages;
// everything else is the page's own.
const STYLE = `
.ncbook-live { --blue: #0072b2; --red: #d55e00; }
html[data-theme=dark] .ncbook-live, body[data-jp-theme-light=false] .ncbook-live { --blue: #3d9fdb; --red: #f0792a; }
figure.ncbook-live { margin: 1rem 0; color: inherit; }
html[data-theme] .bd-content div.cell_output .text_html:has(figure.ncbook-live) {
  background: none; color: var(--pst-color-text-base); padding: 0; }
.ncbook-live svg { display: block; width: 100%; height: auto; font: 13px/1 system-ui, sans-serif; }
.ncbook-live svg text { fill: currentColor; }
.ncbook-live svg .name { font-weight: 600; paint-order: stroke; stroke-width: 4px; stroke-linejoin: round;
  stroke: var(--pst-color-background, var(--jp-layout-color0, Canvas)); }
.ncbook-live svg .grid { stroke: currentColor; stroke-opacity: 0.15; }
.ncbook-live svg :is(.axis, .turn) { fill: none; stroke: currentColor; stroke-opacity: 0.6; }
.ncbook-live svg .turn { stroke-dasharray: 3 3; }
.ncbook-live svg .curve { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.ncbook-live svg .band { fill: currentColor; fill-opacity: 0.25; }
.ncbook-live svg :is(.sgd, .exact) { color: var(--blue); }
.ncbook-live svg .sgdw { color: #56b4e9; stroke-dasharray: 9 4; }
.ncbook-live svg .adam { color: var(--red); }
.ncbook-live svg .adamw { color: #e69f00; stroke-dasharray: 9 4; }
.ncbook-live svg :is(.coupled, .signum) { color: #009e73; }
.ncbook-live svg :is(.decoupled, .signumw) { color: #cc79a7; stroke-dasharray: 9 4; }
.ncbook-live svg .rounding { color: #009e73; stroke-dasharray: 9 4; }
.ncbook-live svg .leak { color: var(--red); stroke-dasharray: 2 4; }
.ncbook-live svg .dot { fill: currentColor; fill-opacity: 0.6; }
.ncbook-live svg :is(.bound, .limit) { stroke-dasharray: 2 4; }
.ncbook-live svg.turns { cursor: grab; touch-action: pan-y; user-select: none; }
.ncbook-live svg.turns:active { cursor: grabbing; }
.ncbook-live svg .edge { stroke: currentColor; stroke-opacity: 0.35; }
.ncbook-live svg .mean { stroke: currentColor; stroke-width: 1.2; }
.ncbook-live svg .sample { fill-opacity: 0.8; }
.ncbook-live svg .arrow { stroke-width: 2.5; }
.ncbook-live .class0 { fill: var(--blue); stroke: var(--blue); }
.ncbook-live .class1 { fill: var(--red); stroke: var(--red); }
.ncbook-live .class2 { fill: #009e73; stroke: #009e73; }
.ncbook-live .class3 { fill: #cc79a7; stroke: #cc79a7; }
.ncbook-live .numbers { display: flex; flex-wrap: wrap; gap: 0.3rem 1.3rem; margin: 0.6rem 0; font-size: 0.85em;
  font-variant-numeric: tabular-nums; }
.ncbook-live .numbers b { display: block; font-size: 1.15em; min-width: 3.4em; }
.ncbook-live .numbers i { display: block; height: 4px; background: currentColor; opacity: 0.6; }
.ncbook-live .sliders { display: grid; grid-template-columns: max-content minmax(5rem, 1fr) 6.6em;
  gap: 0.35rem 0.8rem; align-items: center; font-size: 0.9em; max-width: 44rem; }
.ncbook-live .sliders input { width: 100%; min-width: 0; margin: 0; height: 1.6em; accent-color: var(--blue); }
.ncbook-live .sliders label { margin: 0; }
.ncbook-live .sliders output { font-variant-numeric: tabular-nums; white-space: nowrap; }
.ncbook-live .buttons { display: flex; flex-wrap: wrap; gap: 0.6rem; margin: 0.5rem 0; }
.ncbook-live button { font: inherit; font-size: 0.85em; padding: 0.15em 0.9em; color: inherit; background: none;
  border: 1px solid currentColor; border-radius: 0.3em; cursor: pointer; }
.ncbook-live :focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
.ncbook-live figcaption { text-align: start; font: inherit; font-size: 0.9em; line-height: 1.5; color: inherit;
  margin: 0; padding: 0; max-width: none; }
`;

window.ncbookLive ??= {
  law, signgd, balance, layer, collapseMetrics,
  start() {
    if (!document.getElementById("ncbook-live-style")) {
      document.head.append(element("style", { id: "ncbook-live-style" }, STYLE));
    }
    for (const figure of document.querySelectorAll("figure.ncbook-live:not([data-ready])")) {
      figure.dataset.ready = "";
      start(figure);
    }
  },
};
window.ncbookLive.start();
})();
