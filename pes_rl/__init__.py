"""Continuous-control policies trained by Persistent Evolution Strategies.

Names are imported when they are first used (PEP 562; the table is `__init__.pyi`): a
trained policy needs no JAX, training does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
