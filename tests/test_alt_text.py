"""Words for those who cannot see a figure."""

from types import SimpleNamespace

import matplotlib as mpl
import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib import pyplot as plt
from nbclient import NotebookClient

from ncbook import notices
from ncbook.figures import display


@pytest.fixture
def figure():
    made, (left, right) = plt.subplots(1, 2)
    made.suptitle("Two panels")
    left.plot([1, 2], label="Adam")
    left.set(title="$K = 4$", xlabel="weight decay $\\lambda$", ylabel="NC0 at the end")
    right.plot([2, 1], label="_a line without a name")
    right.set(xlabel="$\\eta_{\\mathrm{eff}}$", ylabel="$\\eta\\lambda$\nover $\\sqrt{K}\\,b$")
    yield made
    plt.close(made)


def test_words_are_what_is_on_the_axes_and_in_the_legend(figure):
    said = "Two panels. K = 4: NC0 at the end against weight decay lambda: Adam. "
    said += "eta lambda over sqrt K b against eta_eff"
    assert display.words(figure) == said


def test_a_label_says_it_better(figure):
    figure.set_label('one "and" two')
    assert display.words(figure) == 'one "and" two'
    assert (
        '<img alt="one &quot;and&quot; two" src="data:image/png' in display.described(figure).data
    )


@pytest.mark.parametrize(
    ("draw", "has"),
    [
        (lambda axis: axis.pcolormesh([[1, 2], [3, 4]]), True),
        (lambda axis: axis.imshow([[1, 2], [3, 4]]), True),
        (lambda axis: axis.contourf([[1, 2], [3, 4]]), True),
        (lambda axis: axis.scatter([1, 2], [1, 2], c=[0.1, 0.9]), True),
        (lambda axis: axis.scatter([1, 2], [1, 2], c="tab:blue"), False),
        (lambda axis: axis.fill_between([1, 2], [1, 2], alpha=0.2), False),
    ],
)
def test_colours_that_stand_for_numbers_are_marked_for_the_page(figure, draw, has):
    assert 'class="colour-scale"' not in display.described(figure).data
    draw(figure.axes[0])
    assert ('class="colour-scale"' in display.described(figure).data) is has


def test_an_empty_figure_has_no_words():
    figure = plt.figure()
    assert display.words(figure) == ""
    plt.close(figure)


def test_a_notebook_shows_figures_with_their_words(figure, monkeypatch):
    shell = SimpleNamespace(
        display_formatter=DisplayFormatter(), enable_matplotlib=lambda backend: None
    )
    monkeypatch.setattr(display, "get_ipython", lambda: shell)
    with mpl.rc_context(), notices.passed_to(pytest.fail):
        display.start_chapter()
    shown, _ = shell.display_formatter.format(figure)
    assert '<img alt="Two panels. K = 4' in shown["text/html"]


def test_outside_of_a_notebook_a_chapter_begins_too(monkeypatch):
    monkeypatch.setattr(display, "get_ipython", lambda: None)
    with mpl.rc_context():
        display.start_chapter()


@pytest.mark.slow
def test_a_notebook_shows_its_figures_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    lines = (
        "from ncbook import figures; figures.start_chapter()",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.title('seen');",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line) for line in lines])
    NotebookClient(notebook, kernel_name="python3").execute()
    (shown,) = notebook.cells[1].outputs
    assert 'alt="seen' in shown["data"]["text/html"]
