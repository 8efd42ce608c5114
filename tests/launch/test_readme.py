"""The commands in launch/README.md, and of launch in README.md, work."""

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
def test_its_commands_parse(line):
  options = command_line.parse(shlex.split(line))
  if options.verb == "create":
    command_line.request(options)
  if options.verb == "run":
    command_line.experiment(options)


def test_the_recipe_for_a_pod_reads_from_what_every_machine_has():
  """It is in the other README: text is on a disk, the rest in a bucket."""
  text = (ROOT / "README.md").read_text().replace("\\\n", " ")
  lines = re.findall(r"^python -m launch (.*)$", text, re.M)
  given = {(it := command_line.parse(shlex.split(x))).verb: it for x in lines}
  assert list(given) == ["create", "setup", "run", "watch"]
  request = command_line.request(given["create"])
  argv, workdir = command_line.experiment(given["run"])
  assert (ROOT / argv[0]).is_file() and workdir.startswith("gs://")
  flags = dict(word[2:].split("=") for word in argv[1:])
  mounts = [mount for _, mount in request.mounts]
  assert flags["data.source"] in mounts and flags["lm"].startswith("gs://")


def test_it_names_every_verb_and_service():
  for verb in command_line.VERBS:
    assert f"`{verb}" in README, verb
  for backend in BACKENDS:
    assert f"`{backend}`" in README, backend


def test_it_names_the_right_file_of_secrets():
  assert "`~/.jaxsae/env`" in README
  assert host.SECRETS.parts[-2:] == (".jaxsae", "env")
