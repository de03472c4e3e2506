"""The command line itself: exit codes, help, suggestions, what is imported when."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest

import ssvid
from ssvid.cli import build_parser, main, terminal
from ssvid.cli.parser import Parser, parse
from ssvid.errors import SsvidError
from ssvid.protocols.named import is_protocol
from ssvid.recipe.find import find_recipe

VERBS = [
    "demo", "pretrain", "probe", "finetune", "retrieve", "track", "evaluate", "report", "audit", "speed", "layers", "embed", "export", "data", "show", "diff", "recipes",
    "protocols", "tasks", "backbones", "evaluations", "doctor",
]  # fmt: skip


def told(capsys, *argv: str, code: int = 2) -> str:
    """Run a command line that is the user's mistake; the one paragraph that it prints, on one line."""
    assert main(list(argv)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return " ".join(captured.err.split())


def all_parsers() -> list[Parser]:
    """The parser of ssvid, of every verb, and of every verb below it."""
    found = [build_parser()]
    for parser in found:
        for action in parser._actions:
            if isinstance(action.choices, dict):
                found += action.choices.values()
    return found


# ---- exit codes


def run_with(monkeypatch, error: BaseException) -> int:
    def fail(args):
        raise error

    monkeypatch.setattr("ssvid.cli.doctor.run", fail)
    return main(["doctor"])


def test_a_mistake_is_one_wrapped_paragraph_and_2(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    assert run_with(monkeypatch, SsvidError("word " * 40 + "/a/very/long/path" * 8)) == 2
    err = capsys.readouterr().err
    assert err.startswith("ssvid: word word")
    assert max(len(line) for line in err.splitlines() if "path" not in line) <= 60
    assert "/a/very/long/path" * 8 in err  # paths can be copied
    assert "Traceback" not in err


def test_debug_shows_the_traceback_of_a_mistake_before_and_after_the_verb(capsys):
    for argv in (["--debug", "recipes", "nope"], ["recipes", "nope", "--debug"]):
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert "ssvid: unknown recipe 'nope'" in err


def test_ctrl_c_is_130_and_one_line(monkeypatch, capsys):
    assert run_with(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "ssvid: interrupted.\n"
    assert run_with(monkeypatch, KeyboardInterrupt("Continue with --resume.")) == 130
    assert capsys.readouterr().err == "ssvid: interrupted. Continue with --resume.\n"


def test_a_defect_is_1_with_traceback_and_a_request(monkeypatch, capsys):
    assert run_with(monkeypatch, ZeroDivisionError("oops")) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "Traceback" in err
    assert f"defect of ssvid {ssvid.__version__}" in err
    assert "report it" in err


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ENOTDIR])
def test_what_the_system_refuses_is_told_with_the_path(monkeypatch, capsys, number):
    assert run_with(monkeypatch, OSError(number, os.strerror(number), "/some/file")) == 2
    err = capsys.readouterr().err
    assert f"/some/file: {os.strerror(number)}" in err
    assert "Traceback" not in err


def test_other_system_errors_are_defects(monkeypatch, capsys):
    assert run_with(monkeypatch, OSError(errno.EBADF, "bad")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_silent():
    code = "import sys; from ssvid.cli import main; sys.exit(main(['recipes']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


# ---- mistakes on the command line


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["pretran"], ["unknown verb 'pretran'", "Did you mean 'pretrain'?", "ssvid --help"]),
        (["data"], ["arguments are required: VERB", "ssvid data --help"]),
        (["data", "indx"], ["unknown verb 'indx'", "Did you mean 'index'?"]),
        (["pretrain"], ["arguments are required: RECIPE", "ssvid pretrain --help"]),
        (["pretrain", "x", "--resum"], ["ssvid pretrain has no option '--resum'", "Did you mean '--resume'?"]),
        (["pretrain", "x", "--optim.epochs=3"], ["no option '--optim.epochs'", "without dashes: optim.epochs=..."]),
        (["probe", "x"], ["needs the weights to score", "Add --backbone PATH"]),
        (["export", "a", "b", "--format", "torchvison"], ["unknown value 'torchvison'", "Did you mean 'torchvision'?"]),
        (["export", "a", "b", "c"], ["ssvid export does not know what to do with 'c'"]),
        (["data", "synth", "x", "--train", "-1"], ["--train", "'-1' must be a whole number of at least 0"]),
        (["data", "synth", "x", "--seconds", "0"], ["--seconds", "'0' must be a number above 0"]),
        (["data", "index", "x", "--reader", "folders"], ["unknown value 'folders'", "Did you mean 'folder'?"]),
        (["tasks", "spediness"], ["unknown task 'spediness'", "Did you mean 'speediness'?"]),
        (["backbones", "r3d18"], ["unknown backbone 'r3d18'", "Did you mean 'r3d_18'?"]),
        (["recipes", "demo/spediness"], ["unknown recipe 'demo/spediness'", "Did you mean 'demo/speediness'?"]),
        (["show", "nowhere.yaml"], ["there is no recipe file nowhere.yaml"]),
    ],
)
def test_mistakes(capsys, argv, parts):
    message = told(capsys, *argv)
    for part in ["ssvid: ", *parts]:
        assert part in message


