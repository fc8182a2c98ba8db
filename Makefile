# make sweep     set up, then train the paper's grid of one optimizer (OPTIMIZER=adamw) and draw it
# make test      set up, then run the tests, but for the slow ones
# make test-all  the same, and the slow ones: twenty kills, SLURM, browsers, JupyterLab
# make book      build the book from the published results, without training those anew
# make serve     open the built book in a browser
# make pdf       the book as one PDF, printed by Chromium
# make lab       open the explorer, and your own copies of all notebooks in lab/, in JupyterLab

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OPTIMIZER ?= adamw
PORT ?= 8000
READY := $(VENV)/.ready

# Your own copies of the notebooks: JupyterLab saves them as they are run, and git ignores them.
COPIES := $(patsubst notebooks/%,lab/%,$(wildcard notebooks/*.ipynb))

.PHONY: sweep test test-all book serve pdf lab picture sync clean

sweep: $(READY)
	$(BIN)/papermill notebooks/sweep.ipynb sweep-$(OPTIMIZER).ipynb -p optimizer $(OPTIMIZER)
	@echo "Open sweep-$(OPTIMIZER).ipynb; the runs are in $${NCBOOK_RESULTS:-results}/."

# Two tests at a time, with one thread each: many wait for processes that they start.
test: TESTS := -m "not slow"
test test-all: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations 15 $(TESTS)

# A cached page is not run again when ncbook/ changes, so each build starts from nothing.
book: $(READY)
	rm -rf _build
	$(BIN)/jupyter-book build . -W -n --keep-going

serve: $(READY)
	test -d _build/html || $(MAKE) book
	$(BIN)/python -m webbrowser -t http://127.0.0.1:$(PORT) || true
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

# All pages as one, and that one printed: formulas, tables and figures as a reader of the book sees
# them. It needs Chromium, which CHROMIUM may name.
pdf: book
	$(BIN)/jupyter-book build . -W -n --keep-going --builder singlehtml
	$(BIN)/python book/print_pdf.py _build/singlehtml/book/intro.html _build/ncbook.pdf
	@echo "The book: _build/ncbook.pdf"

# The picture of the README, from the published results.
picture: $(READY)
	$(BIN)/python -c "from ncbook.pages import six_grids; six_grids.save_headline('book/results', 'book/images/headline.png')"

# JupyterLab runs as root, such as in a container, only if it is told to. An extension of our own runs
# the explorer when it opens, and its kernels find papermill and ncbook.
lab: $(READY) $(COPIES)
	NCBOOK_RESULTS=$${NCBOOK_RESULTS:-$(CURDIR)/results} PATH="$(abspath $(BIN)):$$PATH" \
		$(BIN)/jupyter lab lab/explorer.ipynb --LabApp.extra_labextensions_path=book/_lab \
		--ServerApp.jpserver_extensions=jupyterlab_jupytext=False \
		$(if $(filter 0,$(shell id -u)),--allow-root)

# Made once: an edited copy is never overwritten. Delete it to get the notebook anew.
lab/%.ipynb: | notebooks/%.ipynb
	@mkdir -p $(@D)
	cp $| $@

# After editing notebooks/NAME.py or NAME.ipynb: bring the other of the pair up to date.
sync: $(READY)
	$(BIN)/jupytext --sync notebooks/*.py

# Else each kernel warns at its start, in papermill's terminal, that it talks over TCP, to which this
# machine's root could listen.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; name one: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	mkdir -p $(VENV)/etc/ipython
	echo 'c.IPKernelApp.log_level = "CRITICAL"' > $(VENV)/etc/ipython/ipython_kernel_config.py
	touch $@

clean:
	rm -rf _build $(VENV)
