"""Overrides reach the right setting, and configs survive JSON unchanged."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.overrides import Count, Label, Positive, Range, SettingError


@dataclasses.dataclass(frozen=True)
class Tap:
  """A value with its own text form, like `Site`."""

  where: str
  layer: int

  @classmethod
  def parse(cls, text):
    where, _, layer = text.partition(".")
    if where not in ("resid", "mlp"):
      raise UserError(f"{where!r} is no place; give resid or mlp")
    return cls(where, int(layer))

  def __str__(self):
    return f"{self.where}.{self.layer}"


@dataclasses.dataclass(frozen=True)
class Stack:
  width: int = 2048  # number of latents
  # Mean number of active latents
  # to aim for.
  target_l0: tuple[float, ...] = (8.0, 16.0, 32.0)
  lr: float = 7e-5

  def __post_init__(self):
    if self.width < len(self.target_l0):
      raise UserError(f"width={self.width} is less than the targets")


@dataclasses.dataclass(frozen=True)
class Data:
  documents: int | None = None  # how many to read; None reads all
  shuffle: bool = True
  name: str | None = "a # b"  # of the corpus
  window: tuple[int, int] = (0, 1)


@dataclasses.dataclass(frozen=True)
class Named:
  workdir: str = "runs/x"  # where the run goes


@dataclasses.dataclass(frozen=True)
class Run(Named):
  sae: Stack = Stack()  # the one autoencoder
  stacks: tuple[Stack, ...] = (Stack(), Stack(width=4096))
  data: Data = Data()
  sites: tuple[Tap, ...] = (Tap("resid", 2),)
  probe: Tap | None = None
  mode: Literal["lambda", "target"] = "target"  # what is held fixed


def parsed(*argv):
  return overrides.parse(Run(), argv)


def complaint(*argv):
  with pytest.raises(UserError) as caught:
    parsed(*argv)
  return str(caught.value)


def test_no_override_changes_nothing():
  assert parsed() == Run()


@pytest.mark.parametrize(
  "argv, read, value",
  [
    (["--workdir=a=b"], lambda c: c.workdir, "a=b"),
    (["--workdir", "a b"], lambda c: c.workdir, "a b"),
    (["--workdir="], lambda c: c.workdir, ""),
    (["--sae.width=16_384"], lambda c: c.sae.width, 16384),
    (["--sae.width=1e3"], lambda c: c.sae.width, 1000),
    (["--sae.width=3", "--sae.width=4"], lambda c: c.sae.width, 4),
    (["--sae.lr", "-1"], lambda c: c.sae.lr, -1.0),
    (["--sae.target_l0=8,.5,1e3"], lambda c: c.sae.target_l0, (8.0, 0.5, 1e3)),
    (["--sae.target_l0="], lambda c: c.sae.target_l0, ()),
    (["--stacks.1.width=5"], lambda c: [s.width for s in c.stacks], [2048, 5]),
    (["--data.documents=7"], lambda c: c.data.documents, 7),
    (["--data.documents=None"], lambda c: c.data.documents, None),
    (["--data.name=None"], lambda c: c.data.name, None),
    (["--data.name=7"], lambda c: c.data.name, "7"),
    (["--data.shuffle=false"], lambda c: c.data.shuffle, False),
    (["--data.shuffle", "False"], lambda c: c.data.shuffle, False),
    (["--data.shuffle", "--mode=target"], lambda c: c.data.shuffle, True),
    (["--data.window=3,4"], lambda c: c.data.window, (3, 4)),
    (["--sites=resid.2,mlp.3"], lambda c: list(map(str, c.sites)),
     ["resid.2", "mlp.3"]),
    (["--sites=resid.2", "--sites", "mlp.3"],
     lambda c: list(map(str, c.sites)), ["mlp.3"]),
    (["--probe=mlp.1"], lambda c: c.probe, Tap("mlp", 1)),
    (["--mode=lambda"], lambda c: c.mode, "lambda"),
  ],
)  # fmt: skip
def test_an_override_sets_its_setting(argv, read, value):
  assert read(parsed(*argv)) == value
  assert type(read(parsed(*argv))) is type(value)


def test_overrides_that_are_valid_only_together_are_accepted():
  assert parsed("--sae.width=1", "--sae.target_l0=4").sae.width == 1
  assert complaint("--sae.width=1") == "width=1 is less than the targets"


@pytest.mark.parametrize(
  "argv, sentence",
  [
    (["--sae.wdith=3"],
     "Unknown setting --sae.wdith; did you mean --sae.width? (see --help)"),
    (["--width=3"],
     "Unknown setting --width; did you mean --sae.width? (see --help)"),
    (["--stacks.2.width=3"],
     "Unknown setting --stacks.2.width; did you mean --stacks.1.width?"
     " (see --help)"),
    (["--qqqqq"], "Unknown setting --qqqqq; --help lists them all"),
    (["--sae=3"],
     "--sae is a group of settings; set one, e.g. --sae.width"),
    (["--sae.width=abc"], "--sae.width=abc is not an int;"
     " give a whole number, e.g. --sae.width=2048"),
    (["--sae.width=1.5"], "--sae.width=1.5 is not an int;"
     " give a whole number, e.g. --sae.width=2048"),
    (["--sae.width=true"], "--sae.width=true is not an int;"
     " give a whole number, e.g. --sae.width=2048"),
    (["--sae.width"], "--sae.width needs a value;"
     " give a whole number, e.g. --sae.width=2048"),
    (["--sae.lr=nan"], "--sae.lr=nan is not a float;"
     " give a number, e.g. --sae.lr=7e-05"),
    (["--sae.target_l0=8,x"], "--sae.target_l0=8,x is not a tuple of floats;"
     " give numbers with commas between, e.g. --sae.target_l0=8,16,32"),
    (["--data.window=8"], "--data.window=8 is not a tuple of ints;"
     " give 2 whole numbers with commas between, e.g. --data.window=0,1"),
    (["--data.documents=x"], "--data.documents=x is not an int or None;"
     " give a whole number or None"),
    (["--data.shuffle", "no"],
     "--data.shuffle=no is not a bool; give true or false"),
    (["--sites=foo.2"],
     "--sites=foo.2: 'foo' is no place; give resid or mlp"),
    (["--probe=mlp.x"],
     "--probe=mlp.x is not a Tap or None; give a Tap or None"),
    (["--mode=x"], "--mode=x is not a choice;"
     " give lambda or target, e.g. --mode=target"),
    (["--mode=lamda"], "--mode=lamda is not a choice;"
     " did you mean lambda? give lambda or target"),
    (["stray"],
     "Cannot place 'stray'; write --name=value, or --name=a,b for several"),
    (["-x"],
     "Cannot place '-x'; write --name=value, or --name=a,b for several"),
  ],
)  # fmt: skip
def test_a_wrong_override_gets_one_sentence(argv, sentence):
  assert complaint(*argv) == sentence


def test_help_gives_every_setting_with_type_meaning_and_default(
  capsys, monkeypatch
):
  monkeypatch.setattr(sys, "argv", ["experiments/run.py"])
  with pytest.raises(SystemExit) as stop:
    overrides.parse(Run(), ["--help"], doc="Train it.\n\n  The command.\n")
  assert stop.value.code == 0
  text = capsys.readouterr().out
  flat = " ".join(text.split())
  assert "Train it." in text
  assert "--workdir=TEXT where the run goes (default: runs/x)" in flat
  assert "--sae.width=INT number of latents (default: 2048)" in flat
  assert "--stacks.1.width=INT number of latents (default: 4096)" in flat
  assert "Mean number of active latents to aim for. (default: 8,16,32)" in flat
  assert "None reads all (default: None)" in flat
  assert "--data.name=TEXT|None of the corpus (default: a # b)" in flat
  assert "--mode=lambda|target what is held fixed (default: target)" in flat
  assert "--sites=TAP,... (default: resid.2)" in flat
  assert "sae: the one autoencoder" in text
  assert max(map(len, text.splitlines())) <= 80


def test_help_needs_no_source_files(capsys):
  made_up = dataclasses.make_dataclass(
    "MadeUp", [("width", int, 3)], frozen=True
  )
  assert "--width=INT" in overrides.help_text(made_up())


def test_help_says_what_holds_of_a_setting_given_twice():
  assert "the last holds" in " ".join(overrides.help_text(Run()).split())


@dataclasses.dataclass(frozen=True)
class Optim:
  rate: Positive = 0.5  # of learning
  rows: tuple[Count, ...] = (1,)

  def __post_init__(self):
    overrides.check(self)
    if self.rate * len(self.rows) > 1:
      raise SettingError(
        self, "{rate} is too fast for {rows}; use {rate:=0.1} or {rows:=1}."
      )


@dataclasses.dataclass(frozen=True)
class Held:
  """A config that declares ranges."""

  name: Label | None = None
  every: Count | Tap = 3
  share: Annotated[float, Range(0, 1, below=True)] = 0.0
  mode: Literal["a", "b"] = "a"
  optim: Optim = Optim()
  more: tuple[Optim, ...] = (Optim(),)

  def __post_init__(self):
    overrides.check(self)


@pytest.mark.parametrize(
  ("typed", "says"),
  [
    ("--optim.rate=-1", "must be a number from 1e-30 to 1e6"),
    ("--more.0.rate=1e300", "must be a number from 1e-30 to 1e6"),
    ("--optim.rows=1,0", "each must be a whole number from 1 to 2e9"),
    ("--every=0", "must be a whole number from 1 to 2e9"),
    ("--share=1", "must be a number from 0, below 1"),
    ("--name=", "must be text of 1 to 100 printable characters"),
    ("--name=a\nb", "printable"),
    ("--name=" + "x" * 5000, "1 to 100"),
    ("--more.0.rate=1e5", "--more.0.rate=0.1 or --more.0.rows=1."),
  ],
)
def test_a_value_out_of_range_is_named_as_it_was_typed(typed, says):
  with pytest.raises(UserError) as caught:
    overrides.parse(Held(), [typed])
  sentence = str(caught.value)
  name, _, value = typed.partition("=")
  assert sentence.startswith(f"{name}=") and says in sentence
  assert "\n" not in sentence and len(sentence) < 200
  if len(value) < 10 and value.isprintable() and "e" not in value:
    assert sentence.startswith(typed)


def test_a_value_out_of_range_in_python_is_named_as_there():
  with pytest.raises(UserError, match=r"^rate=-1 must be a number from"):
    Optim(rate=-1)
  with pytest.raises(
    UserError, match=r"^rate=1 is too fast .* use rate=0.1 or"
  ):
    Optim(rate=1.0, rows=(1, 2))


@pytest.mark.parametrize(
  "settings",
  [
    {"rate": float("nan")},
    {"rate": "0.5"},
    {"rate": None},
    {"rate": True},
    {"rows": 3},
    {"rows": (1.5,)},
    {"rows": [1]},
  ],
)
def test_a_value_of_another_type_is_refused_in_python(settings):
  ((name, _),) = settings.items()
  with pytest.raises(UserError, match=f"^{name}="):
    Optim(**settings)


def test_numbers_of_numpy_are_numbers():
  made = Optim(rate=np.float32(0.5), rows=(np.int64(2),))
  assert made == Optim(rate=0.5, rows=(2,))


def test_a_saved_value_out_of_range_names_the_file_and_the_setting():
  data = overrides.to_json(Held())
  data["more"][0]["rate"] = -1
  with pytest.raises(UserError, match=r"^a\.json: more\.0\.rate=-1 must be"):
    overrides.from_json(Held, data, "a.json")


def test_help_shows_ranges():
  flat = " ".join(overrides.help_text(Held()).split())
  assert "of learning (from 1e-30 to 1e6; default: 0.5)" in flat
  assert "--share=FLOAT (from 0, below 1; default: 0)" in flat
  assert "--optim.rows=INT,... (from 1 to 2e9; default: 1)" in flat
  assert "(of 1 to 100 printable characters; default: None)" in flat


@dataclasses.dataclass(frozen=True)
class Choice:
  mode: str = "all"  # which runs
  only: int | None = None  # one of them
  workdir: str = "runs"  # of all


def test_several_configs_share_a_command_line():
  argv = ["--only=2", "--sae.width=8", "--workdir=y", "--mode=some"]
  choice, run = overrides.parse_several(Choice(), Run(), argv=argv)
  assert choice == Choice(mode="some", only=2, workdir="y")  # the first has it
  assert run == parsed("--sae.width=8")


@pytest.mark.parametrize(
  ("word", "near"), [("--onyl=2", "--only"), ("--sae.wdith=8", "--sae.width")]
)
def test_a_wrong_setting_is_compared_with_all_configs(word, near):
  with pytest.raises(UserError, match=f"did you mean {near}"):
    overrides.parse_several(Choice(), Run(), argv=[word])


def test_help_of_several_configs_has_a_heading_for_each():
  text = overrides.help_text(
    Choice(), Run(), headings=("the choice:", "the run:"), usage="tool do"
  )
  assert text.startswith("usage: tool do [--setting=value ...]")
  assert text.index("the choice:") < text.index("--only=INT")
  assert text.index("--only=INT") < text.index("the run:")
  assert text.index("the run:") < text.index("--sae.width=INT")
  assert text.count("--workdir=") == text.count("--mode=") == 1


def test_a_bare_word_is_the_value_of_a_named_setting():
  both = overrides.parse_several(
    Choice(), argv=["--only", "2", "some"], words=("mode",)
  )
  assert both == (Choice(mode="some", only=2),)
  with pytest.raises(UserError, match="'more'"):
    overrides.parse_several(Choice(), argv=["some", "more"], words=("mode",))


floats = st.floats(allow_nan=False, allow_infinity=False)
taps = st.builds(Tap, st.sampled_from(["resid", "mlp"]), st.integers())
stacks = st.builds(
  Stack,
  width=st.integers(min_value=3),
  target_l0=st.lists(floats, max_size=3).map(tuple),
  lr=floats,
)
runs = st.builds(
  Run,
  workdir=st.text(),
  sae=stacks,
  stacks=st.lists(stacks, max_size=3).map(tuple),
  data=st.builds(
    Data,
    documents=st.none() | st.integers(),
    shuffle=st.booleans(),
    name=st.none() | st.text(),
    window=st.tuples(st.integers(), st.integers()),
  ),
  sites=st.lists(taps, max_size=3).map(tuple),
  probe=st.none() | taps,
  mode=st.sampled_from(["lambda", "target"]),
)


@given(runs)
def test_json_restores_the_same_config(run):
  text = json.dumps(overrides.to_json(run), allow_nan=False)
  assert overrides.from_json(Run, json.loads(text)) == run


@given(runs, runs)
def test_differences_lists_the_settings_that_differ(a, b):
  assert overrides.differences(a, a) == []
  assert (overrides.differences(a, b) == []) == (a == b)


def test_differences_name_the_setting_and_both_values():
  other = parsed("--stacks.1.width=5", "--probe=mlp.1")
  assert overrides.differences(Run(), other) == [
    ("probe", None, Tap("mlp", 1)),
    ("stacks.1.width", 4096, 5),
  ]


def test_a_group_that_only_one_config_has_is_a_difference():
  fewer = dataclasses.replace(Run(), stacks=(Stack(),))
  names = [name for name, *_ in overrides.differences(fewer, Run())]
  assert names == ["stacks.1.width", "stacks.1.target_l0", "stacks.1.lr"]


def broken(path, value):
  """Returns the JSON of a `Run` with `value` at `path`; `...` deletes it."""
  data = inner = overrides.to_json(Run())
  for key in path[:-1]:
    inner = inner[key]
  inner[path[-1]] = value
  if value is ...:
    del inner[path[-1]]
  return data


@pytest.mark.parametrize(
  "path, value, sentence",
  [
    (["sae", "wdith"], 1, "unknown setting sae.wdith; did you mean sae.width?"),
    (["extra"], 1, "unknown setting extra"),
    (["sae", "lr"], ..., "the setting sae.lr is missing"),
    (["sae"], 3, "sae=3 is not a group of settings"),
    (["stacks"], {}, "stacks={} is not a list of groups of settings"),
    (["stacks", 1, "width"], "5", "stacks.1.width='5' is not an int"),
    (["sae", "width"], 5.0, "sae.width=5.0 is not an int"),
    (["sae", "width"], True, "sae.width=True is not an int"),
    (["sae", "lr"], "1", "sae.lr='1' is not a float"),
    (["sae", "lr"], float("inf"), "sae.lr=inf is not a float"),
    (["sae", "target_l0"], "8", "sae.target_l0='8' is not a tuple of floats"),
    (["data", "shuffle"], 1, "data.shuffle=1 is not a bool"),
    (["data", "documents"], "None",
     "data.documents='None' is not an int or None"),
    (["workdir"], None, "workdir=None is not a str"),
    (["mode"], [], "mode=[] is not a choice"),
    (["sites"], ["foo.1"], "sites: 'foo' is no place; give resid or mlp"),
  ],
)  # fmt: skip
def test_json_of_a_wrong_type_is_refused(path, value, sentence):
  with pytest.raises(UserError) as caught:
    overrides.from_json(Run, broken(path, value), "a/config.json")
  assert str(caught.value) == f"a/config.json: {sentence}"


def test_json_that_is_not_an_object_is_refused():
  with pytest.raises(UserError, match=r"is not a group of settings"):
    overrides.from_json(Run, [1, 2])


def test_a_whole_number_in_json_is_a_float_where_a_float_is_meant():
  lr = overrides.from_json(Run, broken(["sae", "lr"], 1)).sae.lr
  assert type(lr) is float
  with pytest.raises(UserError, match="is not a float"):
    overrides.from_json(Run, broken(["sae", "lr"], 10**400))


def test_a_config_with_an_unsupported_type_is_a_bug():
  odd = dataclasses.make_dataclass("Odd", [("table", dict)], frozen=True)
  with pytest.raises(TypeError, match="cannot be a"):
    overrides.parse(odd({}), ["--table=x"])


def test_the_package_loads_only_the_standard_library():
  # Without the package's door, which loads everything.
  folder = str(pathlib.Path(overrides.__file__).parents[1])
  code = (
    "import sys, types; before = set(sys.modules);"
    "door = sys.modules['jaxsae'] = types.ModuleType('jaxsae');"
    f"door.__path__ = [{folder!r}]; import jaxsae.overrides;"
    "new = {name.split('.')[0] for name in set(sys.modules) - before};"
    "print(new - set(sys.stdlib_module_names))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "{'jaxsae'}"
