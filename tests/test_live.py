"""Live figures: their HTML; and in a browser, each number on the page against the package's own."""

import itertools
import json
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from ncbook import live, metrics, store, theory
from ncbook.pages import six_grids
from ncbook.theory import symmetry

PUBLISHED = live.Path(__file__).parents[1] / "book" / "results"


def two_optimizers():
    """Made-up runs: none of AdamW's learned at the largest decay."""
    rows = pd.MultiIndex.from_product([["adam", "adamw"], [0, 0.01, 0.1]])
    curves = [[1, 1.5, 2], [1, 0.8, 0.2], [1, 0.5, 0.01], *[[1, 2, 3]] * 2, [np.nan] * 3]
    left = pd.DataFrame(curves, rows, columns=[0, 1, 10])
    nc3 = pd.Series([0.5, 0.1, 0.02, 0.5, 0.4, np.nan], rows)
    return live.training(left, nc3, 1.4, {"adam": "Adam", "adamw": "AdamW"}, "Two optimizers.")


def measured(label="Muon", weight_decay=0.5, lr=0.02, steps=3000, step=(0, 2999), left=(1, 0.2)):
    """A made-up run for the figure of the balance, one row a point."""
    setting = {"label": label, "weight_decay": weight_decay, "lr": lr, "steps": steps}
    return pd.DataFrame(setting | {"step": step, "left": left})


def balance_with_runs():
    """Two runs where the sliders start, and one elsewhere whose button is wide."""
    long = measured("Muon, all layers, in single precision, of ResNet9", 1)
    return live.balance(runs=pd.concat([measured(), measured("SOAP"), long]))


FIGURES = {"law": live.law, "signgd": live.signgd, "simplex": live.simplex}
FIGURES |= {"training": two_optimizers, "balance": balance_with_runs}
every_figure = pytest.mark.parametrize("kind", FIGURES)
LARGEST = 32_000  # characters that a figure may add to a page, its script included
TINIEST = 1e-300  # smaller numbers have fewer digits
SAME = 1e-9  # relative: JavaScript's numbers are float64, too, but summed in another order


def spec_of(html):
    """What the page gets to know of a figure."""
    return json.loads(unescape(re.search(r'data-live="([^"]*)"', html)[1]))


# ---------------------------------------------------------------- without a browser


@every_figure
def test_a_figure_is_whole_and_small(kind):
    html = FIGURES[kind]()._repr_html_()
    assert len(html) < LARGEST
    assert len(re.findall("<figcaption>.+</figcaption>", html)) == 1
    assert live.FALLBACK in html
    assert html.count("<script>") == html.count("</script") == 1
    assert not re.search(r"\b(src|href)=|\bimport\b|fetch|XMLHttp", html)  # nothing is loaded
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


@every_figure
def test_the_script_is_sent_without_its_comments_but_whole(kind):
    assert "//" not in re.sub(r"http://", "", live.script())
    source = (live.Path(live.__file__).parent / "live.js").read_text()
    assert live.script().count("function ") == len(
        re.findall(r"^\s*(?!//).*function ", source, re.M)
    )


@every_figure
def test_sliders_start_where_asked_and_rise(kind):
    spec = spec_of(FIGURES[kind]()._repr_html_())
    assert spec["kind"] == kind
    assert spec["description"]
    for control in spec["controls"]:
        values = control["values"]
        assert values == sorted(set(values))
        assert 0 <= control["start"] < len(values)


def test_a_value_between_two_stops_becomes_a_stop():
    figure = live.law(lr=0.0679, steps=469)
    starts = {c.name: c.values[c.start] for c in figure.controls}
    assert starts == {"lr": 0.0679, "momentum": 0.9, "weight_decay": 0.05, "steps": 469}


def test_without_html_a_figure_says_what_it_would_show():
    assert "Theorem 3.1" in repr(live.law())
    assert "\n" not in repr(live.law())


