"""The chapters for Colab, where a notebook opens alone on an empty machine: each gets a first cell
that fetches the package and the published runs. The workflow puts them in the branch `colab`.

python book/colab.py https://github.com/OWNER/NAME _build/colab
"""

import json
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FIRST_CELL = """\
# Colab starts empty. Once: fetch ncbook and its published runs, and work there.
import os

sources = os.path.abspath("ncbook-sources")
if not os.path.isdir(sources):
    !git clone --quiet --depth 1 {address} {{sources}}
    %pip install --quiet --disable-pip-version-check {{sources}} itables
os.environ.setdefault("NCBOOK_RESULTS", os.path.join(sources, "book", "results"))
%cd -q {{sources}}/notebooks
"""
EMPTY_CELL = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}


def main(address: str, folder: Path) -> None:
    chapters = folder / "notebooks"
    chapters.mkdir(parents=True, exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = json.loads(path.read_text())
        source = FIRST_CELL.format(address=address)
        notebook["cells"].insert(0, EMPTY_CELL | {"id": "colab", "source": source})
        (chapters / path.name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(
        f"The chapters of {address} for Colab, made from its branch `main`: change them there.\n"
    )


if __name__ == "__main__":
    main(sys.argv[1].removesuffix("/"), Path(sys.argv[2]))
