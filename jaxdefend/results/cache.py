"""Where files are kept that can be made anew."""

from pathlib import Path


def cache_folder() -> Path | None:
    """jaxdefend's folder in the user's cache, made or not; None for a user without a home."""
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("jaxdefend", appauthor=False)
    except (OSError, RuntimeError, KeyError):
        return None
    # Without a home, "~" stays what it is: a folder of that name in the current one is not meant.
    return folder if folder.is_absolute() else None