BAD = {
    "lr must be in [0.0001, 0.5], got 3": lambda: live.law(lr=3),
    "lr must be in [0.0001, 0.1], got 0.5": lambda: live.signgd(lr=0.5),
    "momentum must be in [0, 0.99], got 1": lambda: live.law(momentum=1),
    "momentum must be in [0, 0.99], got nan": lambda: live.law(momentum=float("nan")),
    "weight_decay must be in [0, 1], got -1": lambda: live.signgd(weight_decay=-1),
    "num_classes must be in [3, 100], got 2": lambda: live.signgd(num_classes=2),
    "num_classes must be a whole number of at least 1, got 3.5": lambda: live.signgd(3.5),
    "steps must be in [10, 100000], got 1e+06": lambda: live.law(steps=10**6),
    "collapse must be in [0, 1], got 1.1": lambda: live.simplex(collapse=1.1),
    "collapse must be a number or an array of numbers, got 'much'": lambda: live.simplex("much"),
    "weight_decay must be in [0, 10], got 11": lambda: live.balance(weight_decay=11),
    "lr must be in [0.0001, 0.1], got 0": lambda: live.balance(lr=0),
    "push must be in [1e-06, 100], got inf": lambda: live.balance(push=np.inf),
    "steps must be a whole number of at least 1, got 10.5": lambda: live.balance(steps=10.5),
    "epochs must be a whole number of at least 3, got 2": lambda: live.balance(epochs=2),
    "lr must be in [0.0001, 0.1], got 0.2": lambda: live.balance(runs=measured(lr=0.2)),
    "step must be in [0, 3000], got 3001": lambda: live.balance(runs=measured(step=(0, 3001))),
    "left must be in [0, inf), got nan": lambda: live.balance(runs=measured(left=(1, np.nan))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_line(message):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        BAD[message]()
    assert str(refusal.value) == message


# -------------------------------------------------------------------- in a browser


@pytest.fixture
def show(open_page, tmp_path):
    """A function that opens figures in a page; that page must load and log nothing."""
    pages, requests, said = [], [], []

    def show(*figures, head="", width=1000, **options):
        html = "".join(figure._repr_html_() for figure in figures)
        path = tmp_path / "page.html"
        path.write_text(f'<!doctype html><meta charset="utf-8">{head}<body>{html}', "utf-8")
        size = {"width": width, "height": 900}
        pages.append(page := open_page(viewport=size, **options))
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert said == []
    assert len(requests) == len(pages)  # the page itself, and nothing more


def live_state(page, at=0):
    """What the figure shows: values of its sliders, its numbers, its curves as drawn."""
    return page.locator("figure.ncbook-live").nth(at).evaluate("f => f.live")


def put(page, name, index):
    page.locator(f"input[name={name}]").fill(str(index))


def each_slider_moved(page, figure):
    """The state after each of a few settings of each slider, the others where they start."""
    for control in figure.controls:
        last = len(control.values) - 1
        for index in {0, last // 3, (2 * last) // 3, last}:
            put(page, control.name, index)
            state = live_state(page)
            assert state["values"][control.name] == control.values[index]
            yield state
        put(page, control.name, control.start)


def close(got, expected, size=0.0):
    """Within 1e-9 of the value, or of the size that an oscillation has there."""
    allowed = SAME * np.maximum(np.abs(expected), size)
    assert np.all(np.abs(np.subtract(got, expected)) <= allowed)


def test_the_law_on_the_page_is_the_packages(show):
    figure = live.law(0.01, 0.9, 0.05, 1000)
    page = show(figure)
    seen = set()
    for state in each_slider_moved(page, figure):
        values, curves = state["values"], state["curves"]
        setting = values["lr"], values["momentum"], values["weight_decay"]
        seen.add(tuple(state["numbers"].values()))
        for name, decoupled in (("sgd", False), ("sgdw", True)):
            t, y = np.array(curves[name]).T
            signed = theory.row_sum_closed_form(t, *setting, decoupled)
            close(y, signed**2, size=np.maximum.accumulate((signed**2)[::-1])[::-1])
            end = theory.row_sum_closed_form(values["steps"], *setting, decoupled) ** 2
            close(state["numbers"][name], end, size=y[-2:].max())
        t, y = np.array(curves["bound"]).T
        close(y, theory.theorem31_bound(t, *setting))
        close(state["numbers"]["critical"], theory.critical_momentum(setting[0], setting[2]))
    assert len(seen) == 16  # four settings of four sliders, and each tells another story


def test_sign_descent_on_the_page_is_the_packages(show):
    figure = live.signgd(10, 0.01, 1e-3, 3000)
    page = show(figure)
    seen = set()
    for state in each_slider_moved(page, figure):
        names = ("num_classes", "lr", "weight_decay", "steps")
        K, lr, decay, steps = (state["values"][name] for name in names)
        seen.add(tuple(state["numbers"].values()))
        walk = np.sqrt(K * theory.simulate_signgd(K, lr, decay, steps))
        t, y = np.array(state["curves"]["coupled"]).T
        close(y, walk[t.astype(int)], size=lr)  # where a = (K − 1) b the package has rounding
        close(state["numbers"]["coupled"], walk[-1], size=lr)
        t, y = np.array(state["curves"]["decoupled"]).T
        close(y, np.sqrt(K * theory.decoupled_alpha(t, K, lr, decay)))
        if decay:
            turns = theory.turning_points(K, lr, decay)
            close(state["numbers"]["rise_ends"], turns.rise_ends)
            close(state["numbers"]["fall_ends"], turns.fall_ends)
            limit = np.sqrt(K * theory.decoupled_limit(K, decay))
            close(state["numbers"]["limit"], limit)
        else:
            assert {state["numbers"][n] for n in ("rise_ends", "fall_ends", "limit")} == {np.inf}
    assert len(seen) == 16


@pytest.mark.parametrize("kind", ["law", "signgd"])
def test_at_every_extreme_each_curve_is_seen_and_each_number_is_read(kind, show):
    figure = FIGURES[kind]()
    page = show(figure)
    for corner in itertools.product((0, 1), repeat=len(figure.controls)):
        for end, control in zip(corner, figure.controls, strict=True):
            put(page, control.name, end * (len(control.values) - 1))
        frame = page.locator("path.axis").bounding_box()
        for path in page.locator("path.curve").all():
            box = path.bounding_box()
            assert box["width"] > 0.95 * frame["width"]
            assert frame["y"] - 3 <= box["y"]
            assert box["y"] + box["height"] <= frame["y"] + frame["height"] + 3
        told = page.locator(".numbers").inner_text()
        assert not re.search(r"inf|nan|undefined", told, re.IGNORECASE)
        assert ("under 10⁻³⁰⁰" in told) == (
            kind == "law" and 0 in live_state(page)["numbers"].values()
        )


def test_every_value_of_a_slider_has_room_beside_it(show):
    figure = live.law(weight_decay=1.5e-6)
    page = show(figure, width=600)
    room = "o => o.scrollWidth <= o.clientWidth && o.getBoundingClientRect().right <= innerWidth"
    for index in range(len(figure.controls[0].values)):
        put(page, "weight_decay", index)
        assert page.locator("output").first.evaluate(room)


def test_swings_too_fast_to_be_seen_are_a_band_and_their_ends_are_told(show):
    page = show(live.signgd(num_classes=100, lr=0.1, weight_decay=1, steps=100_000))
    points = live_state(page)["curves"]["coupled"]
    turns = [t for t, _ in points]
    x = np.log10(turns) / 5  # of the axis, which is some 850 pixels wide
    assert np.diff(x).min() * 850 > 4
    assert {round(value, 6) for t, value in points if t > 100} == {98}
    assert "0 and 98, in turn" in page.locator("[data-name=coupled]").inner_text()


def scheduled(lr, steps):
    """η of each step, divided by ten after 66 and after 133 of 200 epochs."""
    return lr * 0.1 ** sum(np.arange(steps) >= drop * steps // 200 for drop in (66, 133))


def balance_after(rates, weight_decay, push):
    """NC0 over its start after steps of these sizes: exact, with random pushes, with the same."""
    leak = 1.0
    for rate in rates:
        leak = abs(1 - rate * weight_decay) * leak + rate * push
    return {
        "exact": np.prod(np.abs(1 - rates * weight_decay)),
        "rounding": symmetry.noise_floor(rates, weight_decay, push, start=1),
        "leak": leak,
    }


def test_the_balance_on_the_page_is_the_packages(show):
    figure = live.balance()
    page = show(figure)
    seen = set()
    for state in each_slider_moved(page, figure):
        decay, lr, push, steps = state["values"].values()
        rates = scheduled(lr, steps)
        seen.add(tuple(state["numbers"].values()))
        for name, end in balance_after(rates, decay, push).items():
            close(state["numbers"][name], end, size=TINIEST)
            t, y = state["curves"][name][len(state["curves"][name]) // 2]
            close(y, balance_after(rates[:t], decay, push)[name], size=TINIEST)
        if steps % 200 == 0:
            t, y = np.array(state["curves"]["exact"]).T
            setting = lr, 0, decay, steps // 200, 200, True
            close(y, np.abs(theory.row_sum_trajectory(t, *setting)), size=TINIEST)
        assert state["numbers"]["limit"] == (push / decay if decay else np.inf)
    assert len(seen) == 16


CORNERS = [
    (d, lr, p, T) for d in (0, 10) for lr in (1e-4, 0.1) for p in (1e-6, 100) for T in (10, 1e5)
]


@pytest.mark.parametrize(("weight_decay", "lr", "push", "steps"), CORNERS)
def test_the_balance_has_all_curves_within_its_axes_at_every_extreme(
    weight_decay, lr, push, steps, show
):
    """At η λ = 1 nothing is left by the law; without decay everything is."""
    setting = dict(weight_decay=weight_decay, lr=lr, push=push, steps=int(steps))
    page = show(live.balance(**setting), width=400)
    state = live_state(page)
    for name, end in balance_after(scheduled(lr, int(steps)), weight_decay, push).items():
        close(state["numbers"][name], end, size=TINIEST)
        path = page.locator(f"path.curve.{name}").bounding_box()
        frame = page.locator("path.axis").bounding_box()
        assert path["width"] > 0.85 * frame["width"]
        assert frame["y"] - 2 <= path["y"] <= path["y"] + path["height"]
        assert path["y"] + path["height"] <= frame["y"] + frame["height"] + 2
    share = page.locator("[data-name=exact] b").inner_text()
    assert (share == "0") == (lr * weight_decay == 1)
    assert (page.locator("[data-name=limit] b").inner_text() == "no limit") == (weight_decay == 0)
    names = page.locator("svg text.name").evaluate_all("all => all.map(t => +t.getAttribute('y'))")
    assert len(names) == 3
    assert min(np.diff(sorted(names))) >= 14 or lr * weight_decay == 1


def test_the_balance_beyond_the_sliders_where_a_step_turns_u_over(show):
    page = show(live.balance())
    last = """s => {
        const { exact, rounding, leak } = ncbookLive.balance(s, [66 / 200, 133 / 200]);
        return [exact, rounding, leak].map((values) => values.at(-1));
    }"""
    for decay in (15, 25):  # 1 − η λ = −0.5 and −1.5
        setting = {"weight_decay": decay, "lr": 0.1, "push": 0.3, "steps": 30}
        expected = balance_after(scheduled(0.1, 30), decay, 0.3)
        close(page.evaluate(last, setting), list(expected.values()))


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(200, 11), (200, 469), (100, 23), (7, 5)])
def test_the_balance_drops_the_rate_where_the_packages_trainings_do(epochs, steps_per_epoch, show):
    page = show(live.balance(2, 0.005, steps=epochs * steps_per_epoch, epochs=epochs))
    law = theory.row_sum_ratio(0.005, 0, 2, steps_per_epoch, epochs, decoupled=True)
    close(live_state(page)["numbers"]["exact"], law)


def test_a_leak_settles_at_the_push_over_the_decay_and_rounding_at_its_floor(show):
    page = show(live.balance(weight_decay=5, lr=0.01, push=2, steps=30_000))
    numbers = live_state(page)["numbers"]
    assert numbers["leak"] == pytest.approx(2 / 5, rel=1e-3)
    assert numbers["rounding"] == pytest.approx(2 * (1e-4 / (2 * 5)) ** 0.5, rel=1e-3)


def test_runs_are_dots_where_the_sliders_are_at_their_setting_alone(show):
    at = {"lr": 0.033, "steps": 310}  # no stops of the sliders without these runs
    runs = [measured(step=(0, 309), **at), measured("SOAP", step=(0, 309), left=(1, 0.1), **at)]
    runs += [measured("Lion", 2, step=(0, 309), left=(1, 30), **at)]
    page = show(live.balance(weight_decay=0.5, runs=pd.concat(runs), **at))
    shown = "all => all.map(dot => dot.dataset.run)"
    dots = page.locator("path.dot")
    assert dots.evaluate_all(shown) == ["Muon", "Muon", "SOAP", "SOAP"]
    assert live_state(page)["numbers"]["SOAP"] == 0.1
    assert len(set(dots.evaluate_all("all => all.map(dot => dot.getAttribute('d'))"))) == 2
    for name in ("weight_decay", "lr", "steps"):
        page.locator(f"input[name={name}]").press("ArrowRight")
        assert dots.count() == 0
        page.locator(f"input[name={name}]").press("ArrowLeft")
        assert dots.count() == 4
    put(page, "push", 0)
    page.get_by_role("button", name="Show Lion").click()
    assert dots.evaluate_all(shown) == ["Lion", "Lion"]
    state = live_state(page)
    assert state["values"] == {"weight_decay": 2, "push": 1e-6, **at}
    assert page.locator("[data-name=Lion]").inner_text().startswith("● Lion, measured")
    page.get_by_role("button", name="Show Muon, SOAP").click()
    assert dots.count() == 4


def test_a_dot_is_drawn_where_its_number_says(show):
    page = show(live.balance(runs=measured(left=(1, 30))))
    for axis, own, value in (("x", "x1", 2999), ("y", "y1", np.log10(30))):
        ticks = page.locator(f"line[data-{axis}]").evaluate_all(
            f"ticks => ticks.map(t => [+t.dataset.{axis}, +t.getAttribute('{own}')])"
        )
        at, place = np.array(ticks).T
        slope, offset = np.polyfit(at if axis == "x" else np.log10(at), place, 1)
        moved = page.locator("path.dot").last.get_attribute("transform")
        pixel = float(re.findall(r"[\d.]+", moved)["xy".index(axis)])
        assert pixel == pytest.approx(slope * value + offset, abs=0.05)


def layer_at(data, collapse, shift):
    """Features and weight by the definition in ``live.simplex``."""
    data = {name: np.array(value) for name, value in data.items()}
    H = (1 - collapse) * data["features"] + collapse * data["simplex"][data["labels"]]
    W = (1 - collapse) * data["weight"] + collapse * data["simplex"]
    return H, data["labels"], W + shift * data["direction"]


def test_the_simplex_on_the_page_has_the_packages_metrics(show):
    figure = live.simplex(collapse=0.3, shift=0.2)
    page = show(figure)
    for state in each_slider_moved(page, figure):
        expected = metrics.nc_metrics(*layer_at(figure.data, **state["values"]))
        for name in ("nc0", "nc1", "nc2", "nc3"):
            close(state["numbers"][name], expected[name], size=1e-5)  # some 1e-14 at collapse


def test_collapse_is_reached_and_a_shift_spoils_nc0_and_nc3_alone(show):
    page = show(live.simplex(collapse=1))
    assert max(live_state(page)["numbers"].values()) < 1e-12
    assert page.locator("[data-name=nc0] b").inner_text() == "0"
    put(page, "shift", 50)
    numbers = live_state(page)["numbers"]
    assert numbers["nc0"] == pytest.approx(2, rel=SAME)  # four rows, each shifted by a half
    assert numbers["nc3"] > 0.1
    assert max(numbers["nc1"], numbers["nc2"]) < 1e-12


def test_stored_runs_on_the_page_are_the_stores(show):
    runs = six_grids.complete(six_grids.stored(PUBLISHED))
    figure = six_grids.live_figure(runs, PUBLISHED)
    page = show(figure)
    for state in each_slider_moved(page, figure):
        for name, points in state["curves"].items():
            ids = runs[
                (runs["optimizer"] == name)
                & (runs["weight_decay"] == state["values"]["weight_decay"])
                & (runs["train_acc"] >= 0.99)
                & (runs["status"] == "ok")
            ]["run_id"]
            history = store.load_history(PUBLISHED, run_id=list(ids)).set_index(["epoch", "run_id"])
            start, t = history["nc0"].loc[0], dict(points)
            for epoch in history.index.unique("epoch"):
                middle = (history["nc0"].loc[epoch] / start).median()
                assert t[epoch] == pytest.approx(middle, rel=1e-3)  # four digits are sent
            end = history["nc3"].loc[max(t)].median()
            assert state["numbers"][name] == pytest.approx(end, rel=1e-3)


def test_an_optimizer_none_of_whose_runs_learned_has_no_curve_and_says_so(show):
    page = show(two_optimizers())
    assert {*live_state(page)["curves"]} == {"adam", "adamw"}
    put(page, "weight_decay", 2)
    state = live_state(page)
    assert {*state["curves"]} == {"adam"}
    assert dict(state["curves"]["adam"])[10] == 0.01
    assert page.locator("[data-name=adamw] b").inner_text() == "no run learned"
    assert page.locator("[data-name=adamw] i").count() == 0


@pytest.mark.parametrize("kind", ["law", "signgd", "training", "balance"])
def test_the_curve_is_drawn_where_its_numbers_say(kind, show):
    """The ticks fix the scales; the last point of each curve must lie on them."""
    page = show(FIGURES[kind]())
    ticks = page.locator("line.grid").evaluate_all(
        "ticks => ticks.map(t => [Math.log10(t.dataset.y), +t.getAttribute('y1')])"
    )
    slope, offset = np.polyfit(*np.array(ticks).T, 1)
    for name, points in live_state(page)["curves"].items():
        drawn = page.locator(f"path.curve.{name}").get_attribute("d")[1:].split("L")
        assert len(drawn) == len(points)
        height = [float(pair.split(",")[1]) for pair in drawn]
        values = np.log10([value for _, value in points])
        np.testing.assert_allclose(height, slope * values + offset, atol=0.05)  # pixels


@every_figure
def test_every_slider_works_by_keyboard_and_has_a_name(kind, show):
    figure = FIGURES[kind]()
    page = show(figure)
    for control in figure.controls:
        slider = page.get_by_role("slider", name=control.label)
        before, key = live_state(page), "ArrowRight" if control.start == 0 else "ArrowLeft"
        slider.focus()
        page.keyboard.press(key)
        after = live_state(page)
        assert after["numbers"] != before["numbers"]
        shown = page.locator(f"output[for={slider.get_attribute('id')}]").inner_text()
        assert slider.get_attribute("aria-valuetext") == shown
    page.get_by_role("button", name="Reset").click()
    start = {c.name: c.values[c.start] for c in figure.controls}
    assert live_state(page)["values"] == start
    assert page.get_by_role("img", name=figure.description[:40]).count() == 1


def test_the_simplex_turns_by_keys_and_by_dragging(show):
    page = show(live.simplex())
    picture = page.locator("svg.turns")
    views = [live_state(page)["view"]]
    picture.focus()
    for key in ("ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        views.append(live_state(page)["view"])
    box = picture.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 200)
    page.mouse.up()
    page.mouse.move(box["x"] + 10, box["y"] + 10)  # not held: turns nothing
    views.append(live_state(page)["view"])
    turns = np.diff([[view["turn"], view["tilt"]] for view in views], axis=0)
    np.testing.assert_allclose(turns, [[-0.1, 0], [0, -0.1], [0.5, 0]], atol=1e-6)
    page.get_by_role("button", name="Reset").click()
    assert live_state(page)["view"] == views[0]


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_play_ends_in_collapse_at_once_for_who_wants_no_motion(motion, show):
    page = show(live.simplex(), reduced_motion=motion)
    page.clock.install()
    between = "document.querySelector('figure').live.values.collapse"
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(1000)  # of the 3 s that it takes
    stop = page.evaluate(between)
    assert stop == 1 if motion == "reduce" else 0 < stop < 1
    page.clock.run_for(3000)
    assert page.evaluate(between) == 1


def test_many_figures_in_a_page_are_apart_and_start_once(show):
    page = show(live.law(), live.law(momentum=0.5), live.simplex())
    assert page.locator("svg").count() == 3
    page.locator("input[name=momentum]").first.fill("0")
    assert live_state(page, 0)["values"]["momentum"] == 0
    assert live_state(page, 1)["values"]["momentum"] == 0.5
    identifiers = page.locator("input").evaluate_all("all => all.map(input => input.id)")
    assert len(set(identifiers)) == len(identifiers) == 10


@every_figure
def test_a_phone_shows_a_figure_without_scrolling_sideways(kind, show):
    viewport = '<meta name="viewport" content="width=device-width">'
    page = show(FIGURES[kind](), head=viewport, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    inside = "all => all.every(t => t.getBoundingClientRect().right <= innerWidth)"
    assert page.locator("svg text, input, output, button").evaluate_all(inside)
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function("document.querySelector('svg').viewBox.baseVal.width > 500")


CONTRAST = """all => all.map(one => {
    const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0.05);
    return light(getComputedStyle(one).stroke) / light("rgb(33, 33, 33)");
})"""


@pytest.mark.parametrize("theme", ["html data-theme=dark", "body data-jp-theme-light=false"])
@pytest.mark.parametrize("kind", ["law", "signgd", "training", "balance"])
def test_curves_on_a_dark_page_have_contrast(kind, theme, show):
    """As the book marks its night mode, and JupyterLab; WCAG asks for 4.5."""
    page = show(FIGURES[kind](), head="<style>body { color: #fff }</style>")
    where, name, value = re.split("[ =]", theme)
    page.locator(where).evaluate("(one, mark) => one.setAttribute(...mark)", [name, value])
    ratios = page.locator("path.curve").evaluate_all(CONTRAST)
    assert len(ratios) >= 2
    assert min(ratios) >= 4.5


def test_a_dark_page_has_light_letters(show):
    dark = "<script>document.documentElement.dataset.theme = 'dark'</script>"
    dark += "<style>html[data-theme=dark] { color: rgb(200, 210, 220); }</style>"
    page = show(live.law(), head=dark)
    colour = "all => all.map(t => getComputedStyle(t).fill)"
    letters = set(page.locator("svg text").evaluate_all(colour))
    assert letters == {"rgb(200, 210, 220)"}


@every_figure
def test_without_javascript_a_figure_says_so(kind, show):
    page = show(FIGURES[kind](), java_script_enabled=False)
    assert live.FALLBACK in page.locator("figure").inner_text()
    assert page.locator("input").count() == 0
