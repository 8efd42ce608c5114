"""What launch/README.md shows can be typed."""

import re
import shlex

import pytest

from launch import command_line
from launch.host import host
from launch.request import BACKENDS
from launch.source_archive import ROOT

README = (ROOT / "launch" / "README.md").read_text()
COMMANDS = re.findall(
  r"^(?:\$ )?python -m launch (.*)$", README.replace("\\\n", " "), re.M
)


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_are_understood(line):
  options = command_line.parse(shlex.split(line))
  if options.verb == "create":
    command_line.request(options)
  if options.verb == "run":
    command_line.experiment(options)


def test_it_names_every_verb_and_service():
  for verb in command_line.VERBS:
    assert f"`{verb}" in README, verb
  for backend in BACKENDS:
    assert f"`{backend}`" in README, backend


def test_the_file_of_secrets_is_where_it_says():
  assert "`~/.jaxsae/env`" in README
  assert host.SECRETS.parts[-2:] == (".jaxsae", "env")
