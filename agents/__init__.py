"""Policies and gradient estimators.

Names are imported when they are first used (PEP 562; the table is `__init__.pyi`), so
that a trained policy also works where JAX is not installed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
