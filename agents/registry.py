"""Table of the estimators by their command-line names, and the settings of each."""

from dataclasses import fields

from pes_rl.agents.ars import ARS
from pes_rl.agents.bptt import BPTT
from pes_rl.agents.es import ES
from pes_rl.agents.gpes import GPES
from pes_rl.agents.nres import NRES
from pes_rl.agents.pes import PES
from pes_rl.agents.pes_analytic import PESAnalytic
from pes_rl.agents.random_search import RandomSearch
from pes_rl.agents.rtrl import RTRL
from pes_rl.agents.tbptt import TBPTT
from pes_rl.agents.truncated_es import TruncatedES
from pes_rl.agents.uoro import UORO

AGENTS = {
    "pes": PES,
    "gpes": GPES,
    "nres": NRES,
    "pes-analytic": PESAnalytic,
    "es": ES,
    "truncated-es": TruncatedES,
    "ars": ARS,
    "random-search": RandomSearch,
    "tbptt": TBPTT,
    "bptt": BPTT,
    "rtrl": RTRL,
    "uoro": UORO,
}
AGENT_NAMES = tuple(AGENTS)


def settings_of(kind: type) -> tuple[str, ...]:
    """Names of an estimator's fields that are settings of a run.

    A field with the metadata `{"from_problem": True}` is none: the problem that is
    optimised gives it.
    """
    return tuple(f.name for f in fields(kind) if not f.metadata.get("from_problem"))
