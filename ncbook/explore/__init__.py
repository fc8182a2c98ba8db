"""The explorer: a panel of ipywidgets over the runs of a store, a live training, and the theorems.

``explorer()`` is the whole of it. ``controls``: labelled controls, pictures, the sign that says
"working…". ``view``: what a store has. ``chooser``: dropdowns of which each offers what the ones
before it leave. ``draw``: figures. ``runs``, ``map``, ``live``, ``theorems``: the five tabs;
``window``: all of them together, and what a page without Python shows instead.
"""

from ncbook.explore.chooser import Chooser
from ncbook.explore.map import MapPanel
from ncbook.explore.runs import ComparePanel, RunPanel
from ncbook.explore.theorems import TheoryPanel
from ncbook.explore.training import LivePanel, Training
from ncbook.explore.view import StoreView
from ncbook.explore.window import STATIC_VARIABLE, Explorer, explorer

__all__ = [
    "STATIC_VARIABLE",
    "Chooser",
    "ComparePanel",
    "Explorer",
    "LivePanel",
    "MapPanel",
    "RunPanel",
    "StoreView",
    "TheoryPanel",
    "Training",
    "explorer",
]
