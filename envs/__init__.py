"""Environments, and the rollout engine that unrolls them.

Names are imported when they are first used (PEP 562; the table is `__init__.pyi`), so
that the names of environments can be checked without the engine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
