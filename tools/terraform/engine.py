"""Terraform for the tests: the command on PATH, or else OpenTofu built from source, with the providers of this machine.

SIE_TERRAFORM_PROVIDERS=registry lets `init` download the real providers instead, and SIE_TERRAFORM_PROVIDERS=schema
takes published schemas only, as on a machine without providers. SIE_TERRAFORM=tofu wants OpenTofu.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import binaries
from terraform import providers

MOCKS: Final = re.compile(r'^  source += "(.*)"\n  override_during = plan\n', re.MULTILINE)
OLDEST: Final = (1, 11)  # mocks that answer while planning (override_during)
MODULES: Final = Path(__file__).resolve().parents[2] / "deploy" / "terraform"


@dataclass(frozen=True, slots=True)
class Terraform:
    """The command and its configuration."""

    command: Path
    configuration: Path

    @property
    def is_opentofu(self) -> bool:
        """OpenTofu stands in for Terraform."""
        return self.command.name.startswith("tofu")

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand in this folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "GOOGLE_", "AWS_"))}
        environment = {**kept, "TF_CLI_CONFIG_FILE": str(self.configuration), "CHECKPOINT_DISABLE": "1"}
        command = [str(self.command), *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    def init(self, folder: Path) -> None:
        """Prepare the folder, without a backend.

        Raises:
            RuntimeError: Terraform refuses.
        """
        done = self.run(folder, "init", "-backend=false", "-input=false", "-no-color")
        if done.returncode != 0:
            raise RuntimeError(f"terraform init in {folder}:\n{done.stdout}{done.stderr}")


def adapt(modules: Path) -> None:
    """Make the tests of these modules OpenTofu's, which takes no files of mocks and plans with mocked values anyway."""
    for file in list(modules.rglob("*.tftest.hcl")):
        text = file.read_text()
        if text.startswith("# Needs Terraform"):
            file.unlink()
            continue
        module = file.parents[1]

        def mocks(found: re.Match[str], module: Path = module) -> str:
            return "\n".join(each.read_text() for each in sorted((module / found[1]).glob("*.tfmock.hcl")))

        file.write_text(MOCKS.sub(mocks, text))


def prepared(folder: Path) -> Terraform:
    """Terraform with its configuration in this folder.

    Raises:
        ProviderError: a provider is missing.
        BuildError: there is neither Terraform nor a way to build OpenTofu.
    """
    configuration = folder / "terraform.rc"
    wanted = os.environ.get("SIE_TERRAFORM_PROVIDERS")
    if wanted == "registry":
        cache = binaries.cache_folder() / "terraform" / "downloaded"
        cache.mkdir(parents=True, exist_ok=True)
        configuration.write_text(f'plugin_cache_dir = "{cache}"\n')
    else:
        mirror = providers.prepared(MODULES, local=wanted != "schema")
        configuration.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
    return Terraform(_command(), configuration)


def _command() -> Path:
    """Terraform where it is new enough and wanted, or OpenTofu."""
    own = None if os.environ.get("SIE_TERRAFORM") == "tofu" else shutil.which("terraform")
    if own is not None:
        said = subprocess.run([own, "version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v(\d+)\.(\d+)", said)
        if found is not None and (int(found[1]), int(found[2])) >= OLDEST:
            return Path(own)
    binaries.build(["tofu"])
    return binaries.built("tofu")
