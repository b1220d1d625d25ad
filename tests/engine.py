from __future__ import annotations

import os
import shutil
import subprocess


def install(program: str, package: str = "") -> str:
    """The path of a Debian program, installed by apt where it is missing and we are root."""
    found = shutil.which(program)
    if found is None:
        assert os.geteuid() == 0, f"{program} is missing, and only root can install it"
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*apt, "update"], check=True, env=environment, capture_output=True)
        command = [*apt, "install", "--no-install-recommends", "-y", package or program]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        found = shutil.which(program)
    assert found is not None, program
    return found