def test_a_missing_verb_is_a_mistake(capsys):
    assert main(["--debug"]) == 2
    assert "ssvid: a verb is missing. See: ssvid --help" in capsys.readouterr().err


def test_overrides_may_stand_anywhere():
    args = parse(build_parser(), ["pretrain", "r", "a=1", "--resume", "b=-2", "--run-dir", "d", "c=[1, 2]"])
    assert args.overrides == ["a=1", "b=-2", "c=[1, 2]"]
    assert args.resume
    assert parse(build_parser(), ["pretrain", "r", "--resume"]).overrides == []  # no list is shared between calls


# ---- help


def test_every_verb_is_there(capsys):
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == bare
    listed = re.findall(r"^    (\w+) +\S", bare, re.MULTILINE)
    assert listed == VERBS


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ssvid {ssvid.__version__}\n"


def test_every_parser_has_help_and_an_example():
    parsers = all_parsers()
    # Below data: synth, download, join-frames, tapvid, flow, index; below layers: fit, masks, edit, compose, scene, why.
    assert len(parsers) == 1 + len(VERBS) + 6 + 6
    for parser in parsers:
        text = parser.format_help()
        assert len(parser.description) > 20
        assert re.search(r"^  ssvid ", parser.epilog, re.MULTILINE), parser.prog
        assert max(map(len, text.splitlines())) <= 120


def test_the_examples_in_the_help_parse_and_name_recipes_that_exist():
    examples = [line for p in all_parsers() for line in p.epilog.splitlines() if line.startswith("  ssvid ")]
    assert len(examples) >= 15
    for line in examples:
        words = re.split(r"\s{2,}|\s>", line.strip())[0].split()[1:]
        if words[0] == "VERB":
            continue
        args = parse(build_parser(), words)
        name = getattr(args, "recipe", None) or (getattr(args, "name", None) if args.verb == "recipes" else None)
        if name and not name.startswith("runs/"):
            assert is_protocol(name) or find_recipe(name)


def test_numbers_can_be_had_as_json():
    without = [p.prog for p in all_parsers() if "--json" not in p.option_names()]
    assert without == ["ssvid", "ssvid layers", "ssvid data"]


# ---- what is imported


def modules_after(code: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print('\\n' + json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


HEAVY = {"torch", "torchvision", "pytorch_lightning", "omegaconf", "av", "decord", "torchcodec", "wandb", "sklearn"}


@pytest.mark.parametrize(
    "code",
    [
        "import ssvid",
        "import ssvid.recipe",
        "import ssvid.cli as c; assert c.main(['--help']) == 0",
        "import ssvid.cli as c; assert c.main(['pretrain', '--help']) == 0",
        "import ssvid.cli as c; assert c.main(['recipes']) == 0",
        "import ssvid.cli as c; assert c.main(['recipes', 'smoke/speediness']) == 0",
        "import ssvid.cli as c; assert c.main(['pretran']) == 2",
    ],
)
def test_nothing_heavy_is_imported_for(code):
    assert not modules_after(code) & HEAVY


def test_python_dash_m():
    ran = subprocess.run([sys.executable, "-m", "ssvid", "--version"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stdout == f"ssvid {ssvid.__version__}\n"


# ---- terminal


def test_lists_stay_lists_when_wrapped():
    text = "two problems:\n  - first " + "word " * 12 + "\n  - second"
    wrapped = terminal.wrap(text, 40).splitlines()
    assert wrapped[0] == "two problems:"
    assert wrapped[1].startswith("  - first word")
    assert wrapped[2].startswith("    word")
    assert wrapped[-1] == "  - second"


def test_json_takes_results_paths_and_arrays(capsys, tmp_path):
    np = pytest.importorskip("numpy")

    class Result:
        def as_dict(self):
            return {"path": tmp_path, "value": np.float32(0.5), "many": (1, {2})}

    terminal.print_result(Result(), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path), "value": 0.5, "many": [1, [2]]}


def test_progress_in_a_log_is_a_line_now_and_then(capsys):
    with terminal.progress("scanning", lines=4) as report:
        for i in range(100):
            report(i + 1, 100, "file")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"scanning: {n}/100" for n in (25, 50, 75, 100)]


def test_progress_on_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with terminal.progress("scanning") as report:
        report(1, 2)
        report(2, 2)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


def test_the_first_line_of_a_recipe_needs_no_torch():
    code = (
        "import sys\nfrom ssvid.recipe.load import first_line\n"
        "print(first_line('smoke/speediness', ['optim.epochs=3']))\nprint(first_line('smoke/speediness', ['optim.epochs=0']))\n"
        "print(first_line('ucf101-finetune', []))\nprint('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [
        "recipe smoke/speediness: speediness on tiny3d, optim.epochs=3, seed 0",
        "",
        "recipe ucf101-finetune: finetune, seed 0",
        "False",
    ]
