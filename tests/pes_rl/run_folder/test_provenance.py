"""What is written of the program that made a file."""

import pytest

from pes_rl.run_folder.provenance import describe_maker, read_makers, record_maker


def test_what_made_each_file_is_kept(tmp_path):
    older = describe_maker(["pes-rl 0.0.9 at 1234567"], {"jax": "0.1"})
    record_maker(tmp_path, ["a.csv", "b.csv"], older)
    record_maker(tmp_path, ["b.csv", "c.csv"], describe_maker(["newer"], {}))
    record_maker(tmp_path, [], describe_maker(["none"], {}))
    entries = read_makers(tmp_path)
    assert [(e["files"], e["made_by"]) for e in entries] == [
        (["a.csv"], ["pes-rl 0.0.9 at 1234567"]),
        (["b.csv", "c.csv"], ["newer"]),
    ]
    assert entries[0]["versions"] == {"jax": "0.1"}
    assert {"date", "platform", "recorded"} <= entries[0].keys()
    (tmp_path / "made.json").write_text("[3]")
    with pytest.raises(ValueError, match=r"made\.json does not say what made"):
        read_makers(tmp_path)
