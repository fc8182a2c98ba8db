"""The explorer: a panel of ipywidgets over the runs of a store, a live training, and the theorems.

``explorer()`` makes it. ``controls``: labelled controls, pictures and the status line. ``view``:
what a store has. ``chooser``: dropdowns, each of which offers what the choices before it allow.
``draw``: figures over the epochs. ``panels``, ``training``: the tabs. ``window``: all of them
together, and what a page without Python shows instead.
"""

from ncbook.explore.training import LivePanel
from ncbook.explore.view import StoreView
from ncbook.explore.window import STATIC_VARIABLE, explorer
