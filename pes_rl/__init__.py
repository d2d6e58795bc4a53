"""Continuous-control policies trained by Persistent Evolution Strategies.

Names are imported when they are first used (PEP 562; the table is `__init__.pyi`): a
trained policy needs no JAX, training does.
"""

from pes_rl.runtime.early_interrupt import handle_early_interrupts

handle_early_interrupts()  # Before the imports of a command, which take seconds.

import lazy_loader  # noqa: E402

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
