"""The explorer: a panel of ipywidgets over the runs of a store, a live training, and the theorems.

``explorer()`` makes it. ``controls``: what the user chooses with and looks at. ``view``: what a
store has. ``maps``, ``curves``, ``table``, ``training``: the tabs. ``window``: all of them
together, and what a page without Python shows instead.
"""

from ncbook.explore.training import LivePanel
from ncbook.explore.view import StoreView
from ncbook.explore.window import STATIC_VARIABLE, explorer
