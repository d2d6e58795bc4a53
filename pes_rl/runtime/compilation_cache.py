"""JAX's persistent compilation cache, in the user's cache folder.

What XLA compiles for a command is kept on disk, so that a second start of the same task
compiles nothing. An entry is machine code: JAX runs what it finds, so the folder must
belong to the user and be writable by no one else.
"""

import os
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

_OPTIONS = {
    # All programs: the many small ones of a start take as long as a large one.
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def enable_compilation_cache() -> Path | None:
    """Let JAX keep compiled programs in the user's cache folder.

    The processes that this one starts do the same. Whoever has chosen a folder, by
    `JAX_COMPILATION_CACHE_DIR` or in `jax.config`, keeps it;
    `JAX_ENABLE_COMPILATION_CACHE=false` switches the cache off, as everywhere in JAX.

    Returns:
        The folder; None where JAX's own settings decide, or the folder cannot be used:
        it cannot be written, or someone else could write it.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    jax: Any = sys.modules.get("jax")
    if jax is not None and jax.config.jax_compilation_cache_dir is not None:
        return None
    try:
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_usable = _is_private(folder) and os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder.
        return None
    if not is_usable:
        return None
    # A full disk ends no run, and need not be reported once a program. An entry that a
    # killed process left half written is compiled again.
    for doing in ("reading", "writing"):
        warnings.filterwarnings("ignore", f"Error {doing} persistent compilation cache")
    for name, value in {"jax_compilation_cache_dir": str(folder), **_OPTIONS}.items():
        # JAX reads them when it is imported; imported already, it is told.
        os.environ.setdefault(name.upper(), str(value))
        if jax is not None:
            jax.config.update(name, value)
    return folder


def cache_folder() -> Path:
    """The user's folder of compiled programs, by the platform's convention.

    | platform | folder |
    |---|---|
    | where `XDG_CACHE_HOME` is set | `$XDG_CACHE_HOME/pes_rl/jax` |
    | macOS | `~/Library/Caches/pes_rl/jax` |
    | Windows | `%LOCALAPPDATA%/pes_rl/jax` |
    | all others | `~/.cache/pes_rl/jax` |

    Raises:
        RuntimeError: If the user has no home folder.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    if not root and sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA")
    if not root:
        name = "Library/Caches" if sys.platform == "darwin" else ".cache"
        root = Path.home() / name
    return Path(root) / "pes_rl" / "jax"


def _is_private(folder: Path) -> bool:
    """Whether the folder is this user's, and no other user may write it."""
    if not hasattr(os, "getuid"):  # Windows, where the user's folders are private.
        return True
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others
