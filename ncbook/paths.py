"""Paths that a user wrote."""

from pathlib import Path


def expanded(path: str | Path, name: str) -> Path:
    """A path with ``~`` or ``~user`` replaced by that user's home folder.

    Args:
        path: as it was written.
        name: what it is, for the message: a parameter or an environment variable.

    Raises:
        ValueError: the user, or the home folder of this one, is not known.

    Example:
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
