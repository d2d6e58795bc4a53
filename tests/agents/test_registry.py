"""The settings of each estimator."""

from pes_rl.agents import PES, RandomSearch
from pes_rl.agents.registry import settings_of


def test_what_the_problem_gives_is_no_setting():
    assert settings_of(RandomSearch) == ("num_particles", "search_radius")
    assert settings_of(PES)[:3] == ("num_pairs", "truncation_length", "sigma")
    assert "critic_discount" in settings_of(PES)
