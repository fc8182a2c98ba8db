"""``python -m ncbook.cli`` is ``ncbook``."""

from ncbook.cli import main

if __name__ == "__main__":  # worker processes import this file
    main()
