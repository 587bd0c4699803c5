"""The command line: quick help, one sentence for bad input, and every command on a tiny base."""

import errno
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, read_examples, write_examples
from finlora.moe import cli
from finlora.moe.commands import merging
from finlora.moe.merging.merge import MERGES
from finlora.router.learned_merges import LEARNED_MERGES


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_explains_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends well, shows the command's first sentence and explains each argument."""
    with pytest.raises(SystemExit) as end:
        cli.main([*name.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert end.value.code == 0
    assert f"finlora {name}" in shown
    assert cli.summary(cli.COMMANDS[name]) in shown
    documentation = inspect.getdoc(cli.COMMANDS[name]) or ""
    for parameter in inspect.signature(cli.COMMANDS[name]).parameters:
        assert f"    {parameter}: " in documentation


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_overview_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line a command."""
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in shown
        assert cli.summary(command) in shown


def test_help_does_not_wait_for_torch() -> None:
    """Reading flags imports neither torch nor transformers, in a fresh interpreter."""
    program = (
        "import sys\n"
        "from finlora.moe import cli\n"
        "cli.main(['--help'])\n"
        "for name in cli.COMMANDS:\n"
        "    try: cli.main([*name.split(), '--help'])\n"
        "    except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers', 'peft', 'trl'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "start", [["-m", "finlora.moe.cli"], [str(Path(sys.executable).with_name("finlora"))]]
)
def test_both_ways_to_start_give_the_exit_status(start: list[str]) -> None:
    """The module and the console script print one sentence, no traceback, and exit with 2."""
    result = subprocess.run([sys.executable, *start, "servee"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("finlora: There is no command 'servee'")
    assert "Traceback" not in result.stderr


def test_a_reader_that_stops_early_is_no_error() -> None:
    """As in `finlora --help | head`: the pipe is closed before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "finlora.moe.cli", "--help"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train-exprt"], "did you mean 'train-expert'?"),
        (["data"], "needs a second word: data build or data check or data export"),
        (["train-expert", "finner", "--out", "x", "--suite", "embedded"], "did you mean 'finer'?"),
        (["train-expert", "finer", "--out", "x"], "either --examples with a JSONL file or --suite"),
        (
            ["train-expert", "finer", "--out", "x", "--suite", "small"],
            "no suite 'small'; allowed are embedded, real",
        ),
        (
            ["train-expert", "finer", "--out", "x", "--suite", "real", "--rank", "0"],
            "rank must be at least 1",
        ),
        (
            ["train-router", "--experts", "a", "--out", "x", "--suite", "real"],
            "two or more experts; given: 1",
        ),
        (["merge", "--out", "x"], "two or more experts; given: 0"),
        (["merge", "a", "b", "--out", "x"], "No expert at a"),
        (
            ["evaluate", "base", "--task", "finer", "--examples", "missing.jsonl", "--out", "x"],
            "does not exist",
        ),
        (["generate", "missing", "What is cash?"], "'missing' cannot be evaluated"),
        (["generate", "base", " "], "The prompt is empty"),
        (["benchmark", "small"], "no suite 'small'"),
        (["data", "build", "finer", "--from", "missing.jsonl", "--out", "x"], "missing.jsonl does not exist"),
        (["data", "check", "missing.jsonl"], "missing.jsonl does not exist"),
        (["import", ".", "--out", "x"], "neither adapter_config.json (PEFT) nor xlora_config.json"),
        (["export", ".", "--out", "x"], "mixture.json"),
        (["estimate", "./missing"], "No base './missing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2, one line on the standard error, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("finlora: ")
    assert sentence in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["evaluate"], ["benchmark", "real", "--quantization", "int4"]])
def test_wrong_flags_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Missing and malformed flags are explained by the parser."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "the disk is full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (FinLoraError("This is wrong; do that."), 2, "finlora: This is wrong; do that."),
    ],
)
def test_expected_failures_show_no_traceback(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the user can mend is said in words."""
    monkeypatch.setitem(cli.COMMANDS, "tasks", failing_command(error))
    assert cli.main(["tasks"]) == status
    assert words in capsys.readouterr().err


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is FinLoRA's fault and must be visible."""
    monkeypatch.setitem(cli.COMMANDS, "tasks", failing_command(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        cli.main(["tasks"])


def failing_command(error: BaseException) -> Callable[[], None]:
    """A command without flags that fails."""

    def command() -> None:
        """Fail."""
        raise error

    return command


@pytest.fixture
def workshop(
    tiny_llama: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A working folder with a tiny base and examples of two tasks."""
    monkeypatch.chdir(tmp_path)
    tiny_llama.save_pretrained("base")
    tiny_tokenizer.save_pretrained("base")
    for task in ("xbrl_value", "sentiment"):
        write_examples(f"{task}.jsonl", [Example(f"{task} {i}?", str(i)) for i in range(8)])
    return tmp_path


def finlora(line: str) -> None:
    """Run one command line and expect success."""
    assert cli.main(line.split()) == 0


def test_from_examples_to_a_mixture_and_to_peft_and_back(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the everyday path on a tiny base, each reading what the one before wrote."""
    finlora("data check xbrl_value.jsonl --task xbrl_value --base ./base")
    assert "8 examples in 8 groups" in capsys.readouterr().out
    finlora("data check xbrl_value.jsonl sentiment.jsonl --base ./base")
    assert "shared by xbrl_value.jsonl and sentiment.jsonl" in capsys.readouterr().out
    finlora("data export --out harness --examples xbrl_value xbrl_value.jsonl")
    assert Path("harness/finlora_xbrl_value.yaml").exists()
    for task in ("xbrl_value", "sentiment"):
        finlora(
            f"train-expert {task} --out experts/{task} --examples {task}.jsonl --base ./base "
            "--rank 2 --max-steps 2"
        )
    finlora(
        "train-router --experts experts/xbrl_value experts/sentiment --out mixture --max-steps 2 "
        "--examples xbrl_value xbrl_value.jsonl sentiment sentiment.jsonl"
    )
    capsys.readouterr()
    finlora("merge experts/xbrl_value experts/sentiment --out merged --method svd --rank 3")
    assert re.search(r"adapter of rank 3 \(\d+\.\d% lost", capsys.readouterr().out)
    finlora(
        "merge experts/xbrl_value experts/sentiment --out soup --method cat --cat.max-steps 2 "
        "--examples xbrl_value xbrl_value.jsonl sentiment sentiment.jsonl"
    )
    assert "adapter of rank 4 (exact) written to soup" in capsys.readouterr().out
    finlora("generate soup question? --max-new-tokens 3")
    for flags, sentence in (
        ("--suite real", "uniform learns nothing; leave out --examples"),
        ("--method cat --rank 4", "cat learns its weights and is exact"),
        ("--method cat", "either --examples with a JSONL file or --suite"),
    ):
        assert cli.main(f"merge experts/xbrl_value experts/sentiment --out x {flags}".split()) == 2
        assert sentence in capsys.readouterr().err
    finlora("evaluate mixture --task xbrl_value --examples xbrl_value.jsonl --out answers.jsonl")
    assert len(Path("answers.jsonl").read_text(encoding="utf-8").splitlines()) == 8 + 1
    capsys.readouterr()
    finlora("score answers.jsonl")
    assert "finlora-compat accuracy: " in capsys.readouterr().out
    finlora("generate mixture question? --max-new-tokens 3 --show-experts")
    assert "xbrl_value" in capsys.readouterr().err
    finlora("export mixture --out peft")
    finlora("import peft --out again --base ./base")
    first, again = (load_file(Path(folder, "router.safetensors")) for folder in ("mixture", "again"))
    assert first.keys() == again.keys()
    assert all((first[name] == again[name]).all() for name in first)


def test_every_merge_is_a_choice_of_the_command() -> None:
    """What the flag allows is what the tables hold."""
    assert get_args(merging.Method) == (*MERGES, *LEARNED_MERGES)


def test_data_build_keeps_what_exists(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second file is written, a file that exists is refused and left as it was."""
    finlora("data build sentiment --from sentiment.jsonl --out built.jsonl")
    assert read_examples("built.jsonl") == read_examples("sentiment.jsonl")
    assert (
        cli.main(["data", "build", "sentiment", "--from", "sentiment.jsonl", "--out", "xbrl_value.jsonl"])
        == 2
    )
    assert "exists and is never overwritten" in capsys.readouterr().err
    assert read_examples("xbrl_value.jsonl")[0].context == "xbrl_value 0?"


def test_tasks_are_listed_with_their_suites(capsys: pytest.CaptureFixture[str]) -> None:
    """Name, title, suites, source and licence."""
    finlora("tasks")
    shown = capsys.readouterr().out
    assert "XBRL value extraction (embedded, real, finlora-15, finlora-fixed)" in shown
    assert "licence: CC BY-SA 4.0" in shown


def test_a_task_is_shown_with_its_card_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Faults and what is done about them; three questions with their answers."""
    finlora("tasks sentiment")
    shown = capsys.readouterr().out
    assert shown.count("\n=> ") == 3
    assert "examples: the embedded suite" in shown
    finlora("tasks cfa_level1")
    assert "fault: FinLoRA's targets are letter and text" in capsys.readouterr().out
    assert cli.main(["tasks", "cfa_level"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_estimate_is_marked_as_computed(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters are exact, the rest is called computed."""
    finlora("estimate ./base --rank 2 --targets q_proj")
    shown = capsys.readouterr().out
    assert "computed from the config, not measured" in shown
    assert f"expert {2 * 2 * (32 + 32):,}" in shown
