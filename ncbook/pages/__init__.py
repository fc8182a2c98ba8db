"""What only the book's pages need.

``claims``: the claims page. ``six_grids``: the runs that several chapters begin with. ``pictures``:
sketches of the mechanism.
"""
