"""The flags of all commands: each said once, in a group; how they are read from words and from a file; completion."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import command_line_in_this_process, random_rows, write_source
from typer.core import TyperArgument, TyperGroup, TyperOption

from scanrnn_dist.cli import app as cli
from scanrnn_dist.cli.command import COMPLETION, HELP
from scanrnn_dist.cli.config import config_text, key_of, read_config
from scanrnn_dist.cli.examples import EXAMPLES
from scanrnn_dist.cli.options import GROUPS
from scanrnn_dist.cli.reference import contexts, groups_of, reference
from scanrnn_dist.cli.run_options import RunFlags
from scanrnn_dist.errors import ConfigError, did_you_mean, joined_names

CONTEXTS = dict(contexts())
COMMANDS = [words for words, context in CONTEXTS.items() if not isinstance(context.command, TyperGroup)]
ROOT = Path(cli.__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line_in_this_process(monkeypatch, columns=80)


def said(capsys: pytest.CaptureFixture[str], *arguments: Any, code: int = 2) -> str:
    """What stands on standard error after a command that ends with `code`."""
    assert cli.run([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err and len(err.splitlines()) == 1, err
    return err


# Documented once -----------------------------------------------------------------------------------------------------


def test_the_walk_finds_all_commands() -> None:
    assert {"featurize", "plan", "inspect", "encoder make", "encoder"} <= set(CONTEXTS)
    assert len(COMMANDS) >= 13 and set(EXAMPLES) <= set(COMMANDS)


@pytest.mark.parametrize("words", CONTEXTS)
def test_each_flag_is_said_once_in_one_group(words: str) -> None:
    context: Any = CONTEXTS[words]
    assert context.command.help and context.help_option_names == ["-h", "--help"]
    seen = list[str]()
    for group, params in groups_of(context).items():
        assert group in (*GROUPS, "Arguments", HELP, COMPLETION), group
        for param in params:
            assert (param.help or "").strip().endswith("."), (words, param.name)
            seen += param.opts if isinstance(param, TyperOption) else []
    assert len(seen) == len(set(seen)) and {"-h", "--help"} <= set(seen)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("words", ["featurize", "status"])
def test_the_help_fits_and_shows_each_flag_in_one_panel(
    words: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.run([words, "-h"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    starts = [line.split()[1] for line in shown.splitlines() if line.startswith("│ -")]
    flags = [param.opts for param in CONTEXTS[words].command.get_params(CONTEXTS[words]) if is_option(param)]  # type: ignore[arg-type]
    assert sorted(starts) == sorted(max(opts, key=len) for opts in flags)
    assert "..." not in shown.replace("SRC...", "").replace("A,B,...", "")


def test_the_commands_stand_before_what_a_group_itself_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for words, first in (([], "featurize"), (["encoder"], "convert")):
        assert cli.run([*words, "-h"]) == 0
        shown = capsys.readouterr().out
        assert 0 < shown.index(f"│ {first} ") < shown.index("--help") and shown.count("--help") == 1
        assert words or shown.index("--help") < shown.index("--install-completion")


def is_option(param: Any) -> bool:
    return isinstance(param, TyperOption)


def test_the_reference_names_every_command_and_flag() -> None:
    text = reference()
    for words, context in CONTEXTS.items():
        assert not words or f"## `scanrnn {words}`\n" in text
        for param in context.command.get_params(context):  # type: ignore[arg-type]
            assert not is_option(param) or f"| `{', '.join(sorted(param.opts))}` |" in text
    assert "| `--cell` | `<gru\\|lstm\\|rnn>` |" in text and "`-h, --help`" not in text


def test_plan_takes_every_flag_of_featurize() -> None:
    names = {words: {param.name for param in CONTEXTS[words].command.params} for words in ("plan", "featurize")}
    assert names["plan"] == names["featurize"] | {"scan"}


@pytest.mark.parametrize("words", [words for words in COMMANDS if words in EXAMPLES])
def test_each_command_has_two_examples_that_it_takes(words: str, tmp_path: Path) -> None:
    assert len(EXAMPLES[words]) >= 2
    config = tmp_path / "job.toml"
    config.write_text("seed = 3\n")
    for about, example in EXAMPLES[words]:
        assert max(map(len, [about, *example.splitlines()])) < 60
        arguments = shlex.split(example.replace("\\\n", " "))
        assert arguments[: 1 + len(words.split())] == ["scanrnn", *words.split()]
        if "--config" in arguments:  # the example shows a file and weights: the seed is for others
            config.write_text("max-steps = 3\n")
        arguments = [str(config) if each == "job.toml" else each for each in arguments]
        context: Any = CONTEXTS[words]
        context.command.make_context(words, arguments[1 + len(words.split()) :], parent=context.parent)


# Words ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["featurize", "a", "b", "--column", "a", "--column", "b"],
            "--column was given 2 times: 'a', 'b'. It takes one",
        ),
        (["plan", "a", "--keep", "a", "--keep=b"], "or give all at once: --keep a,b."),
        (["plan", "a", "--keep", "first name,id", "--keep", '"a,b"'], """--keep 'first name,id,"a,b"'."""),
        (["verify", "a", "--seed", "1", "--seed", "2"], "--seed was given 2 times"),
        (["featurize"], "SRC is missing"),
        (["featurize", "a", "--hidden", "3"], "DST is missing: a folder or URI"),
        (["export", "a"], "FILE.npy is missing"),
        (["encoder", "make"], "OUT is missing"),
        (["featurize", "a", "b", "--hidden", "3", "--output-layout", "colums"], "(--output-layout)"),
        (["featurize", "a", "b", "--hidden", "3", "--bad-value", "foo"], "(--bad-value)"),
        (["export", "a", "/dev/null"], "is there already. Choose another name, or replace it with --force."),
        (["featurize", "a", "b", "--hiden", "3"], "There is no flag --hiden. Did you mean '--hidden'?"),
        (
            ["featurize", "a", "b", "--hidden", "3", "--group-by", "id", "--filter", "x > 1"],
            "leave one of them out. To read fewer sequences, name fewer files or folders",
        ),
        (["featurize", "a", "b", "--drop", "c"], "There is no flag --drop. To leave columns out of the output, name"),
        (["verify", "a", "--exclude", "c"], "There is no flag --exclude. See scanrnn verify -h."),
        (["featurize", "a", "b", "--select", "c"], "There is no flag --select. See scanrnn featurize -h."),
        (
            ["featurize", "a", "b", "-q"],
            "There is no flag -q. --quiet stands before the command: scanrnn --quiet featurize ...",
        ),
        (["featurize", "a", "--hidden"], "'--hidden' requires an argument"),
        (["featuriz", "a"], "No such command 'featuriz'. Did you mean 'featurize'? See scanrnn -h."),
        (["plan", "a", "--hidden", "x"], "See scanrnn plan -h."),
    ],
)
def test_wrong_words_are_told_in_a_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in said(capsys, *arguments)


def test_a_trace_is_made_by_this_process_on_a_machine_with_gpus_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanrnn_dist.launch.visible_gpus", lambda: ["0", "1"])
    assert RunFlags().executor() is not None
    assert RunFlags(profile=Path("trace")).executor() is None


def test_workers_keep_compiled_programs_where_the_command_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = RunFlags(hidden=4, compilation_cache=Path("cache")).computation()
    assert asked.__getstate__()["_cache"] == tmp_path / "cache"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("plan|a|--config=~/job.toml", "encoder input profile compilation_cache"),
        ("plan|a|--encoder=~/job.toml|--profile|~/x", "encoder profile"),
        ("demo|--folder=~/x", "folder"),
        ("inspect|a|--output=~/x", "output"),
        ("report|a|--output=~/x", "output"),
        ("export|a|~/x", "file"),
        ("encoder make|~/x|--hidden=1|--input=~/x", "out input"),
        ("encoder convert|~/x|~/y|--from=orbax|--like=~/z", "source out like"),
    ],
)
def test_a_path_may_begin_with_home_wherever_it_is_said(
    words: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "encoder = '~/e'\ninput = '~/i'\nprofile = '~/p'\ncompilation-cache = '~/c'")
    name, *rest = words.split("|")
    context: Any = CONTEXTS[name]
    read = context.command.make_context(name, rest).params
    assert [read[each].parent for each in names.split()] == [tmp_path] * len(names.split())


def test_the_same_value_twice_and_a_flag_twice_are_no_mistake() -> None:
    context: Any = CONTEXTS["plan"]
    read = context.command.make_context("plan", ["a", "--json", "--json", "--column", "b", "--column", "b"])
    assert read.params["column"] == "b" and read.params["as_json"]


def test_of_several_words_the_last_is_dst_and_one_alone_is_src() -> None:
    command: Any = CONTEXTS["plan"].command
    read = [command.make_context("plan", words).params for words in (["a"], ["a", "b"], ["a", "b", "c"])]
    assert [each["source"] for each in read] == [["a"], ["a"], ["a", "b"]]
    assert [each["destination"] for each in read] == [None, "b", "c"]


def test_an_error_is_json_where_the_result_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["plan"], ["plan", "a", "--nope"], ["status", tmp_path], ["plan", tmp_path / "nope"]):
        told = json.loads(said(capsys, *arguments, "--json"))
        kind = "NothingFoundError" if arguments[-1] == tmp_path / "nope" else "ConfigError"
        assert told["exit_code"] == 2 and told["error"] and told["kind"] == kind
    assert json.loads(said(capsys, "plan", "--config", write(tmp_path, "json = true")))["kind"] == "ConfigError"
    assert said(capsys, "plan").startswith("ConfigError: ")


@pytest.mark.parametrize(
    ("flags", "near"),
    [
        ("--column sequense", "sequence"),
        ("--keep sequense", "sequence"),
        ("--features sequense", "sequence"),
        ("--group-by idd --order-by id --features id", "id"),
        ("--filter idd>3", "id"),
        ("--layout nested-list", "nested-lists"),
    ],
)
def test_names_of_the_source_that_are_not_there_end_with_2_and_a_near_one(
    flags: str, near: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_source(tmp_path / "events.parquet", random_rows([2, 1]))
    assert f"Did you mean '{near}'?" in said(capsys, "plan", path, *flags.split())
    assert "Did you mean 'events.parquet'? It stands in" in said(capsys, "plan", tmp_path / "event.parquet")
    assert f"{path} is a file; the destination must be a folder." in said(
        capsys, "featurize", path, path, "--hidden", 2
    )


def test_a_near_name_is_near() -> None:
    assert did_you_mean("Sequence", ["x", "sequence"]) == " Did you mean 'sequence'?"
    assert did_you_mean("sequence", []) == did_you_mean("abc", ["xyz"]) == ""


# A file of flags -----------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "--hidden": st.integers(1, 2**31 - 1),
        "--seed": st.integers(-(2**62), 2**62),
        "--column": NAMES,
        "--filter": NAMES,
        "--keep": st.lists(NAMES, max_size=3),
        "--ids": st.lists(NAMES, min_size=1, max_size=2),
        "--lock-seconds": st.floats(0.1, 1e9),
        "--encoder": NAMES.filter(lambda name: "\0" not in name),
        "--lossy-cast": st.just(True),
        "--json": st.just(True),
    },
)


def words_of(flags: dict[str, Any]) -> list[str]:
    words = []
    for flag, value in flags.items():
        text = joined_names(value) if isinstance(value, list) else str(value)
        words.append(flag if value is True else f"{flag}={text}")
    return words


@settings(max_examples=40, deadline=None)
@given(FLAGS, st.lists(NAMES.filter(lambda name: not name.startswith("-")), min_size=1, max_size=3))
def test_what_is_printed_as_a_file_gives_the_same_when_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, flags: dict[str, Any], words: list[str]
) -> None:
    command: Any = CONTEXTS["plan"].command
    first = command.make_context("plan", [*words_of(flags), *words])
    text = config_text(first, command.get_params(first))
    path = tmp_path_factory.getbasetemp() / "job.toml"
    path.write_text(text, encoding="utf-8")
    again = command.make_context("plan", ["--config", str(path)])
    assert again.params == first.params
    assert config_text(again, command.get_params(again)) == text
    told = tomllib.loads(text).keys() - {"source", "destination"}
    assert told == {flag[2:] for flag in flags}


def test_names_with_commas_and_quotes_are_told_as_in_csv_and_by_a_list_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("""keep = ["a,b", 'c"d', "e"]""")
    context: Any = CONTEXTS["featurize"]
    for words in (["--config", f"{tmp_path}/job.toml"], ["--keep", '"a,b","c""d",e'], ["--keep", '"a,b",c"d,,e']):
        assert context.command.make_context("featurize", [*words, "x", "y"]).params["keep"] == ["a,b", 'c"d', "e"]


def test_the_command_line_wins_and_print_config_says_what_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.toml"
    path.write_text('hidden = 8\nmax_steps = 7\nkeep = ["a", "b"]\nsource = "in"\nlossy-cast = true\n')
    assert cli.run(["featurize", "--config", str(path), "--hidden", "9", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed) == {
        "hidden": 9, "max-steps": 7, "keep": ["a", "b"], "source": ["in"], "lossy-cast": True,
    }  # fmt: skip
    assert "# The defaults hold for: destination, encoder, seed," in printed
    assert "DST is missing" in said(capsys, "featurize", "--config", path)
    context: Any = CONTEXTS["featurize"]
    read = context.command.make_context("featurize", ["--config", str(path), "x", "y"]).params
    assert (read["source"], read["destination"], read["max_steps"]) == (["x"], "y", 7)


@pytest.mark.parametrize(("key", "expected"), [("source", (["f"], "w")), ("destination", (["w"], "f"))])
def test_a_word_is_what_the_file_leaves_out(key: str, expected: tuple[list[str], str], tmp_path: Path) -> None:
    context: Any = CONTEXTS["featurize"]
    read = context.command.make_context("featurize", ["w", "--config", write(tmp_path, f"{key} = 'f'")]).params
    assert (read["source"], read["destination"]) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hiden = 3", "'hiden' that `scanrnn plan` does not take. Did you mean 'hidden'?"),
        ("tune = true", "'tune' that `scanrnn plan` does not take"),
        ("config = 'a'", "'config' that `scanrnn plan` does not take"),
        ("hidden = 'x'", "'--hidden'"),
        ("hidden = 0", "'--hidden'"),
        ("hidden = [1, 2]", "expected one value"),
        ("hidden = true", "expected a text, a number"),
        ("[hidden]\nx = 1", "expected a text, a number"),
        ("keep = [[1]]", "expected a text or a number"),
        ("lossy-cast = 'yes'", "expected true or false"),
        ("hidden = ", "is no TOML"),
    ],
)
def test_a_file_that_says_what_no_flag_takes_is_refused(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text(text)
    assert says in said(capsys, "plan", "a", "--config", tmp_path / "job.toml")
    assert "there is no file" in said(capsys, "plan", "a", "--config", tmp_path / "none.toml")


def test_every_flag_can_stand_in_a_file(tmp_path: Path) -> None:
    context: Any = CONTEXTS["featurize"]
    params = context.command.get_params(context)
    for param in params:
        if param.name in ("help", "config", "print_config"):
            with pytest.raises(ConfigError):
                read_config(write(tmp_path, f"{key_of(param)} = true"), "featurize", params)
        else:
            value = "true" if isinstance(param, TyperOption) and param.is_flag else "'1'"
            assert read_config(write(tmp_path, f"{key_of(param)} = {value}"), "featurize", params).keys() == {
                param.name
            }
    assert any(isinstance(param, TyperArgument) for param in params)


def write(folder: Path, text: str) -> str:
    (folder / "job.toml").write_text(text)
    return str(folder / "job.toml")


# Completion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "script"),
    [("bash", "complete -o default -F _scanrnn_completion scanrnn"), ("zsh", "#compdef scanrnn"),
     ("fish", "complete --command scanrnn")],
)  # fmt: skip
def test_each_shell_is_told_how_and_what_to_complete(
    shell: str, script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completed(words: str) -> str:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("_SCANRNN_COMPLETE", f"complete_{shell}")
        assert cli.run([]) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("_SCANRNN_COMPLETE", f"source_{shell}")
    assert cli.run([]) == 0
    assert script in capsys.readouterr().out
    assert "featurize" in completed("scanrnn fea")
    assert "--hidden" in completed("scanrnn featurize --hid") and "--seed" not in completed("scanrnn featurize --hid")
    assert "forward-fill" in completed("scanrnn plan --bad-value ")
    assert "--hidden" in completed("scanrnn featurize --config ~/job.toml --hid")
    assert "--hidden" in completed("scanrnn featurize --column a --column b --hid")


@pytest.mark.soak
def test_completion_works_in_bash(tmp_path: Path) -> None:
    program = tmp_path / "scanrnn"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m scanrnn_dist "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_SCANRNN_COMPLETE=source_bash scanrnn)"; COMP_WORDS=(scanrnn featurize --hid); COMP_CWORD=2; '
        '_scanrnn_completion scanrnn; echo "${COMPREPLY[@]}"'
    )
    paths = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(["bash", "-c", script], env=os.environ | paths, capture_output=True, text=True)
    assert run.stdout.split() == ["--hidden"], run.stderr


def test_an_output_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "; the folder does not exist." in said(capsys, "status", tmp_path / "nope")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        assert "does not exist" not in said(capsys, "status", path)
