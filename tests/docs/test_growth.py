"""The script of the page about growing cost: what it measures, and what the page shows of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mtl_jax.bench.growth import Cost
from tests.docs import scripts


@pytest.fixture(scope="module")
def script():
    return scripts.load("growth")


def made_up(script, number):
    """A forward pass takes 10 ms, each backward pass 20 ms, and a step 5 ms more."""
    steps = {"equal": 35.0, "nash": 15.0 + 20.0 * number}
    passes = {"forward": 10.0, "forward + 1": 30.0, "forward + K": 10.0 + 20.0 * number}
    costs = {name: Cost(milliseconds, 100.0) for name, milliseconds in {**steps, **passes}.items()}
    return script.Setting(num_tasks=number), costs


def test_one_value_differs_from_the_start(script):
    for platform, start in script.START.items():
        found = script.settings(platform, (2, 16), devices=1)
        assert [setting.num_tasks for setting in found[:3]] == [2, 16, 4]
        assert len(found) == len(set(found)) > 5
        assert all(setting.devices == 1 for setting in found)
        for setting in found:
            assert sum(x != y for x, y in zip(setting, start, strict=True)) <= 1


def test_the_table_compares_slopes(script):
    measured = [made_up(script, number) for number in (2, 4)]
    rows = script.tables(measured, "cpu").splitlines()
    assert rows[0].startswith("| ms per step | 2 tasks | 4 tasks | per task | per task, passes")
    assert "| `nash` | 55.0 | 95.0 | 20.0 | 20.0 | +0 % |" in rows
    assert "| `nash, every 10` | 37.0 | 41.0 | 2.0 | 2.0 | +0 % |" in rows
    assert "| `nash` | 100 | 100 | 0 |" in rows


def test_the_page_has_the_tables_of_what_was_measured(script):
    page = (scripts.DOCS / "growth.md").read_text(encoding="utf-8")
    for platform in script.START:
        if (scripts.DOCS / f"growth_{platform}.json").exists():
            assert script.section(script.read(platform), platform) in page


def test_the_picture_shows_every_step_with_its_passes(script):
    measured = [made_up(script, number) for number in (2, 4)]
    upper, lower = script.draw(measured, "cpu").subfigs
    time, memory = upper.axes
    assert len(time.get_lines()) == 2 * len(script.LEAST)
    assert len(memory.get_lines()) == len(script.LEAST) - 1
    assert len(lower.axes) == len(script.AXES)


def test_what_was_measured_is_read_and_put_into_the_page(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "DOCS", tmp_path)
    monkeypatch.setattr(script, "VARIED", {"cpu": {}})
    monkeypatch.setattr(script, "measure", lambda setting, kinds: made_up(script, setting[0])[1])
    page = "before\n\n<!-- measured: cpu -->\n\n{}\n\n<!-- end -->\n\nafter\n"
    (tmp_path / "growth.md").write_text(page.format("Not measured yet."), encoding="utf-8")
    monkeypatch.setattr(script, "found_devices", lambda: ("cpu", 1))
    with ThreadPoolExecutor(1) as pool:
        script.run(pool, [2, 4])
    measured = script.read("cpu")
    assert measured == [made_up(script, number) for number in (2, 4)]
    script.write(measured, "cpu")
    expected = page.format(script.section(measured, "cpu"))
    assert (tmp_path / "growth.md").read_text(encoding="utf-8") == expected
    assert (tmp_path / "growth_cpu.png").stat().st_size > 0
