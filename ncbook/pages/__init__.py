"""What only the book's pages need.

``claims``: the claims page. ``six_grids``: the runs that several chapters begin with. ``table_1``:
those of the paper's Table 1. ``pictures``: sketches of the mechanism.
"""
