"""docs/add_a_task.md followed to the letter: its files written, its package installed, its commands typed."""

import json
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "add_a_task.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

TYPED = """
import json, shlex, sys
import ssvid
from ssvid.cli import main
from ssvid.tasks import tasks

assert sys.modules.get("my_tasks") is None
listed = tasks.names()
for code in json.loads(sys.argv[1]):
    exec(compile(code, "add_a_task.md", "exec"), {})
words = [shlex.split(line, comments=True) for line in json.loads(sys.argv[2])]
small = {"synth": ["--train", "10", "--test", "0", "--seconds", "1", "--size", "32"]}
assert main([*words[0][1:4], *small["synth"]]) == 0
extra = ["trainer.max_steps=2", "trainer.accelerator=cpu", "loader.workers_per_device=0", "data.index_workers=1"]
assert main([*words[-1][1:3], "data.root=synthetic", *extra, "--run-dir", "runs/backward", "--json"]) == 0
print(json.dumps({"listed": listed, "broken": [str(b) for b in tasks.broken], "typed": words}))
"""


def written(language: str) -> list[str]:
    found = [text for name, text in FENCE.findall(PAGE) if name == language]
    assert found, language
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory, pip_install) -> Path:
    """The folder that the page has its reader make, installed from its own pyproject.toml."""
    project = tmp_path_factory.mktemp("tutorial")
    (project / "my_tasks").mkdir()
    (project / "my_tasks" / "__init__.py").touch()
    (project / "my_tasks" / "backward.py").write_text(written("python")[0], encoding="utf-8")
    (project / "pyproject.toml").write_text(written("toml")[0], encoding="utf-8")
    (project / "backward.yaml").write_text(written("yaml")[0], encoding="utf-8")
    pip_install(project, project / "site")
    return project


@pytest.mark.slow
def test_the_page_works_as_it_stands(package, python_with, tmp_path):
    (tmp_path / "backward.yaml").write_bytes((package / "backward.yaml").read_bytes())
    checks = [code for code in written("python")[1:] if "ssvid.pretrain(" not in code]
    assert any("check_task" in code for code in checks)
    lines = [line.removeprefix("$ ") for text in written("bash") + written("console") for line in text.splitlines()]
    commands = [line for line in lines if line.startswith(("ssvid data synth", "ssvid pretrain"))]
    assert len(commands) == 2
    done = python_with(package / "site", TYPED, tmp_path, json.dumps(checks), json.dumps(commands))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "backward" in found["listed"]
    assert found["broken"] == []
    metrics = [json.loads(line) for line in (tmp_path / "runs/backward/metrics.jsonl").read_text().splitlines()]
    assert max(line.get("step", 0) for line in metrics) >= 1
    assert any("val/accuracy" in line for line in metrics)
    assert list((tmp_path / "runs" / "backward" / "pictures").glob("*.png"))
