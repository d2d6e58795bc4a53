"""Table of the estimators by their command-line names."""

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
