"""Paths that a user wrote."""

from pathlib import Path


def expanded(path: str | Path, name: str) -> Path:
    """A path with ``~`` or ``~user`` replaced by that user's home folder; a ``ValueError`` that
    says what the path is (``name``) if that folder is not known.

    >>> expanded("images/train", "out")
    PosixPath('images/train')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise ValueError(
            f"{name} {str(path)!r}: the home folder {home} is not known; give a path without ~"
        ) from None
